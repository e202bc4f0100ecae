from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline.retry import LEAST_HINT_S, MOST_HINT_S, Backoff, Rate, hint_s

CHANCE = st.floats(0, 1, exclude_max=True)
SECONDS = st.floats(0, 1e6)


@given(st.integers(1, 10**6), CHANCE)
def test_a_delay_is_between_nothing_and_the_ceiling_of_its_attempt(attempt, chance):
    backoff = Backoff(first_s=0.1, most_s=5.0)
    ceiling = min(5.0, 0.1 * 2.0 ** min(attempt - 1, 100))
    assert 0 <= backoff.delay_s(attempt, chance) <= ceiling


def test_the_ceiling_doubles_up_to_the_most():
    ceilings = [Backoff(0.1, 5.0).delay_s(attempt, 1.0) for attempt in range(1, 9)]
    assert ceilings == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_jitter_is_full():
    assert Backoff(0.1, 5.0).delay_s(8, 0.0) == 0.0
    assert Backoff(0.1, 5.0).delay_s(8, 0.5) == pytest.approx(2.5)


@given(st.integers(1, 1000), CHANCE, SECONDS)
def test_what_the_backend_asks_for_is_the_least_and_jitter_at_most_the_ceiling_more(
    attempt, chance, asked_s
):
    delay_s = Backoff(0.1, 5.0).delay_s(attempt, chance, asked_s)
    assert asked_s <= delay_s <= asked_s + 5.0


def test_two_that_were_asked_to_wait_alike_do_not_come_back_together():
    backoff = Backoff(0.1, 5.0)
    assert backoff.delay_s(1, 0.9, 4.0) - backoff.delay_s(1, 0.1, 4.0) >= 1.0


@pytest.mark.parametrize("asked_s", [0.0, -0.0, -5.0, 1e-9])
def test_a_backend_that_asks_for_no_delay_at_all_is_not_asked_again_without_one(asked_s):
    delays = [Backoff(0.1, 5.0).delay_s(attempt, 0.5, asked_s) for attempt in range(1, 8)]
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5])


@given(SECONDS.map(lambda v: v * 1e6), SECONDS.map(lambda v: v * 1e6), CHANCE)
def test_a_hint_stays_in_its_bounds(queued_bytes, bytes_per_s, chance):
    assert LEAST_HINT_S <= hint_s(queued_bytes, bytes_per_s, chance) <= MOST_HINT_S


@given(SECONDS, SECONDS, st.floats(0, 1e9), CHANCE)
def test_a_hint_grows_with_the_queue_and_with_the_slowness_of_delivery(less, more, rate, chance):
    less, more = sorted((less, more))
    assert hint_s(less, rate, chance) <= hint_s(more, rate, chance)
    assert hint_s(rate, more, chance) <= hint_s(rate, less, chance) or more == less == 0


def test_hints_are_spread_over_as_long_again():
    assert hint_s(100e6, 1e6, 0.0) == pytest.approx(10.0)
    assert hint_s(100e6, 1e6, 0.999) == pytest.approx(20.0, rel=0.01)


def test_a_queue_that_does_not_move_gives_the_longest_hint():
    assert hint_s(1, 0.0, 0.0) == MOST_HINT_S / 2
    assert hint_s(1e12, 1e-3, 0.999) == pytest.approx(MOST_HINT_S, rel=0.01)


def test_a_steady_rate_is_measured():
    rate = Rate(now=0.0)
    for tick in range(1, 1201):
        rate.add(50, now=tick / 20)
    assert rate.per_s(60.0) == pytest.approx(1000, rel=0.05)


def test_the_rate_halves_with_each_half_life():
    rate = Rate(now=0.0)
    rate.add(1000, now=0.0)
    at_first = rate.per_s(0.0)
    assert rate.per_s(Rate.HALF_LIFE_S) == pytest.approx(at_first / 2)
    assert rate.per_s(1e9) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(-1e9, 1e9)), max_size=20))
def test_a_clock_that_jumps_leaves_the_rate_a_finite_number_above_zero(events):
    rate = Rate(now=0.0)
    for amount, now in events:
        rate.add(amount, now)
        assert 0 <= rate.per_s(now) < math.inf
