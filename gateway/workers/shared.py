"""The parent's backend, as it is shared by the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from gateway.lifecycle import StartError, Tasks
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from gateway.tempo.backends import Backend
from gateway.tempo.children import ChildBackend
from gateway.tempo.config import ConfigError
from gateway.tempo.version import BinaryError
from gateway.tempo.voice import BackendVoice
from gateway.workers.backend import facts_of, terms_of

TELL_S = 0.25
"""Between two reports to the workers. The backend is looked at twice a second."""

Tell = Callable[[str, Any], None]


class SharedBackend:
    """A child that all workers deliver to; its life is reported to them."""

    def __init__(self, backend: ChildBackend, metrics: Metrics, *, stop_s: float) -> None:
        """``stop_s`` is the longest time that the end of the gateway takes."""
        self._backend = backend
        self._stop_s = stop_s
        self._voice = BackendVoice(backend, metrics)
        self._tasks = Tasks("shared backend")

    def terms(self, count: int) -> tuple[Any, Any]:
        """For each of ``count`` workers: what holds, and how it is now."""
        return terms_of(self._backend, count, self._stop_s), facts_of(self._backend)

    def start(self, tell: Tell) -> None:
        """``tell`` reaches all workers."""

        def report() -> None:
            tell("backend", facts_of(self._backend))

        def changed() -> None:
            self._voice.changed()
            report()

        async def report_on() -> None:
            while True:
                report()
                await asyncio.sleep(TELL_S)

        self._backend.start(changed)
        self._tasks.spawn(report_on(), "report")

    def delivered(self) -> Any:
        """To be called after each OK of the backend's; how it is, as of after that."""
        self._backend.delivered()
        return facts_of(self._backend)

    def status(self) -> Mapping[str, Any]:
        return self._voice.status()

    async def stop(self, timeout_s: float) -> bool:
        """True if what the backend had in memory is on its disk. Safe twice."""
        flushed = await self._backend.stop(timeout_s)
        await self._tasks.stop()
        return flushed


def share_backend(
    make: Callable[[Settings], Backend], settings: Settings, metrics: Metrics
) -> SharedBackend | None:
    """None where each worker has its own way to a backend that is nobody's child. Raises
    StartError, or SettingsError.
    """
    try:
        backend = make(settings)
    except (BinaryError, ConfigError) as error:
        raise StartError(str(error)) from error
    if not isinstance(backend, ChildBackend):
        return None
    return SharedBackend(backend, metrics, stop_s=settings.drain_timeout_s)
