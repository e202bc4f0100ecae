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

_RUNNING = {
    _E.PROBE_GOOD: _S.READY,
    _E.PROBE_BAD: _S.STARTING,
    _E.EXIT: _S.BACKOFF,
    _E.EXIT_LOOPING: _S.FAILED,
    _E.STOP: _S.STOPPING,
}
_WAITING = {_E.START: _S.STARTING, _E.RETRY: _S.STARTING, _E.STOP: _S.STOPPED}

MOVES: dict[State, dict[Event, State]] = {
    _S.STOPPED: {_E.START: _S.STARTING},
    _S.STARTING: _RUNNING,
    _S.READY: _RUNNING,
    _S.BACKOFF: _WAITING,
    _S.FAILED: _WAITING,
    _S.STOPPING: {_E.EXIT: _S.STOPPED, _E.EXIT_LOOPING: _S.STOPPED},
}
"""What is absent changes nothing: a probe, say, whose answer comes after the child's end."""


def next_state(state: State, event: Event) -> State:
    return MOVES[state].get(event, state)
