"""Tasks that are named, referenced and awaited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)


class Tasks:
    """The background tasks of one part. A task that fails is logged; ``stop`` ends them all.

    ``failed`` is told of a failure that the part cannot work on without.
    """

    def __init__(self, owner: str, failed: Callable[[BaseException], None] | None = None) -> None:
        self._owner = owner
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run ``work`` in the background until it ends or ``stop`` is called."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self._owner}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("task failed", exc_info=error, extra=facts(task=task.get_name()))
            if self._failed is not None:
                self._failed(error)

    async def stop(self) -> None:
        """Cancel what still runs and wait until nothing does. Safe twice."""
        while self._tasks:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
