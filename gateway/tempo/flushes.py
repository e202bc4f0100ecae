"""Does a Tempo bring its memory to disk as fast as it should?"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping

import aiohttp

from gateway.tempo.clock import HOLD_S, FlushWatch
from gateway.tempo.wal import Wal


class FlushLag:
    """Looks at the files of the WAL and, where they leave a doubt, at Tempo's metrics."""

    def __init__(self, wal: Wal, gauge: str, clock: Callable[[], float] = time.monotonic) -> None:
        """``gauge`` is the metric that tells how many traces of a tenant are in memory. Tempo sets
        it when a sweep begins, so it is zero only after a sweep that has left nothing.
        """
        self._wal = wal
        self._clock = clock
        self._gauge = re.compile(rf'^{gauge}{{tenant="((?:[^"\\]|\\.)*)"}} (\S+)$', re.MULTILINE)
        self._watch = FlushWatch()
        self._busy_until = 0.0

    def delivered(self) -> None:
        """Something has just been given to Tempo. Without that there is nothing to look for."""
        self._busy_until = self._clock() + HOLD_S

    async def keeps_up(self, session: aiohttp.ClientSession, base_url: str) -> bool:
        """False while anything lags. Raises what a failing request raises."""
        pages = await asyncio.to_thread(self._look)
        now = self._clock()
        self._watch.saw(pages, now)
        if now > self._busy_until or not self._watch.overdue(now):
            return True
        lagging = self._watch.lagging(await self.live_traces(session, base_url), now)
        if lagging:
            self._busy_until = now + HOLD_S
        return not lagging

    def _look(self) -> dict[str, dict[str, int]]:
        self._wal.keep_copies()
        return self._wal.pages()

    async def live_traces(
        self, session: aiohttp.ClientSession, base_url: str
    ) -> Mapping[str, float]:
        """By tenant. Raises what a failing request raises."""
        async with session.get(f"{base_url}/metrics") as answer:
            text = (await answer.read()).decode(errors="replace")
        return {tenant: float(count) for tenant, count in self._gauge.findall(text)}
