"""A backend that is a child of this process: Tempo, or the embedded one."""

from __future__ import annotations

from collections.abc import Callable

from gateway.envelope import Fate, Outcome
from gateway.tempo.child import Program, Usage
from gateway.tempo.client import OtlpExporter, OtlpGrpcExporter
from gateway.tempo.ports import HOST, Ports
from gateway.tempo.supervisor import Habits, Supervisor


class ChildExporter:
    """Delivers to a supervised child, on whatever port it has at the moment."""

    def __init__(self, ports: Callable[[], Ports], delivered: Callable[[], None]) -> None:
        """``delivered`` is called after each OK."""
        self._ports = ports
        self._delivered = delivered
        self._port = 0
        self._exporter: OtlpGrpcExporter | None = None

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        exporter = await self._current()
        outcome = await exporter.export(tenant, payload, timeout_s=timeout_s)
        if outcome.fate is Fate.DELIVERED:
            self._delivered()
        return outcome

    async def _current(self) -> OtlpGrpcExporter:
        port = self._ports().otlp
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
        delivered: Callable[[], None] = lambda: None,
    ) -> None:
        self.mode = mode
        self.hold_s = hold_s
        self._supervisor = Supervisor(name, program, changed=self._tell, habits=habits)
        self._changed: Callable[[], None] = lambda: None
        self.exporter: OtlpExporter = ChildExporter(lambda: self._supervisor.ports, delivered)

    def _tell(self) -> None:
        self._changed()

    @property
    def base_url(self) -> str | None:
        return self._supervisor.base_url if self._supervisor.pid is not None else None

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
    def usage(self) -> Usage | None:
        """What the child costs, as of the last look at it."""
        return self._supervisor.usage

    def alive_s(self) -> float:
        return self._supervisor.alive_s()

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._supervisor.start()

    async def stop(self, timeout_s: float) -> bool:
        await self.exporter.close()
        return await self._supervisor.stop(timeout_s)
