"""The parent of several workers: it takes no spans, and knows nothing of them.

Start: ports and data directory -> workers -> backend, as in a gateway of one process.
Stop: the workers take no more and deliver what they have -> the backend -> the workers release
what has become certain, and end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from gateway.lifecycle import Phases, RunError, StartError, Tasks, stop_on_signals
from gateway.pipeline.data_directory import DataDirectory
from gateway.receivers.address import PortTaken
from gateway.roles import ROLES
from gateway.settings import Settings
from gateway.telemetry.logs import facts
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readout import ReadOut
from gateway.workers.crew import Crew
from gateway.workers.merge import Plain, merge_families, merge_status, to_plain
from gateway.workers.ports import ReservedPorts
from gateway.workers.process import WorkerProcess

if TYPE_CHECKING:  # loaded once the workers are on their way
    from gateway.workers.shared import SharedBackend

logger = logging.getLogger(__name__)

LAST_S = 1.0
"""Least time for the workers to end once the backend has."""


class Parent:
    """Build it, ``await run()``."""

    def __init__(self, settings: Settings, command: str) -> None:
        """``command`` is that of the workers' role."""
        self._settings = settings
        self._command = command
        self._role = ROLES[command]
        self._started_at = time.time()
        self._metrics = Metrics()
        self._read_out = ReadOut(self._metrics)
        self._stop_asked = asyncio.Event()
        self._fault: BaseException | None = None
        self._tasks = Tasks("parent", self._failed)
        self._ports = ReservedPorts()
        self._data = DataDirectory(settings.data_dir)
        self._crew = Crew(
            settings.workers,
            self._arguments,
            self._introduce,
            died=self._worker_died,
            failed=self._failed,
        )
        self._child: asyncio.Future[SharedBackend | None]
        self._flushed: asyncio.Future[bool] | None = None
        """The answer to workers that have drained, once a stop has begun."""

    def _failed(self, fault: BaseException) -> None:
        self._fault = fault
        self._stop_asked.set()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises StartError; what had been started is undone.

        Raises RunError after a fault of its own, having stopped in order.
        """
        stop_on_signals(self._stop_asked)
        async with AsyncExitStack() as undo:
            await self._start(undo)
            await self._stop_asked.wait()
            await self._stop()
        if isinstance(self._fault, StartError):
            raise self._fault
        if self._fault is not None:
            raise RunError(f"stopped by a fault of its own: {self._fault!r}") from self._fault

    # -- start -----------------------------------------------------------------------------------

    async def _start(self, undo: AsyncExitStack) -> None:
        """The workers come up by themselves, in the time that the backend's modules need."""
        undo.callback(self._ports.close)
        undo.callback(self._data.unlock)
        try:
            self._address = self._ports.reserve(self._role.address(self._settings))
        except PortTaken as error:
            raise StartError(str(error)) from error
        if self._settings.spool_bytes:
            self._data.lock()
        self._child = asyncio.get_running_loop().create_future()
        undo.push_async_callback(self._tasks.stop)
        undo.push_async_callback(self._crew.stop, 0.0)
        self._crew.start()
        await asyncio.sleep(0)  # so that it has begun
        from gateway.workers.shared import share_backend  # noqa: PLC0415 - see above

        shared = share_backend(self._role.make_backend, self._settings, self._metrics)
        if shared is not None:
            undo.push_async_callback(shared.stop, 0.0)
        self._child.set_result(shared)
        self._tasks.spawn(self._come_up(shared), "come up")

    def _arguments(self, number: int) -> list[str]:
        http_port = self._address.http_port
        return [
            "worker", "--role", self._command,
            "--number", str(number), "--count", str(self._crew.count),
            *(() if http_port is None else ("--http-port", str(http_port))),
            "--grpc-port", str(self._address.grpc_port),
        ]  # fmt: skip

    async def _come_up(self, shared: SharedBackend | None) -> None:
        """The backend begins when spans can be taken."""
        if not await self._crew.wait_until_listening():
            lost = self._crew.lost_at_start
            if lost is not None:
                self._failed(StartError(f"worker {lost} could not start; it has said why"))
            return
        self._address.say_listening(workers=self._crew.count)
        if shared is not None:
            shared.start(self._crew.tell)

    # -- what workers may ask --------------------------------------------------------------------

    def _introduce(self, worker: WorkerProcess) -> None:
        async def terms(_: None) -> Any:
            shared = await self._child
            return shared.terms(self._crew.count) if shared is not None else (None, None)

        async def delivered(_: None) -> None:
            if (shared := await self._child) is not None:
                worker.link.tell("backend", shared.delivered())

        async def drained(_: None) -> bool:
            worker.has_drained()
            # One that stops while the others go on has no backend that is flushed for it.
            return await asyncio.shield(self._flushed) if self._flushed is not None else False

        worker.link.answer("terms", terms)
        worker.link.answer("delivered", delivered)
        worker.link.answer("drained", drained)
        worker.link.answer("families", self._families)
        worker.link.answer("status", self._status)

    async def _families(self, _: None) -> list[Plain]:
        # A sum without one of its parts would pass for counters that began again from 0.
        told = await self._crew.ask("families", or_last=True)
        return merge_families([to_plain(await self._read_out.families()), *told.values()])

    async def _status(self, _: None) -> Mapping[str, Any]:
        told = await self._crew.ask("status")
        shared = await self._child
        own: dict[str, Any] = {
            "uptime_s": round(time.time() - self._started_at, 1),
            "workers": {
                "wanted": self._crew.count,
                "restarts": int(self._metrics.worker_restarts.total()),
                "pids": [worker.pid for worker in self._crew.living.values()],
            },
        }
        if shared is not None:
            own["backend"] = shared.status()
        return merge_status([own, *(told[number] for number in sorted(told))])

    def _worker_died(self) -> None:
        self._metrics.worker_restarts.series().value += 1

    # -- stop ------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        """In the same phases as a gateway of one process."""
        began, timeout_s = time.monotonic(), self._settings.drain_timeout_s
        from gateway.tempo.gateways import handover_exporter  # noqa: PLC0415 - as above

        hands_over = handover_exporter(self._settings) is not None  # each worker for itself
        phases = Phases.of(timeout_s, hands_over=hands_over)
        logger.info("stopping", extra=facts(workers=self._crew.count, **phases._asdict()))
        self._flushed = asyncio.get_running_loop().create_future()
        in_time = await self._crew.drain(phases.answer_s + phases.drain_s)
        shared = await self._child
        # What the workers have not needed of their time is the backend's.
        backend_s = began + phases.backend_ends_s - time.monotonic()
        flushed = await shared.stop(backend_s) if shared is not None else True
        self._flushed.set_result(flushed)
        await self._crew.stop(max(LAST_S, timeout_s - (time.monotonic() - began)))
        left = self._crew.left
        say = logger.warning if left else logger.info
        told = facts(
            workers_in_time=in_time,
            handed_over=self._crew.handed_over,
            spans_left_in_spool=left,
        )
        say("stopped", extra=told)
