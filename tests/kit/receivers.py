"""Both receivers, started on free ports over an intake that does what a test tells it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web

from gateway.access.budget import MemoryBudget
from gateway.access.tls import Tls
from gateway.access.tokens import OPEN, Gate
from gateway.envelope import Envelope
from gateway.errors import Refused
from gateway.receivers.grpc import MAX_CALLS, MESSAGE_TIMEOUT_S, GrpcServer
from gateway.receivers.health import Health
from gateway.receivers.http import BODY_TIMEOUT_S, IDLE_TIMEOUT_S, add_routes, make_runner
from gateway.receivers.ingest import Ingest, Limits
from gateway.receivers.methods import Handler
from gateway.telemetry.metrics import Metrics

HOST = "127.0.0.1"
MIB = 2**20
Settled = Callable[[Refused | None], None]


class ScriptedIntake:
    """Takes what it is offered, refuses it, or leaves it open until told."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.refusals: deque[Refused | Exception] = deque()
        """Answers to the next offers; an exception is raised instead."""
        self.holding = False
        """While true, offers are settled only by ``settle``."""
        self._open: list[tuple[Sequence[Envelope], Settled]] = []

    def offer(self, envelopes: Sequence[Envelope], settled: Settled) -> None:
        if self.holding:
            self._open.append((envelopes, settled))
            return
        self._decide(envelopes, settled)

    @property
    def open(self) -> int:
        """Offers that wait."""
        return len(self._open)

    def settle(self) -> None:
        """Decide all offers that wait."""
        waiting, self._open = self._open, []
        for envelopes, settled in waiting:
            self._decide(envelopes, settled)

    @property
    def spans(self) -> int:
        return sum(envelope.spans for envelope in self.taken)

    @property
    def payload(self) -> bytes:
        """All that was taken, as one request."""
        return b"".join(envelope.payload for envelope in self.taken)

    def _decide(self, envelopes: Sequence[Envelope], settled: Settled) -> None:
        refusal = self.refusals.popleft() if self.refusals else None
        if isinstance(refusal, Refused):
            settled(refusal)
        elif refusal is not None:
            raise refusal
        else:
            self.taken += envelopes
            settled(None)


class Receivers:
    """What a test sees of the started receivers."""

    def __init__(
        self,
        *,
        memory_bytes: int,
        max_request_bytes: int,
        batch_spans: int,
        batch_bytes: int,
        gate: Gate = OPEN.ingest,
    ) -> None:
        self.intake = ScriptedIntake()
        self.budget = MemoryBudget(memory_bytes)
        self.metrics = Metrics()
        self.ingest = Ingest(
            intake=self.intake,
            budget=self.budget,
            metrics=self.metrics,
            limits=Limits(max_request_bytes, batch_spans, batch_bytes),
            gate=gate,
        )
        self.http_port = 0
        self.grpc_port = 0
        self.runner: web.AppRunner
        self.grpc: Stoppable
        self.serving = True
        self.health = Health(lambda: self.serving)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def grpc_target(self) -> str:
        return f"{HOST}:{self.grpc_port}"

    def counts(self) -> dict[str, float]:
        """Every counter that is not 0, such as ``{"accepted_spans": 3}``; labels after a slash."""
        seen = {}
        for family in self.metrics.collect():
            for sample in family.samples:
                if sample.name.endswith("_total") and sample.value:
                    name = sample.name.removeprefix("gateway_").removesuffix("_total")
                    seen["/".join([name, *sample.labels.values()])] = sample.value
        return seen

    def check_books(self) -> None:
        """At a quiet moment: nothing is held, and every span is in one place."""
        assert self.budget.used == 0
        received_imbalance, _ = self.metrics.imbalance()
        assert received_imbalance == 0
        accepted, recovered = self.metrics.accepted_spans, self.metrics.recovered_spans
        assert accepted.total() + recovered.total() == self.intake.spans

    async def stop_grpc(self, timeout_s: float) -> None:
        """As ``Listeners`` do it."""
        self.health.stop()
        await self.grpc.stop(timeout_s)


class Stoppable(Protocol):
    """A server of gRPC."""

    async def stop(self, timeout_s: float) -> object: ...


@asynccontextmanager
async def started_receivers(
    *,
    memory_bytes: int = 64 * MIB,
    max_request_bytes: int = 4 * MIB,
    batch_spans: int = 8192,
    batch_bytes: int = 3 * MIB,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
    body_timeout_s: float = BODY_TIMEOUT_S,
    max_calls: int = MAX_CALLS,
    message_timeout_s: float = MESSAGE_TIMEOUT_S,
    gate: Gate = OPEN.ingest,
    handlers: Mapping[str, Handler] | None = None,
    tls: Tls | None = None,
) -> AsyncIterator[Receivers]:
    """Both servers on free ports; the books are checked at the end."""
    receivers = Receivers(
        memory_bytes=memory_bytes,
        max_request_bytes=max_request_bytes,
        batch_spans=batch_spans,
        batch_bytes=batch_bytes,
        gate=gate,
    )
    app = web.Application()
    add_routes(app, receivers.ingest, idle_timeout_s=idle_timeout_s, body_timeout_s=body_timeout_s)
    receivers.runner = make_runner(app)
    server = receivers.grpc = GrpcServer(
        receivers.ingest,
        host=HOST,
        port=0,
        max_request_bytes=max_request_bytes,
        handlers={**receivers.health.methods(), **(handlers or {})},
        tls=tls,
        max_calls=max_calls,
        message_timeout_s=message_timeout_s,
    )
    await receivers.runner.setup()
    try:
        site = web.TCPSite(receivers.runner, HOST, 0)
        await site.start()
        receivers.http_port = receivers.runner.addresses[0][1]
        receivers.grpc_port = await server.start()
        yield receivers
        await eventually(lambda: receivers.budget.used == 0)
        receivers.check_books()
    finally:
        await receivers.stop_grpc(1)
        await receivers.runner.cleanup()


async def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait until ``condition`` holds; fails at the deadline."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)
