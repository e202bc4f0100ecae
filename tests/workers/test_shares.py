"""What each of several workers gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import MIB, Settings
from gateway.workers.shares import orphans, share_of, spool_name

NAMES = ["dead-letters", "spool", "spool-1", "spool-2", "spool-3", "spool-10", "spool-x", "tempo"]


def test_memory_and_spool_are_divided_and_nothing_else_changes():
    whole = Settings(spool_bytes=512 * MIB, port=3200)
    share = share_of(whole, 4, memory_bytes=256 * MIB)
    assert (share.memory_bytes, share.spool_bytes) == (64 * MIB, 128 * MIB)
    assert share_of(whole, 1, memory_bytes=5) == Settings(
        spool_bytes=whole.spool_bytes, port=3200, memory_bytes=5
    )


def test_the_first_worker_has_the_spool_of_a_gateway_of_one_process():
    assert [spool_name(number) for number in range(3)] == ["spool", "spool-1", "spool-2"]


@pytest.mark.parametrize(
    ("number", "count", "found"),
    [
        (0, 1, ["spool-1", "spool-2", "spool-3", "spool-10"]),
        (0, 2, ["spool-2", "spool-10"]),
        (1, 2, ["spool-3"]),
        (0, 11, []),
    ],
)
def test_spools_of_workers_that_are_no_more_are_shared_out(number, count, found):
    assert orphans(NAMES, number, count) == found


@given(st.integers(1, 9), st.sets(st.integers(0, 20)))
def test_each_spool_has_exactly_one_process(count, numbers):
    names = [spool_name(number) for number in numbers]
    owned = [spool_name(number) for number in range(count)]
    for number in range(count):
        owned += orphans(names, number, count)
    assert len(owned) == len(set(owned))
    assert set(names) <= set(owned)
