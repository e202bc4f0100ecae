from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.envelope import Envelope
from gateway.pipeline.batcher import Batch, Batcher, batch_of
from gateway.pipeline.records import Record

MAX_SPANS, MAX_BYTES, MAX_AGE_S = 10, 100, 0.2


def a_batcher() -> Batcher:
    return Batcher(max_spans=MAX_SPANS, max_bytes=MAX_BYTES, max_age_s=MAX_AGE_S)


def record(sequence: int, tenant: str = "", *, size: int = 1, spans: int = 1) -> Record:
    return Record(sequence, Envelope(tenant, b"x" * size, spans, 0.0))


def sequences(batches: list[Batch]) -> list[list[int]]:
    return [[r.sequence for r in batch.records] for batch in batches]


def test_a_batch_is_full_when_it_reaches_its_spans():
    batcher = a_batcher()
    assert batcher.add(record(1, spans=9), 0.0) == []
    assert sequences(batcher.add(record(2, spans=1), 0.0)) == [[1, 2]]
    assert len(batcher) == 0


def test_a_batch_is_full_when_it_reaches_its_bytes():
    batcher = a_batcher()
    assert batcher.add(record(1, size=99), 0.0) == []
    assert sequences(batcher.add(record(2, size=1), 0.0)) == [[1, 2]]


def test_what_would_exceed_the_limit_begins_the_next_batch():
    batcher = a_batcher()
    batcher.add(record(1, size=60), 0.0)
    assert sequences(batcher.add(record(2, size=60), 0.0)) == [[1]]
    assert sequences(batcher.flush()) == [[2]]


def test_a_record_larger_than_a_batch_goes_alone_and_not_before_what_came_earlier():
    batcher = a_batcher()
    batcher.add(record(1), 0.0)
    assert sequences(batcher.add(record(2, size=5000, spans=500), 0.0)) == [[1], [2]]
    assert batcher.size == 0


def test_a_batch_of_a_busy_tenant_goes_on_filling():
    batcher = a_batcher()
    batcher.add(record(1, "busy"), 1.0)
    batcher.add(record(2, "free"), 2.0)
    busy = {"busy"}
    assert batcher.next_due(busy=busy) == 2.0 + MAX_AGE_S
    assert sequences(batcher.due(9.0, busy=busy)) == [[2]]
    assert batcher.next_due(busy=busy) is None
    assert batcher.flush(busy=busy) == []
    batcher.add(record(3, "busy"), 9.0)
    assert sequences(batcher.due(9.0)) == [[1, 3]]


def test_a_batch_is_due_when_its_oldest_record_has_reached_the_age():
    batcher = a_batcher()
    batcher.add(record(1), 5.0)
    batcher.add(record(2), 5.1)
    assert batcher.next_due() == 5.0 + MAX_AGE_S
    assert batcher.due(5.19) == []
    assert sequences(batcher.due(5.0 + MAX_AGE_S)) == [[1, 2]]
    assert batcher.next_due() is None


def test_a_new_batch_has_an_age_of_its_own():
    batcher = a_batcher()
    batcher.add(record(1, size=60), 5.0)
    batcher.add(record(2, size=60), 5.1)
    assert batcher.next_due() == 5.1 + MAX_AGE_S


def test_a_clock_that_jumps_back_delays_and_loses_nothing():
    batcher = a_batcher()
    batcher.add(record(1), 1000.0)
    assert batcher.due(-1000.0) == []
    assert sequences(batcher.due(2000.0)) == [[1]]


def test_tenants_are_never_mixed():
    batcher = a_batcher()
    for number in range(1000):
        assert batcher.add(record(number, f"tenant-{number % 500}"), 0.0) == []
    batches = batcher.flush()
    assert len(batches) == 500
    assert all({r.envelope.tenant for r in b.records} == {b.tenant} for b in batches)


def test_only_the_tenants_that_are_due_are_sent():
    batcher = a_batcher()
    batcher.add(record(1, "a"), 1.0)
    batcher.add(record(2, "b"), 2.0)
    assert batcher.next_due() == 1.0 + MAX_AGE_S
    assert sequences(batcher.due(1.0 + MAX_AGE_S)) == [[1]]
    assert batcher.next_due() == 2.0 + MAX_AGE_S


def test_the_payload_is_the_records_joined_and_one_record_is_not_copied():
    one, two = Record(1, Envelope("", b"ab", 1, 0.0)), Record(2, Envelope("", b"cd", 1, 0.0))
    assert batch_of([one, two]).payload() == b"abcd"
    assert batch_of([one]).payload() is one.envelope.payload


RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "b"]),
        st.integers(1, 150),  # bytes
        st.integers(1, 15),  # spans
        st.sampled_from([0.0, 0.05, 0.3, -5.0]),  # seconds that pass; a clock may jump back
    ),
    max_size=60,
)


@given(RECORDS)
def test_batches_stay_in_their_limits_and_lose_and_reorder_nothing(arrivals):
    batcher, now, out = a_batcher(), 100.0, []
    for sequence, (tenant, size, spans, passed_s) in enumerate(arrivals):
        now += passed_s
        out += batcher.add(record(sequence, tenant, size=size, spans=spans), now)
        assert batcher.size < 3 * MAX_BYTES
        out += batcher.due(now)
        due = batcher.next_due()
        assert due is None or due > now
    out += batcher.flush()
    assert len(batcher) == batcher.size == 0

    for batch in out:
        assert batch == batch_of(batch.records)
        if len(batch.records) > 1:
            assert batch.spans <= MAX_SPANS
            assert batch.size <= MAX_BYTES
    for tenant in ("", "a", "b"):
        sent = [r.sequence for b in out if b.tenant == tenant for r in b.records]
        assert sent == [n for n, arrival in enumerate(arrivals) if arrival[0] == tenant]
        assert all(a < b for a, b in pairwise(sent))
