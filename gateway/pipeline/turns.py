"""Many deliveries side by side, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Shared turns run together; a turn alone waits for them and keeps new ones out.

    A payload that is suspected of killing the backend is delivered alone, so that the blame for
    a broken connection falls on it and on nothing that was on its way at the same time.
    """

    def __init__(self) -> None:
        self._sharing = 0
        self._alone = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._alone:
            self._sharing += 1
            self._quiet.clear()
        try:
            yield
        finally:
            self._sharing -= 1
            if not self._sharing:
                self._quiet.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._alone:
            await self._quiet.wait()
            yield
