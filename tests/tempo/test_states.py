"""The table of a child's life."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tempo.states import Event, State, next_state


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_has_an_answer(state, event):
    assert next_state(state, event) in State


@given(st.lists(st.sampled_from(Event)))
def test_stopping_ends_only_with_the_end_of_the_child(events):
    state = State.STOPPING
    for event in events:
        state = next_state(state, event)
        if event in {Event.EXIT, Event.EXIT_LOOPING}:
            break
        assert state is State.STOPPING


@given(st.lists(st.sampled_from(Event)))
def test_only_a_good_probe_makes_ready(events):
    state = State.STOPPED
    for event in events:
        before, state = state, next_state(state, event)
        if state is State.READY and before is not State.READY:
            assert event is Event.PROBE_GOOD


@given(st.lists(st.sampled_from(Event)))
def test_a_stop_always_leads_out(events):
    state = State.STOPPED
    for event in events:
        state = next_state(state, event)
    after = next_state(state, Event.STOP)
    assert after in {State.STOPPED, State.STOPPING}
    assert next_state(after, Event.EXIT) is State.STOPPED


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([Event.START], State.STARTING),
        ([Event.START, Event.PROBE_BAD, Event.PROBE_GOOD], State.READY),
        ([Event.START, Event.PROBE_GOOD, Event.PROBE_BAD], State.STARTING),
        ([Event.START, Event.PROBE_GOOD, Event.PROBE_BAD, Event.PROBE_GOOD], State.READY),
        ([Event.START, Event.PROBE_GOOD, Event.EXIT], State.BACKOFF),
        ([Event.START, Event.EXIT, Event.PROBE_GOOD], State.BACKOFF),
        ([Event.START, Event.EXIT, Event.RETRY], State.STARTING),
        ([Event.START, Event.EXIT_LOOPING], State.FAILED),
        ([Event.START, Event.EXIT_LOOPING, Event.RETRY, Event.PROBE_GOOD], State.READY),
        ([Event.START, Event.EXIT, Event.STOP], State.STOPPED),
    ],
)
def test_a_life_goes_this_way(events, state):
    now = State.STOPPED
    for event in events:
        now = next_state(now, event)
    assert now is state
