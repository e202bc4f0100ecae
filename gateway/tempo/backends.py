"""The backend of a gateway: which kind it is, where it listens, whether it lives.

Three kinds of one shape. ``managed`` and ``embedded`` are children under a supervisor; an
``external`` one is somebody else's, of which only the answers are known.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gateway.access.container import memory_limit
from gateway.settings import Settings, child_environment
from gateway.tempo.child import Program, Usage
from gateway.tempo.children import ChildBackend
from gateway.tempo.client import OtlpExporter
from gateway.tempo.discards import Discarded
from gateway.tempo.external import external_tempo
from gateway.tempo.managed import managed_tempo
from gateway.tempo.ports import Ports
from gateway.tempo.version import BinaryError

_ROOT = Path(__file__).resolve().parents[2]


class Backend(Protocol):
    """What the gateway needs of any of them."""

    mode: str
    exporter: OtlpExporter
    hold_s: float
    """How long an OK of its is not on its disk yet."""
    max_message_bytes: int
    """Largest delivery that it takes, as far as that is known."""

    default_tenant: str
    """Whose spans are those of no tenant; empty where it needs no tenant."""

    @property
    def base_url(self) -> str | None:
        """Of its HTTP API, None where there is none to ask."""

    @property
    def streaming_url(self) -> str | None:
        """Of its streamed queries."""

    @property
    def state(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def generation(self) -> int: ...

    @property
    def restarts(self) -> int: ...

    @property
    def usage(self) -> Usage | None:
        """What its process costs, None where that is not known."""

    @property
    def discarded(self) -> Discarded:
        """What it has thrown away after an OK, as far as it is known."""

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


def make_backend(settings: Settings) -> Backend:
    """The backend that the settings ask for. Raises as ``managed_tempo`` does."""
    mode, binary = settings.tempo_mode, find_binary(settings)
    if mode == "auto" and settings.tempo_otlp_endpoint:
        mode = "external"
    elif mode == "auto":
        wants_tempo = binary or settings.tempo_storage == "s3"
        mode = "managed" if wants_tempo else "embedded"
    if mode == "external":
        return external_tempo(settings)
    if mode == "managed":
        if binary is None:
            raise BinaryError(
                "no Tempo binary: set TEMPO_BIN, or fetch one with python -m gateway install-tempo"
            )
        memory = memory_limit(settings.container_memory)
        return managed_tempo(settings, binary, container_bytes=memory)
    return ChildBackend(
        "embedded", "embedded", _embedded_program(settings), streams_on_otlp_port=True
    )


def _embedded_program(settings: Settings) -> Callable[[Ports], Program]:
    environment = {**child_environment(), "PYTHONPATH": str(_ROOT)}

    def program(ports: Ports) -> Program:
        return Program(
            [
                sys.executable, "-m", "gateway.embedded",
                "--data-dir", str(settings.data_dir / "embedded"),
                "--otlp-port", str(ports.otlp), "--http-port", str(ports.http),
                "--retention", f"{settings.tempo_retention_s:.0f}s",
                "--log-level", settings.log_level,
            ],
            environment,
        )  # fmt: skip

    return program
