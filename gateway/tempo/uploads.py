"""Has a Tempo 3 brought all that it holds to its storage? Seen from outside.

It finishes a block when the block is old enough, and never for being told to end. Where the disk
may be thrown away it is told to end only when there is nothing left to finish: no traces in memory,
no block of the WAL that holds any, no finished block that is not marked as flushed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from gateway.tempo.clock import CUT_S
from gateway.tempo.flushes import FlushLag
from gateway.tempo.wal import META, Wal

FIRST_S = 2 * CUT_S
"""From the last delivery until it can be seen: the next sweep but one has begun."""
_FLUSHED = "flushed"


class Uploads:
    """For one stop: the time of the last delivery is that of the first question."""

    def __init__(
        self, wal: Wal, lag: FlushLag, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wal = wal
        self._lag = lag
        self._clock = clock
        self._asked_at: float | None = None

    async def done(self, session: aiohttp.ClientSession, base_url: str) -> bool:
        """Raises what a failing request raises."""
        now = self._clock()
        if self._asked_at is None:
            self._asked_at = now
        if now - self._asked_at < FIRST_S:
            return False
        left = await asyncio.to_thread(unfinished, self._wal.folder)
        return not left and not any((await self._lag.live_traces(session, base_url)).values())


def unfinished(folder: Path) -> int:
    """Blocks under the WAL's folder that are not in the storage. An empty one has no ``meta.json``
    yet, one that was finished no longer.
    """
    growing = sum(1 for _ in folder.glob(f"*+*+*/{META}"))
    finished = [meta.parent for meta in folder.glob(f"blocks/*/*/{META}")]
    return growing + sum(not (block / _FLUSHED).exists() for block in finished)
