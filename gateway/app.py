"""The composition root: the only file that knows everybody.

Start: ports -> spool -> delivery -> backend, so that a port clash ends the start before any child
exists, and requests are taken from the first second while the backend still starts.
Stop: the other way round, each phase inside the drain timeout; the backend last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web
from prometheus_client.core import Metric

from gateway import __version__
from gateway.access.announce import say_open, say_tls
from gateway.access.budget import MemoryBudget
from gateway.access.container import budget_of
from gateway.access.tls import load_tls
from gateway.access.tokens import Gates
from gateway.lifecycle import Phases, RunError, StartError, Tasks, stop_on_signals
from gateway.pipeline.adoption import Adoptions
from gateway.pipeline.data_directory import DataDirectory
from gateway.pipeline.dead_letters import DeadLetterFolder
from gateway.pipeline.delivery import Delivery
from gateway.pipeline.pipeline import Limits as PipelineLimits
from gateway.pipeline.pipeline import Pipeline
from gateway.pipeline.spool import DiskSpool, MemorySpool
from gateway.query import exposition, proxy, status, streams
from gateway.query.guard import Guard, granted_tenant
from gateway.receivers import http
from gateway.receivers.address import PortTaken
from gateway.receivers.ingest import Ingest
from gateway.receivers.ingest import Limits as RequestLimits
from gateway.receivers.listeners import FrontDoorListeners, LibraryListeners, Listeners
from gateway.receivers.methods import Handler, passed_on
from gateway.roles import Role
from gateway.settings import Settings
from gateway.telemetry.logs import facts
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readout import ReadOut
from gateway.tempo.config import ConfigError
from gateway.tempo.gateways import handover_exporter
from gateway.tempo.version import BinaryError
from gateway.tempo.voice import BackendVoice
from gateway.workers.seat import Seat
from gateway.workers.shares import orphans, spool_name

logger = logging.getLogger(__name__)

DELIVERY_TIMEOUT_S = 15.0
"""Of one attempt. Tempo 3 holds a push back in steps of a second when it is behind."""

DEAD_LETTER_BYTES = 64 * 2**20
QUEUE_SHARE, QUEUE_SHARE_WITHOUT_DISK = 0.25, 0.5
"""Part of the memory budget for what waits for delivery; the rest is for requests in hand. They
are apart so that slow clients cannot keep delivery from going on."""
ADOPTED_SHARE = 4
"""This part of the queue's memory is for what is adopted, as long as there is any."""

EMBEDDED_NOTE = "the embedded backend is for development and tests; set TEMPO_BIN to run Tempo"


