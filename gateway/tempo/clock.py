"""The clock of a backend's life: how long it has been seen to bring its memory to disk. Pure.

Tempo says OK from memory. A sweep of each second cuts what has waited for a second and writes it
to the WAL, so in quiet times an OK is worth something after two seconds. Not so under load: a
Tempo that was given more than its processor could take (30,000 spans/s, one core) had not ended
one sweep in 7 s, and lost all of it when it was killed. So the clock stands still

- while the backend does not answer, since a frozen one flushes nothing either;
- while a tenant has traces in memory and its last flush ended more than ``LAG_S`` ago.

What was answered OK at t is on disk at ``t + HOLD_S`` of this clock. Sweeps of a tenant follow
each other; one that begins ``CUT_S`` after t takes it. At worst t falls into a running sweep, which
ends so soon that the next one does not take it yet (that is ``CUT_S``), and that and the one after
are long: each lets the clock run for ``LAG_S`` and one look before and one after.
"""

from __future__ import annotations

from collections.abc import Mapping

CUT_S = 1.0
"""``trace_idle_period`` and ``trace_live_period`` in the files of ``config/``."""
LOOK_S = 0.5
"""Between two looks at a ready child."""
LAG_S = 1.5
"""A sweep begins each second, so with anything in memory no flush is longer ago than that."""
HOLD_S = CUT_S + 2 * (LAG_S + 2 * LOOK_S)

MOST_STEP_S = 2 * LOOK_S
"""Counted between two answers; what is longer is a freeze of the child's or of ours."""


class LifeClock:
    """Seconds of a life that count. It is the caller who looks at the child and at the time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last_look: float | None = None

    def seen(self, now: float, *, flushing: bool) -> None:
        """The child has answered at ``now``, and was found to keep up or not."""
        if flushing and self._last_look is not None:
            self.seconds += min(now - self._last_look, MOST_STEP_S)
        self._last_look = now

    def unseen(self) -> None:
        """The child has not answered, or is gone."""
        self._last_look = None


class FlushWatch:
    """Which tenants lag: they have traces in memory and no flush for too long."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[str, int]] = {}
        self._noticed: dict[str, float] = {}

    def saw(self, pages: Mapping[str, Mapping[str, int]], now: float) -> None:
        """``pages``: by tenant and block, a number that grows with each flush. Blocks come with a
        flush and go at any time.
        """
        for tenant, blocks in pages.items():
            before = self._pages.get(tenant, {})
            if any(count > before.get(block, -1) for block, count in blocks.items()):
                self._noticed[tenant] = now
        self._pages = {tenant: dict(blocks) for tenant, blocks in pages.items()}
        self._noticed = {t: at for t, at in self._noticed.items() if t in pages}

    def overdue(self, now: float) -> frozenset[str]:
        """Tenants whose last flush is too long ago, should they have anything to flush."""
        return frozenset(t for t, noticed in self._noticed.items() if now - noticed > LAG_S)

    def lagging(self, live_traces: Mapping[str, float], now: float) -> frozenset[str]:
        """``live_traces``: by tenant, how many traces are in the backend's memory."""
        fresh = self._noticed.keys() - self.overdue(now)
        return frozenset(t for t, count in live_traces.items() if count and t not in fresh)
