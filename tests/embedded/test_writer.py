from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.embedded import writer as module
from gateway.embedded.decode import BadRequestError
from gateway.embedded.store import Store, connect
from gateway.embedded.writer import OTHER_TENANTS, Counts, Writer
from gateway.errors import GrpcCode
from tests.kit.spans import make_payload, make_request, make_span


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store(tmp_path, retention_s=3600, max_bytes=2**30)
    yield opened
    opened.close()


@pytest.fixture
async def writer(store) -> AsyncIterator[Writer]:
    started = Writer(store)
    yield started
    await started.stop()


def stored_spans(store):
    db = connect(store.path, read_only=True)
    try:
        return db.execute("SELECT count(*) FROM spans").fetchone()[0]
    finally:
        db.close()


def bad_payload():
    span = make_span()
    span.trace_id = bytes(16)
    return make_request(span).SerializeToString()


async def test_spans_are_in_the_file_when_write_returns(store, writer):
    await writer.write("", make_payload(3))
    assert stored_spans(store) == 3


async def test_writes_that_wait_together_are_committed_together(store, writer):
    commits = []
    write = store.write
    store.write = lambda requests, now_s: commits.append(1) or write(requests, now_s)
    await asyncio.gather(*(writer.write("", make_payload(2)) for _ in range(50)))
    assert stored_spans(store) == 100
    assert len(commits) < 50


async def test_a_bad_request_is_refused_alone(store, writer):
    good = [writer.write("", make_payload(1)) for _ in range(3)]
    results = await asyncio.gather(*good, writer.write("", bad_payload()), return_exceptions=True)
    assert results[:3] == [None] * 3
    assert isinstance(results[3], BadRequestError)
    assert results[3].code == GrpcCode.INVALID_ARGUMENT
    assert stored_spans(store) == 3
    assert writer.counts.spans == {"": 3}


async def test_a_store_that_fails_asks_to_come_back(store, writer, caplog):
    store._db.execute("PRAGMA max_page_count = 1")
    payload = make_payload(2000)
    with caplog.at_level(logging.ERROR), pytest.raises(BadRequestError) as refused:
        await writer.write("", payload)
    assert refused.value.code == GrpcCode.UNAVAILABLE
    assert "full" in str(refused.value)
    assert [record.getMessage() for record in caplog.records] == ["store failed"]
    store._db.execute("PRAGMA max_page_count = 100000")
    await writer.write("", payload)
    assert stored_spans(store) == 2000


async def test_no_more_waits_than_the_bound(writer, monkeypatch):
    payload = make_payload(1)
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 2 * len(payload))
    results = await asyncio.gather(
        *(writer.write("", payload) for _ in range(3)), return_exceptions=True
    )
    assert results[:2] == [None, None]
    assert isinstance(results[2], BadRequestError)
    assert results[2].code == GrpcCode.UNAVAILABLE
    await writer.write("", payload)


async def test_a_client_that_leaves_does_not_take_its_spans_back(store, writer):
    faults = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    task = loop.create_task(writer.write("", make_payload(5)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await writer.write("", make_payload(1))  # in order, so the first is through
    assert stored_spans(store) == 6
    assert writer.counts.spans == {"": 6}
    assert writer._waiting_bytes == 0
    assert not faults


async def test_stop_commits_what_waits(store):
    writer = Writer(store)
    writes = asyncio.gather(*(writer.write("", make_payload(10)) for _ in range(20)))
    await asyncio.sleep(0)
    await writer.stop()
    await writes
    assert stored_spans(store) == 200


async def test_what_is_too_old_is_deleted_without_a_write(store, writer):
    await writer.write("", make_payload(10))
    store._retention_s = -10
    async with asyncio.timeout(10):
        while stored_spans(store):
            await asyncio.sleep(0.01)


def test_tenants_are_counted_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(module, "MAX_COUNTED_TENANTS", 2)
    counts = Counts()
    for tenant in ("a", "b", "c", "d", "a"):
        counts.add(tenant, 1, 10)
    assert counts.spans == {"a": 2, "b": 1, OTHER_TENANTS: 2}
    assert counts.bytes == {"a": 20, "b": 10, OTHER_TENANTS: 20}
