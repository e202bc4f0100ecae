"""When a process that has died is started again. Pure."""

from __future__ import annotations

from typing import NamedTuple

FIRST_BACKOFF_S, MOST_BACKOFF_S = 0.2, 30.0
STABLE_S = 30.0
"""A life of this length ends a series of early ends."""
LOOPING = 4
"""Early ends in a row that are called a crash loop."""


class Backoff(NamedTuple):
    """Delays before the next life, with full jitter."""

    first_s: float = FIRST_BACKOFF_S
    most_s: float = MOST_BACKOFF_S

    def delay_s(self, early_ends: int, chance: float) -> float:
        """``chance`` is from 0 to 1. In a crash loop the delay is the longest, undiminished."""
        if early_ends >= LOOPING:
            return self.most_s
        return min(self.most_s, self.first_s * 2.0**early_ends) * chance
