"""One ledger of bytes for everything that requests and the queue hold in memory."""

from __future__ import annotations


class MemoryBudget:
    """Counts bytes against a limit; whoever cannot reserve refuses or leaves data on disk.

    A reservation is a promise to release the same number later. Runs on the event loop only.
    """

    __slots__ = ("limit", "peak", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.peak = 0

    def try_reserve(self, size: int, *, or_first: bool = False) -> bool:
        """Reserve ``size`` bytes if they fit; with ``or_first`` also if nothing else is reserved,
        for work that must go on whatever its size.
        """
        used = self.used + size
        if used > self.limit and not (or_first and self.used == 0):
            return False
        self.used = used
        if used > self.peak:  # noqa: PLR1730 - max() takes twice as long as all the rest
            self.peak = used
        return True

    def release(self, size: int) -> None:
        self.used -= size
        if self.used < 0:
            raise AssertionError(f"released {-self.used} bytes more than were reserved")

    def __repr__(self) -> str:
        return f"<MemoryBudget {self.used / 2**20:.1f}/{self.limit / 2**20:.1f} MiB>"
