from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterator

import pytest

from gateway.embedded import store as module
from gateway.embedded.decode import decode
from gateway.embedded.store import ORIGIN_REFRESH_S, SPANS_PER_CUT, Store, StoreError, connect
from tests.kit.spans import attribute, make_request, make_span

NOW_S = 1_800_000_000.0
DAY_S = 86_400.0
MIB = 2**20


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store(tmp_path, retention_s=DAY_S, max_bytes=64 * MIB)
    yield opened
    opened.close()


def request(*spans, **fields):
    return decode(make_request(*spans, **fields).SerializeToString())


def rows(store, sql, *values):
    db = connect(store.path, read_only=True)
    try:
        return db.execute(sql, values).fetchall()
    finally:
        db.close()


def count(store, table):
    return rows(store, f"SELECT count(*) FROM {table}")[0][0]


def cut_all(store, now_s):
    while store.cut(now_s):
        pass


def fill(store, spans, now_s, *, spans_per_trace=1, pad=0):
    """Stores spans with ``pad`` bytes in each that do not repeat; returns the first trace's id."""
    made = []
    for _ in range(spans // spans_per_trace):
        trace_id = os.urandom(16)
        made += [
            make_span(trace_id=trace_id, attributes=[attribute("pad", os.urandom(pad).hex())])
            for _ in range(spans_per_trace)
        ]
    store.write([("", request(*made))], now_s)
    return made[0].trace_id


def test_a_span_that_comes_again_replaces_the_first(store):
    span = make_span("first")
    store.write([("", request(span))], NOW_S)
    span.name = "second"
    store.write([("", request(span)), ("", request(span))], NOW_S + 1)
    assert rows(store, "SELECT name FROM spans") == [("second",)]
    assert count(store, "traces") == 1


def test_spans_of_one_id_and_two_kinds_are_both_kept(store):
    span = make_span(kind=2)
    store.write([("", request(span))], NOW_S)
    span.kind = 3
    store.write([("", request(span))], NOW_S)
    assert count(store, "spans") == 2


def test_a_trace_grows_with_its_spans(store):
    trace_id = os.urandom(16)

    def write(name, start, end, parent):
        span = make_span(
            name,
            trace_id=trace_id,
            parent_span_id=parent,
            start_time_unix_nano=start,
            end_time_unix_nano=end,
        )
        store.write([("", request(span, service=f"{name}-service"))], NOW_S)
        (row,) = rows(store, "SELECT start_ns, end_ns, root_name, root_service FROM traces")
        return row

    parent = os.urandom(8)
    assert write("child", 100, 200, parent) == (100, 200, "", "")
    assert write("root", 50, 150, b"") == (50, 200, "root", "root-service")
    assert write("late", 150, 300, parent) == (50, 300, "root", "root-service")


def test_tenants_are_apart(store):
    span = make_span()
    store.write([("one", request(span)), ("two", request(span))], NOW_S)
    assert rows(store, "SELECT tenant FROM traces ORDER BY tenant") == [("one",), ("two",)]
    assert count(store, "spans") == 2
    assert count(store, "origins") == 2


def test_origins_are_kept_once(store):
    for second in range(3):
        store.write([("", request(make_span()))], NOW_S + second * ORIGIN_REFRESH_S)
    assert rows(store, "SELECT used_s FROM origins") == [(int(NOW_S) + 2 * ORIGIN_REFRESH_S,)]


def test_a_write_that_fails_leaves_nothing(store):
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        fill(store, 200, NOW_S, pad=1000)
    assert [count(store, table) for table in ("spans", "traces", "origins")] == [0, 0, 0]
    store._db.execute("PRAGMA max_page_count = 100000")
    fill(store, 200, NOW_S, pad=1000)
    assert rows(store, "SELECT count(*) FROM spans JOIN origins o ON o.id = origin") == [(200,)]


def test_what_was_written_is_there_after_a_restart(tmp_path):
    span = make_span()
    first = Store(tmp_path, retention_s=DAY_S, max_bytes=MIB)
    first.write([("", request(span))], NOW_S)
    first.close()
    second = Store(tmp_path, retention_s=DAY_S, max_bytes=MIB)
    assert rows(second, "SELECT trace_id FROM traces") == [(span.trace_id,)]
    second.close()


def test_traces_older_than_the_retention_are_cut(store):
    fill(store, 10, NOW_S)
    kept = fill(store, 1, NOW_S + 10)
    cut_all(store, NOW_S + DAY_S)
    assert count(store, "traces") == 11
    cut_all(store, NOW_S + DAY_S + 5)
    assert rows(store, "SELECT trace_id FROM traces") == [(kept,)]
    assert count(store, "spans") == 1


def test_a_cut_takes_a_bounded_number_of_spans(store):
    fill(store, 3 * SPANS_PER_CUT, NOW_S, spans_per_trace=3 * SPANS_PER_CUT)
    fill(store, 100, NOW_S)
    left = [count(store, "spans")]
    while store.cut(NOW_S + 2 * DAY_S):
        left.append(count(store, "spans"))
    assert left[-1] == 0
    assert max(before - after for before, after in itertools.pairwise(left)) <= SPANS_PER_CUT
    assert count(store, "traces") == 0


def test_a_trace_goes_with_its_last_span(store):
    trace_id = fill(store, 2 * SPANS_PER_CUT, NOW_S, spans_per_trace=2 * SPANS_PER_CUT)
    assert store.cut(NOW_S + 2 * DAY_S)
    assert count(store, "spans") == SPANS_PER_CUT
    assert rows(store, "SELECT trace_id FROM traces") == [(trace_id,)]


def test_the_file_stays_within_its_size_and_keeps_the_newest(tmp_path):
    store = Store(tmp_path, retention_s=DAY_S, max_bytes=2 * MIB)
    for second in range(12):
        newest = fill(store, 250, NOW_S + second, pad=600)
        cut_all(store, NOW_S + second)
        assert store.used_bytes() <= 2 * MIB
        assert store.path.stat().st_size <= 3 * MIB  # the log is not yet all in the file
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert store.path.stat().st_size <= 2 * MIB
    assert count(store, "spans") >= 250
    assert rows(store, "SELECT 1 FROM traces WHERE trace_id = ?", newest) == [(1,)]
    without = "SELECT count(*) FROM spans WHERE trace NOT IN (SELECT id FROM traces)"
    assert rows(store, without) == [(0,)]
    store.close()


def test_a_file_that_may_be_smaller_than_it_was_shrinks(tmp_path):
    store = Store(tmp_path, retention_s=DAY_S, max_bytes=64 * MIB)
    fill(store, 2000, NOW_S, pad=600)
    store.close()
    store = Store(tmp_path, retention_s=DAY_S, max_bytes=MIB)
    cut_all(store, NOW_S)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert store.path.stat().st_size <= MIB
    store.close()


def test_origins_that_nothing_came_from_for_long_go_with_the_oldest_traces(store):
    store.write([("", request(make_span(), service="gone"))], NOW_S)
    store.write([("", request(make_span(), service="stays"))], NOW_S + DAY_S / 2)
    cut_all(store, NOW_S + DAY_S + 1)
    assert count(store, "origins") == 1
    assert rows(store, "SELECT count(*) FROM spans s JOIN origins o ON o.id = s.origin") == [(1,)]


def test_an_origin_that_was_deleted_is_made_anew(store):
    store.write([("", request(make_span()))], NOW_S)
    cut_all(store, NOW_S + 2 * DAY_S)
    assert count(store, "origins") == 0
    store.write([("", request(make_span()))], NOW_S + 2 * DAY_S)
    assert rows(store, "SELECT count(*) FROM spans s JOIN origins o ON o.id = s.origin") == [(1,)]


def test_the_cache_of_origins_is_bounded(store, monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED_ORIGINS", 2)
    for service in "abcabc":
        store.write([("", request(make_span(), service=service))], NOW_S)
    assert len(store._origins) == 2
    assert count(store, "origins") == 3
    assert count(store, "spans") == 6


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / module.FILE_NAME).write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"embedded\.sqlite cannot be used: .* delete it"):
        Store(tmp_path, retention_s=DAY_S, max_bytes=MIB)


def test_a_file_of_another_version_is_named(tmp_path):
    db = sqlite3.connect(tmp_path / module.FILE_NAME)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="another version"):
        Store(tmp_path, retention_s=DAY_S, max_bytes=MIB)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "file" / "data", retention_s=DAY_S, max_bytes=MIB)