class Gateway:
    """One process: build it, ``await run()``."""

    def __init__(self, settings: Settings, role: Role, seat: Seat) -> None:
        """``settings`` are this process's part, where it is one of several workers."""
        self._settings = settings
        self._role = role
        self._seat = seat
        self._metrics = Metrics()
        self._started_at = time.time()
        self._stopping = False
        total = budget_of(settings)
        share = QUEUE_SHARE if settings.spool_bytes else QUEUE_SHARE_WITHOUT_DISK
        self._queue_budget = MemoryBudget(int(total * share))
        self._request_budget = MemoryBudget(total - self._queue_budget.limit)
        self._read_out = ReadOut(self._metrics)
        self._data = DataDirectory(settings.data_dir)
        self._tasks = Tasks("gateway", self._failed)
        self._metrics.workers.series().value = 1
        self._metrics.follow(self._metrics.memory_bytes, lambda: self._request_budget.used)
        self._metrics.follow(self._metrics.memory_bytes, lambda: self._queue_budget.used)
        self._gates = Gates.of(ingest=settings.ingest_tokens, query=settings.query_tokens)
        self._tls = load_tls(settings)
        self._stop_asked = asyncio.Event()
        self._fault: BaseException | None = None
        self._handover = handover_exporter(settings)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises StartError; what had been started is undone.

        Raises RunError after a fault of its own: an orderly stop, since a new process finds in the
        spool what this one can no longer deliver.
        """
        stop_on_signals(self._stop_asked)
        async with AsyncExitStack() as undo:
            await self._start(undo)
            await self._stop_asked.wait()
            await self._stop()
        if self._fault is not None:
            raise RunError(f"stopped by a fault of its own: {self._fault!r}") from self._fault

    def _failed(self, fault: BaseException) -> None:
        self._fault = fault
        self._stop_asked.set()

    # -- start -----------------------------------------------------------------------------------

    async def _start(self, undo: AsyncExitStack) -> None:
        """Bring everything up, downstream last but for the ports. ``undo`` is for a start that
        fails half-way; after a whole start ``_stop`` has left it nothing to do.
        """
        settings = self._settings
        try:
            self._backend = await self._seat.make_backend(lambda: self._role.make_backend(settings))
        except (BinaryError, ConfigError) as error:
            raise StartError(str(error)) from error
        undo.push_async_callback(self._backend.stop, 0.0)
        self._backend_voice = BackendVoice(self._backend, self._metrics)
        self._span_bytes = settings.max_span_bytes or self._backend.max_message_bytes
        self._batch_bytes = min(settings.batch_bytes, self._span_bytes)
        undo.callback(self._data.unlock)
        self._spool = self._open_spool()
        self._adoptions = self._make_adoptions()
        self._pipeline = self._make_pipeline(self._spool, self._queue_budget)
        undo.push_async_callback(self._pipeline.stop)
        self._seat.join(self, self._stop_asked.set)
        self._ingest = self._make_ingest()
        self._streams = streams.Streams(
            self._backend, self._metrics, self._request_budget, gate=self._gates.query
        )
        undo.push_async_callback(self._streams.close)
        make: type[FrontDoorListeners | LibraryListeners] = (
            LibraryListeners if settings.grpc_engine == "grpcio" else FrontDoorListeners
        )
        self._listeners: Listeners = make(
            self._make_web(),
            self._ingest,
            lambda: not self._stopping,
            self._make_methods(),
            self._tls,
        )
        undo.push_async_callback(self._listeners.stop, 0.0)
        try:
            self._address = await self._listeners.start(
                self._seat.address(self._role.address(settings)), shared=self._seat.count > 1
            )
        except PortTaken as error:
            raise StartError(str(error)) from error
        self._pipeline.start()
        self._tasks.spawn(self._adoptions.run(), "adoptions")
        if self._backend.mode == "embedded" and not self._seat.number:
            logger.warning(EMBEDDED_NOTE)
        self._seat.listening(self._address)
        if not self._seat.number:
            say_open(self._gates, settings.host)
            if self._tls is not None:
                say_tls(self._tls, self._address.grpc_port)
        self._backend.start(self._backend_changed)

    def _make_ingest(self) -> Ingest:
        settings = self._settings
        return Ingest(
            intake=self._pipeline,
            budget=self._request_budget,
            metrics=self._metrics,
            gate=self._gates.ingest,
            limits=RequestLimits(
                request_bytes=settings.max_request_bytes,
                envelope_spans=settings.batch_spans,
                envelope_bytes=self._batch_bytes,
                span_bytes=self._span_bytes,
            ),
        )

    def _open_spool(self) -> DiskSpool | MemorySpool:
        settings = self._settings
        if not settings.spool_bytes:
            logger.warning("no disk spool, accepted spans die with this process")
            return MemorySpool()
        if self._seat.count == 1:  # else the parent has done so
            self._data.lock()
        return self._data.open_spool(
            spool_name(self._seat.number),
            max_bytes=settings.spool_bytes,
            fsync=settings.spool_fsync,
        )

    def _make_adoptions(self) -> Adoptions:
        """Spools of workers that there were once. They take a part of the queue's memory."""
        names = self._data.names() if self._settings.spool_bytes else []
        names = orphans(names, self._seat.number, self._seat.count)
        budget = MemoryBudget(self._queue_budget.limit // ADOPTED_SHARE if names else 0)
        self._queue_budget.limit -= budget.limit
        self._metrics.follow(self._metrics.memory_bytes, lambda: budget.used)

        def done() -> None:
            self._queue_budget.limit += budget.limit

        return Adoptions(
            names, self._data, lambda spool: self._make_pipeline(spool, budget), done=done
        )

    def _make_pipeline(self, spool: DiskSpool | MemorySpool, budget: MemoryBudget) -> Pipeline:
        settings = self._settings
        dead_letters = DeadLetterFolder(
            settings.data_dir / "dead-letters", max_bytes=DEAD_LETTER_BYTES
        )
        return Pipeline(
            spool=spool,
            delivery=Delivery(
                self._backend.exporter, dead_letters, self._metrics, timeout_s=DELIVERY_TIMEOUT_S
            ),
            backend=self._backend,
            budget=budget,
            metrics=self._metrics,
            failed=self._failed,
            limits=PipelineLimits(
                batch_spans=settings.batch_spans,
                batch_bytes=self._batch_bytes,
                batch_timeout_s=settings.batch_timeout_s,
                hold_s=self._backend.hold_s,
            ),
        )

    def _make_web(self) -> web.Application:
        gate = self._gates.query
        app = web.Application(middlewares=[Guard(gate, self._metrics).middleware])
        http.add_routes(app, self._ingest)
        exposition.add_routes(app, self._backend, self._metrics, self._seat.families)
        if self._role.answers_queries:
            tenant_of = None if gate.is_open else granted_tenant
            proxy.add_routes(app, self._backend, self._metrics, tenant_of=tenant_of)
        status.add_routes(
            app,
            version=__version__,
            grpc_port=lambda: self._address.grpc_port,
            status=self._seat.status,
            readiness=self._not_ready,
            front_page=self._role.front_page,
        )
        return app

    def _make_methods(self) -> Mapping[str, Handler]:
        if not self._role.answers_queries:
            return {}
        return {path: passed_on(path, self._streams) for path in streams.PATHS}

    # -- stop ------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        """End everything inside the drain timeout; what is not delivered stays in the spool."""
        phases = Phases.of(self._settings.drain_timeout_s, hands_over=self._handover is not None)
        logger.info("stopping", extra=facts(**phases._asdict()))
        self._stopping = True
        began = time.monotonic()
        await self._listeners.stop(phases.answer_s)
        await self._streams.close()
        # With somebody else to take the rest, there is no point in waiting for a dead backend.
        hopeless = self._handover is not None and self._pipeline.is_failing
        drained = await self._pipeline.drain(0.0 if hopeless else phases.drain_s)
        if self._handover is not None:
            self._pipeline.hand_over(self._handover)
        # What the others have not needed of their time is the backend's.
        flushed = await self._backend.stop(began + phases.backend_ends_s - time.monotonic())
        self._pipeline.backend_ended(flushed=flushed)
        await self._tasks.stop()
        await self._adoptions.stop(backend_flushed=flushed)
        if self._handover is not None:
            drained = await self._pipeline.drain(began + sum(phases) - time.monotonic())
            await self._handover.close()
        await self._pipeline.stop()
        left = self._pipeline.pending_spans + self._adoptions.pending_spans
        handed_over = int(self._metrics.handed_over_spans.total())
        say = logger.warning if left else logger.info
        say(
            "stopped",
            extra=facts(drained=drained, handed_over=handed_over, spans_left_in_spool=left),
        )
        self._seat.finished(left, handed_over)

    # -- voice -----------------------------------------------------------------------------------

    def _backend_changed(self) -> None:
        self._backend_voice.changed()
        if self._backend_voice.is_ready:
            self._pipeline.backend_ready()
            self._adoptions.backend_ready()

    def _not_ready(self) -> str | None:
        if self._stopping:
            return "the gateway is stopping"
        return self._backend_voice.why_not_ready()

    async def families(self) -> Iterable[Metric]:
        """Of this process alone, as is the status."""
        return await self._read_out.families()

    async def status(self) -> Mapping[str, Any]:
        received, kept = self._metrics.imbalance()
        return {
            "version": __version__,
            "uptime_s": round(time.time() - self._started_at, 1),
            "mode": self._backend.mode,
            "note": EMBEDDED_NOTE if self._backend.mode == "embedded" else None,
            "accepting": not self._stopping,
            "backend": self._backend_voice.status(),
            "queue": self._pipeline.stats(),
            "spool": {
                "bytes": self._spool.size_bytes,
                "limit_bytes": self._settings.spool_bytes,
                "last_error": self._spool.last_error,
            },
            "requests": {
                "memory_bytes": self._request_budget.used,
                "memory_limit_bytes": self._request_budget.limit,
                "memory_peak_bytes": self._request_budget.peak,
            },
            "spans": {
                "accepted": self._metrics.accepted_spans.total(),
                "rejected": self._metrics.rejected_spans.total(),
                "delivered": self._metrics.delivered_spans.total(),
                "dropped": self._metrics.dropped_spans.total(),
                "recovered": self._metrics.recovered_spans.total(),
            },
            "workers": {"wanted": self._seat.count, "answered": 1},
            "books": {"received_less_told": received, "kept_less_accounted": kept},
        }
