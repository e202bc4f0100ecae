"""A backend that is a child of this process: Tempo, or the embedded one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from gateway.envelope import Fate, Outcome
from gateway.errors import GrpcCode
from gateway.tempo.child import Program, Usage
from gateway.tempo.client import MAX_MESSAGE_BYTES, OtlpExporter, OtlpGrpcExporter
from gateway.tempo.discards import NONE_DISCARDED, Discarded, ReadBack
from gateway.tempo.outcomes import NAMES
from gateway.tempo.ports import HOST, Ports
from gateway.tempo.states import State
from gateway.tempo.supervisor import Habits, Supervisor
from gateway.tempo.window import Window

ROOM_POLL_S = 0.05

_BEHIND = Outcome(
    Fate.RETRY,
    NAMES[GrpcCode.UNAVAILABLE],
    "the backend has not written to its disk yet what it was given before",
)


class Life(Protocol):
    """What the exporter has to know of the child."""

    @property
    def ports(self) -> Ports: ...

    @property
    def state(self) -> State: ...

    @property
    def generation(self) -> int: ...

    def alive_s(self) -> float: ...


class ChildExporter:
    """Delivers to a supervised child, on whatever port it has at the moment, and not more than it
    can bring to its disk.
    """

    def __init__(
        self,
        life: Life,
        window: Window | None = None,
        delivered: Callable[[], None] = lambda: None,
        default_tenant: str = "",
    ) -> None:
        """``delivered`` is called after each OK. ``default_tenant`` is for spans of no tenant,
        where the child takes none without one.
        """
        self._life = life
        self._window = window
        self._delivered = delivered
        self._default_tenant = default_tenant
        self._port = 0
        self._exporter: OtlpGrpcExporter | None = None

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        if self._window is None:
            return await self._send(tenant, payload, timeout_s)
        if not await self._has_room(self._window, len(payload), timeout_s):
            return _BEHIND
        size, generation = len(payload), self._window.take(len(payload))
        delivered = False
        try:
            outcome = await self._send(tenant, payload, timeout_s)
            delivered = outcome.fate is Fate.DELIVERED
        finally:
            self._window.settle(size, generation, alive_s=self._life.alive_s(), delivered=delivered)
        return outcome

    async def _has_room(self, window: Window, size: int, timeout_s: float) -> bool:
        """Wait for room while the child is there to make some."""
        deadline = time.monotonic() + timeout_s
        while not window.has_room(
            size, generation=self._life.generation, alive_s=self._life.alive_s()
        ):
            if self._life.state is not State.READY:
                return True  # the attempt will tell what is wrong
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(ROOM_POLL_S)
        return True

    async def _send(self, tenant: str, payload: bytes, timeout_s: float) -> Outcome:
        exporter = await self._current()
        tenant = tenant or self._default_tenant
        outcome = await exporter.export(tenant, payload, timeout_s=timeout_s)
        if outcome.fate is Fate.DELIVERED:
            self._delivered()
        return outcome

    async def _current(self) -> OtlpGrpcExporter:
        port = self._life.ports.otlp
        if self._exporter is None or port != self._port:
            old, self._port = self._exporter, port
            self._exporter = new = OtlpGrpcExporter(f"{HOST}:{port}")
            if old is not None:
                await old.close()
            return new
        return self._exporter

    async def close(self) -> None:
        if self._exporter is not None:
            await self._exporter.close()


class ChildBackend:
    """Made stopped; ``start`` begins its life."""

    def __init__(
        self,
        mode: str,
        name: str,
        program: Callable[[Ports], Program],
        *,
        hold_s: float = 0.0,
        habits: Habits = Habits(),  # noqa: B008 - an immutable value
        window: Window | None = None,
        delivered: Callable[[], None] = lambda: None,
        read_back: ReadBack | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        default_tenant: str = "",
        streams_on_otlp_port: bool = False,
    ) -> None:
        """``delivered`` is to be called after each OK of the child's, also by those who deliver to
        it without ``exporter``; ``read_back`` tells what the child throws away, where it is one
        that does. Streamed queries are on the port of its HTTP API unless told otherwise.
        """
        self.mode = mode
        self.hold_s = hold_s
        self.max_message_bytes = max_message_bytes
        self.default_tenant = default_tenant
        self._supervisor = Supervisor(name, program, changed=self._tell, habits=habits)
        self._changed: Callable[[], None] = lambda: None
        self._read_back = read_back
        self.window = window
        self.delivered = delivered
        self.default_tenant = default_tenant
        self._streams_on_otlp_port = streams_on_otlp_port
        self.exporter: OtlpExporter = ChildExporter(
            self._supervisor, window, delivered, default_tenant
        )

    def _tell(self) -> None:
        self._changed()

    @property
    def base_url(self) -> str | None:
        return self._supervisor.base_url if self._supervisor.pid is not None else None

    @property
    def streaming_url(self) -> str | None:
        if self.base_url is None or not self._streams_on_otlp_port:
            return self.base_url
        return f"http://{HOST}:{self._supervisor.ports.otlp}"

    @property
    def state(self) -> str:
        return self._supervisor.state.value

    @property
    def reason(self) -> str:
        return self._supervisor.reason

    @property
    def generation(self) -> int:
        return self._supervisor.generation

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts

    @property
    def pid(self) -> int | None:
        return self._supervisor.pid

    @property
    def ports(self) -> Ports:
        return self._supervisor.ports

    @property
    def usage(self) -> Usage | None:
        """What the child costs, as of the last look at it."""
        return self._supervisor.usage

    @property
    def discarded(self) -> Discarded:
        return self._read_back.discarded if self._read_back is not None else NONE_DISCARDED

    def alive_s(self) -> float:
        return self._supervisor.alive_s()

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._supervisor.start()
        if self._read_back is not None:
            self._read_back.start(self._supervisor)

    async def stop(self, timeout_s: float) -> bool:
        await self.exporter.close()
        if self._read_back is not None:
            await self._read_back.stop(self._supervisor)
        return await self._supervisor.stop(timeout_s)
