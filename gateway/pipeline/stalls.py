"""Whether the event loop may write to the disk itself. Pure: time is given."""

from __future__ import annotations

SLOW_S = 0.01
"""A write to the page cache takes 5 to 50 us, and 1 MiB with its checksum 1 to 2 ms, so what takes
longer has waited for the disk. (Or for a processor; then resting costs little.)"""

REST_FACTOR = 100
"""So that waiting for the disk takes no more than a hundredth of the event loop's time, whatever
the disk does."""


class Stalls:
    """Has the loop rest after a write that took long, a hundred times as long as that took.

    The kernel lets a writer wait where too much is dirty, where a journal is full, or where a
    network file system hangs. How long is known only afterwards; so a single wait cannot be
    prevented, but the next one can be put off.
    """

    __slots__ = ("_rest_until",)

    def __init__(self) -> None:
        self._rest_until = 0.0

    def wrote(self, began: float, ended: float) -> None:
        """The loop has written from then to then; seconds of one clock."""
        if ended - began >= SLOW_S:
            self._rest_until = ended + REST_FACTOR * (ended - began)

    def resting(self, now: float) -> bool:
        """True while somebody else should write."""
        return now < self._rest_until
