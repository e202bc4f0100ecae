"""Whether the event loop may write to the disk itself, by how its last writes went."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

SLOW_S = 0.01
"""A write to the page cache takes 5 to 50 us, and 1 MiB with its checksum 1 to 2 ms."""

REST_FACTOR = 100
"""So that waiting for the disk takes no more than a hundredth of the event loop's time, whatever
the disk does."""

_WHOSE = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # macOS knows only the process


def times_waited() -> int:
    """How often the thread has given up its processor to wait for something. (0.8 us.)"""
    return resource.getrusage(_WHOSE).ru_nvcsw


class Stalls:
    """Has the loop rest after a write that waited long, a hundred times as long as it waited.

    The kernel lets a writer wait where too much is dirty, where a journal is full, or where a
    network file system hangs. How long is known only afterwards; so a single wait cannot be
    prevented, but the next one can be put off. A write that took long without waiting was kept
    from its processor, which says nothing of the disk and is common where processors are shared.
    """

    __slots__ = ("_began", "_clock", "_rest_until", "_waited", "_waits")

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        waits: Callable[[], int] = times_waited,
    ) -> None:
        self._clock = clock
        self._waits = waits
        self._began = self._rest_until = 0.0
        self._waited = 0

    @property
    def resting(self) -> bool:
        """True while somebody else should write."""
        return self._clock() < self._rest_until

    def write_begins(self) -> None:
        self._began, self._waited = self._clock(), self._waits()

    def write_ended(self) -> None:
        ended = self._clock()
        took_s = ended - self._began
        if took_s >= SLOW_S and self._waits() > self._waited:
            self._rest_until = ended + REST_FACTOR * took_s
