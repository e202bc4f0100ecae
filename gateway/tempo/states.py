"""The life of a supervised child as a table. Pure."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where the child is; the value is what people and programs are shown."""

    STOPPED = "stopped"
    STARTING = "starting"
    """It runs and does not answer yet, or no longer."""
    READY = "ready"
    BACKOFF = "backoff"
    """It has ended and is started again after a delay."""
    FAILED = "failed"
    """It ends again and again soon after its start; still tried, at the longest delay."""
    STOPPING = "stopping"


class Event(Enum):
    """What can happen to it."""

    START = "start"
    PROBE_GOOD = "probe good"
    PROBE_BAD = "probe bad"
    EXIT = "exit"
    EXIT_LOOPING = "exit, once more soon after its start"
    RETRY = "retry"
    STOP = "stop"


_S, _E = State, Event

TRANSITIONS: dict[tuple[State, Event], State] = {
    (_S.STOPPED, _E.START): _S.STARTING,
    (_S.STOPPED, _E.STOP): _S.STOPPED,
    (_S.STARTING, _E.PROBE_GOOD): _S.READY,
    (_S.STARTING, _E.PROBE_BAD): _S.STARTING,
    (_S.STARTING, _E.EXIT): _S.BACKOFF,
    (_S.STARTING, _E.EXIT_LOOPING): _S.FAILED,
    (_S.STARTING, _E.STOP): _S.STOPPING,
    (_S.READY, _E.PROBE_GOOD): _S.READY,
    (_S.READY, _E.PROBE_BAD): _S.STARTING,
    (_S.READY, _E.EXIT): _S.BACKOFF,
    (_S.READY, _E.EXIT_LOOPING): _S.FAILED,
    (_S.READY, _E.STOP): _S.STOPPING,
    (_S.BACKOFF, _E.RETRY): _S.STARTING,
    (_S.BACKOFF, _E.EXIT): _S.BACKOFF,
    (_S.BACKOFF, _E.EXIT_LOOPING): _S.FAILED,
    (_S.BACKOFF, _E.STOP): _S.STOPPED,
    (_S.FAILED, _E.RETRY): _S.STARTING,
    (_S.FAILED, _E.EXIT): _S.FAILED,
    (_S.FAILED, _E.EXIT_LOOPING): _S.FAILED,
    (_S.FAILED, _E.STOP): _S.STOPPED,
    (_S.STOPPING, _E.EXIT): _S.STOPPED,
    (_S.STOPPING, _E.EXIT_LOOPING): _S.STOPPED,
    (_S.STOPPING, _E.STOP): _S.STOPPING,
}
"""What is absent cannot happen: nobody probes what does not run."""


def next_state(state: State, event: Event) -> State:
    """Raises AssertionError for what cannot happen, which is a fault of the supervisor's."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise AssertionError(f"{event.value} while {state.value}") from None
