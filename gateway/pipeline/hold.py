"""What the backend has said OK to, but may not have on disk yet. Pure: clocks are given.

Tempo answers OK from memory; killed within the next seconds it loses what it answered for. So a
record stays in the spool until the backend has been seen alive for the hold time after its OK,
and is delivered again when the backend's life ended before that. docs/durability.md states the
rule and how it was proven.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from gateway.pipeline.delivery import Tally


class Held(NamedTuple):
    """One delivery that waits to be certain."""

    sequences: Sequence[int]
    tally: Tally
    """What became of its spans; counted when it is certain, so that nothing counts twice."""
    generation: int
    """Life of the backend that said OK."""
    due: float
    """On the backend's own clock of seconds alive."""


class Hold:
    """Deliveries in the order of their OK."""

    def __init__(self) -> None:
        self._waiting: deque[Held] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, held: Held) -> None:
        self._waiting.append(held)

    def certain(self, generation: int, alive_s: float) -> list[Held]:
        """Those of this life whose time has come."""
        ready = []
        while (
            self._waiting
            and self._waiting[0].generation == generation
            and self._waiting[0].due <= alive_s
        ):
            ready.append(self._waiting.popleft())
        return ready

    def lost(self, generation: int) -> list[Held]:
        """Those of earlier lives: to be delivered again."""
        gone = [held for held in self._waiting if held.generation != generation]
        if gone:
            self._waiting = deque(h for h in self._waiting if h.generation == generation)
        return gone

    def all(self) -> list[Held]:
        """Everything; for the end, when the backend has stopped in good order."""
        everything = list(self._waiting)
        self._waiting.clear()
        return everything
