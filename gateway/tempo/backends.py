"""The backend of a gateway: which kind it is, where it listens, whether it lives.

Three kinds of one shape. ``managed`` and ``embedded`` are children under a supervisor; an
``external`` one is somebody else's, of which only the answers are known.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gateway.access.container import memory_limit
from gateway.envelope import Outcome
from gateway.settings import Settings
from gateway.telemetry.logs import facts
from gateway.tempo.client import OtlpExporter, OtlpGrpcExporter, make_exporter
from gateway.tempo.config import command, environment, profile_for
from gateway.tempo.supervisor import HOST, Ports, Program, Supervisor
from gateway.tempo.version import BinaryError, read_version

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """What the gateway needs of any of them."""

    mode: str
    exporter: OtlpExporter
    hold_s: float
    """How long an OK of its is not on its disk yet."""

    @property
    def base_url(self) -> str | None:
        """Of its HTTP API, None where there is none to ask."""

    @property
    def state(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def generation(self) -> int: ...

    @property
    def restarts(self) -> int: ...

    def alive_s(self) -> float: ...

    def start(self, changed: Callable[[], None]) -> None:
        """Begin; returns at once. ``changed`` is called after each change of state."""

    async def stop(self, timeout_s: float) -> bool:
        """End it; True if what it had in memory is on its disk."""


def find_binary(settings: Settings) -> Path | None:
    """The Tempo binary: TEMPO_BIN, else ./bin/tempo, else on the PATH."""
    if settings.tempo_bin is not None:
        return settings.tempo_bin
    found = shutil.which("bin/tempo") or shutil.which("tempo")
    return Path(found).absolute() if found else None


class ChildExporter:
    """Delivers to a supervised child, on whatever port it has at the moment."""

    def __init__(self, ports: Callable[[], Ports]) -> None:
        self._ports = ports
        self._address = ""
        self._exporter: OtlpGrpcExporter | None = None

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        address = f"{HOST}:{self._ports().otlp}"
        if self._exporter is None or address != self._address:
            await self.close()
            self._address, self._exporter = address, OtlpGrpcExporter(address)
        return await self._exporter.export(tenant, payload, timeout_s=timeout_s)

    async def close(self) -> None:
        if self._exporter is not None:
            await self._exporter.close()


class ChildBackend:
    """Tempo or the embedded backend, as a child of this process."""

    def __init__(
        self, mode: str, name: str, program: Callable[[Ports], Program], hold_s: float
    ) -> None:
        self.mode = mode
        self.hold_s = hold_s
        self._supervisor = Supervisor(name, program, changed=self._told)
        self._changed: Callable[[], None] = lambda: None
        self.exporter: OtlpExporter = ChildExporter(lambda: self._supervisor.ports)

    def _told(self) -> None:
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

    def alive_s(self) -> float:
        return self._supervisor.alive_s()

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._supervisor.start()

    async def stop(self, timeout_s: float) -> bool:
        await self.exporter.close()
        return await self._supervisor.stop(timeout_s)


class ExternalBackend:
    """Somebody else's Tempo. Nobody knows of its life, so it counts as alive and ready."""

    mode = "external"
    state = "ready"
    reason = ""
    generation = 0
    restarts = 0

    def __init__(self, settings: Settings) -> None:
        (url,) = settings.tempo_otlp_endpoint
        self.exporter: OtlpExporter = make_exporter(url, settings.tempo_otlp_headers)
        self.hold_s = settings.hold_time_s or 0.0
        self.base_url = settings.tempo_query_url

    def alive_s(self) -> float:
        return time.monotonic()

    def start(self, changed: Callable[[], None]) -> None:
        changed()

    async def stop(self, timeout_s: float) -> bool:  # noqa: ARG002 - the shape of a backend
        await self.exporter.close()
        return True


def make_backend(settings: Settings) -> Backend:
    """The backend that the settings ask for."""
    mode, binary = settings.tempo_mode, find_binary(settings)
    if mode == "auto" and settings.tempo_otlp_endpoint:
        mode = "external"
    elif mode == "auto":
        mode = "managed" if binary else "embedded"
    if mode == "external":
        return ExternalBackend(settings)
    if mode == "managed":
        return _managed(settings, binary)
    return ChildBackend("embedded", "embedded", _embedded_program(settings), hold_s=0.0)


def _managed(settings: Settings, binary: Path | None) -> ChildBackend:
    """Raises BinaryError where there is no Tempo that runs."""
    if binary is None:
        raise BinaryError(
            "no Tempo binary: set TEMPO_BIN, or fetch one with python -m gateway install-tempo"
        )
    version = read_version(binary)
    profile = profile_for(version)
    data_dir = settings.data_dir / "tempo"
    memory = memory_limit(settings.container_memory)

    def program(ports: Ports) -> Program:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        variables = environment(
            data_dir=data_dir,
            ports=ports,
            retention_s=settings.tempo_retention_s,
            container_bytes=memory,
        )
        return Program(command(binary, settings.tempo_config or profile.template), variables)

    hold_s = profile.hold_s if settings.hold_time_s is None else settings.hold_time_s
    logger.info("tempo found", extra=facts(path=binary, version=version, hold_s=hold_s))
    return ChildBackend("managed", "tempo", program, hold_s)


def _embedded_program(settings: Settings) -> Callable[[Ports], Program]:
    def program(ports: Ports) -> Program:
        return Program(
            [
                sys.executable, "-m", "gateway.embedded",
                "--data-dir", str(settings.data_dir / "embedded"),
                "--otlp-port", str(ports.otlp), "--http-port", str(ports.http),
                "--retention", f"{settings.tempo_retention_s:g}s",
                "--log-level", settings.log_level,
            ],
            {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )  # fmt: skip

    return program
