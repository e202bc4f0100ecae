"""The life clock: what was said OK to at t is on disk at t + HOLD_S of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tempo.clock import CUT_S, HOLD_S, LAG_S, LOOK_S, FlushWatch, LifeClock

SWEEP_S = 1.0


def run_clock(looks):
    clock = LifeClock()
    for now, answered, flushing in looks:
        if answered:
            clock.seen(now, flushing=flushing)
        else:
            clock.unseen()
    return clock.seconds


def test_runs_while_the_child_answers_and_flushes():
    assert run_clock([(i * LOOK_S, True, True) for i in range(11)]) == 10 * LOOK_S


def test_stands_still_while_the_child_is_silent():
    looks = [(0, True, True), (0.5, True, True), (1.0, False, False), (9, True, True)]
    assert run_clock(looks) == 0.5


def test_stands_still_while_the_child_lags():
    looks = [(0, True, True), (0.5, True, False), (1.0, True, False), (1.5, True, True)]
    assert run_clock(looks) == 0.5


def test_a_freeze_counts_as_little():
    assert run_clock([(0, True, True), (60, True, True)]) == 2 * LOOK_S


def test_a_tenant_without_a_flush_for_too_long_is_overdue():
    watch = FlushWatch()
    watch.saw({"a": {"1": 1}, "b": {"2": 1}}, 0.0)
    watch.saw({"a": {"1": 2}, "b": {"2": 1}}, LAG_S)
    assert watch.overdue(LAG_S + 0.1) == {"b"}
    assert watch.lagging({"a": 5, "b": 0}, LAG_S + 0.1) == frozenset()
    assert watch.lagging({"a": 5, "b": 1}, LAG_S + 0.1) == {"b"}


@pytest.mark.parametrize(
    ("blocks", "flushed"),
    [
        ({"1": 3, "2": 5}, False),
        ({"1": 3, "2": 6}, True),
        ({"1": 3, "2": 5, "3": 0}, True),
        ({"2": 5}, False),
        ({"1": 1, "2": 5}, False),
        ({}, False),
    ],
    ids=["same", "one more file", "new block", "block gone", "block being removed", "none left"],
)
def test_a_flush_is_told_from_a_block_that_goes(blocks, flushed):
    watch = FlushWatch()
    watch.saw({"a": {"1": 3, "2": 5}}, 0.0)
    watch.saw({"a": blocks}, 10.0)
    assert watch.overdue(10.0) == (frozenset() if flushed else {"a"})


def test_a_tenant_without_any_flush_lags_as_soon_as_it_has_traces():
    assert FlushWatch().lagging({"new": 1}, 0.0) == {"new"}


def test_a_tenant_that_is_gone_is_forgotten():
    watch = FlushWatch()
    watch.saw({"a": {"1": 1}}, 0.0)
    watch.saw({}, 1.0)
    assert watch.overdue(100.0) == frozenset()


class Sweeps:
    """A Tempo as its source describes it: one sweep after the other, begun by a ticker each
    second, each of a given length; it takes what is older than CUT_S when it begins.
    """

    def __init__(self, lengths: list[float], t: float) -> None:
        """One thing is said OK to at ``t``, and others all the time."""
        self.ends: list[float] = []
        begins, self.durable = 0.0, float("inf")
        for length in lengths:
            self.ends.append(end := begins + length)
            if begins >= t + CUT_S:
                self.durable = min(self.durable, end)
            begins = max(end, begins + SWEEP_S)

    def last_flush(self, now: float) -> int:
        return sum(end <= now for end in self.ends)


@given(
    st.lists(st.floats(0.01, 12.0), min_size=4, max_size=4),
    st.floats(0.0, 5.0),
    st.floats(0.0, LOOK_S),
)
def test_whatever_the_sweeps_take_the_hold_time_is_enough(lengths, t, first_look):
    sweeps = Sweeps([*lengths, *[0.01] * 40], t)
    clock, watch = LifeClock(), FlushWatch()
    now, said_at = first_look, None
    while now < t or clock.seconds < (said_at or 0.0) + HOLD_S:
        watch.saw({"a": {"1": sweeps.last_flush(now)}}, now)
        clock.seen(now, flushing=not watch.lagging({"a": 1}, now))
        if said_at is None and now >= t - LOOK_S:
            said_at = clock.seconds  # what the pipeline reads, at worst a look ago
        now += LOOK_S
    assert sweeps.durable <= now
