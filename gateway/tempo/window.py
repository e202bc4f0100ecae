"""How much a Tempo may have in memory at once. Pure."""

from __future__ import annotations

from collections import deque


class Window:
    """Counts what was said OK to and may not be on disk yet, against a limit.

    Tempo takes pushes faster than it writes them, and nothing in 2.x bounds what piles up in
    between: given all that it took, 35,000 spans/s on one core, it had grown to 1.1 GB in seven
    seconds. Within 16 MiB it stayed below 270 MiB with traces of eight spans (2.10.8, 3.0.3), and
    reached 460 with traces of one.
    """

    def __init__(self, limit: int, hold_s: float) -> None:
        """``limit`` in bytes; ``hold_s`` is how long an OK takes to reach the disk."""
        self.limit = limit
        self.hold_s = hold_s
        self._generation = 0
        self._delivered: deque[tuple[float, int]] = deque()
        self.used = 0

    def has_room(self, size: int, *, generation: int, alive_s: float) -> bool:
        """Whether ``size`` bytes more may be given now; always true of an empty memory."""
        if generation != self._generation:  # a new life begins with an empty one
            self._generation, self.used = generation, 0
            self._delivered.clear()
        while self._delivered and self._delivered[0][0] + self.hold_s <= alive_s:
            self.used -= self._delivered.popleft()[1]
        return not self.used or self.used + size <= self.limit

    def take(self, size: int) -> int:
        """Room for a delivery that begins; returns the life that it is of, for ``settle``."""
        self.used += size
        return self._generation

    def settle(self, size: int, generation: int, *, alive_s: float, delivered: bool) -> None:
        """The delivery has ended; what was delivered keeps its room until it is on disk."""
        if generation != self._generation:
            return
        if delivered:
            self._delivered.append((alive_s, size))
        else:
            self.used -= size
