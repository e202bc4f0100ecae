"""Start and stop: how either fails, phases of a stop, signals, and named tasks."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)


EXIT_FORCED = 130


class StartError(Exception):
    """The gateway cannot start; the text says why and what to do."""


class RunError(Exception):
    """The gateway has stopped since it could not go on."""


class Phases(NamedTuple):
    """How the drain timeout is shared out."""

    answer_s: float
    """Requests in hand are answered."""
    drain_s: float
    """The queue is delivered."""
    backend_s: float
    """The backend brings to its disk what it has; it also gets what the first two leave."""
    handover_s: float
    """Another gateway is given what is left. That begins when the queue's time is over, beside the
    backend's end, and lasts until the time of all phases is."""

    @property
    def backend_ends_s(self) -> float:
        """When the backend has to have ended, since the begin of the stop."""
        return self.answer_s + self.drain_s + self.backend_s

    @classmethod
    def of(cls, timeout_s: float, *, hands_over: bool) -> Phases:
        drain, handover = (0.3, 0.2) if hands_over else (0.5, 0.0)
        return cls(0.15 * timeout_s, drain * timeout_s, 0.3 * timeout_s, handover * timeout_s)


def stop_on_signals(stop: asyncio.Event) -> None:
    """The first signal asks for a stop, the second one ends the process at once."""
    asked = False

    def on_signal(number: int) -> None:
        nonlocal asked
        if asked:
            logger.warning("second signal, gone at once", extra=facts(signal=number))
            os._exit(EXIT_FORCED)
        asked = True
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


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
