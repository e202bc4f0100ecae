"""The backend is away while a ledger client sends: the backlog waits on disk, not in memory, and is
delivered when the backend is back.
"""

from __future__ import annotations

import signal
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.faults.gateways import (
    BASE_BYTES,
    MIB,
    external_env,
    memory_of,
    status_of,
    steady_ports,
    wait_until_quiet,
)
from tests.faults.ledger import ledger_client, missing_spans, numbers_at
from tests.faults.sizes import MARKS, SIZE, SOAK
from tests.kit.backends import Backend, embedded_backend, tempo_backend
from tests.kit.gateway import eventually
from tests.kit.modes import tempo_or_skip

pytestmark = MARKS

SPANS_PER_S = 2000
MEMORY_MIB = 16
DRAIN_S = 60
"""From the backend's return, under load all the while."""


class ExternalBackend:
    """A backend that is started again on the same ports and data, and how to reach it."""

    def __init__(self, kind: str, data_dir: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._ports = steady_ports(3)
        self._kind = kind
        self._data_dir = data_dir
        self.start()
        self.env = external_env(self.running.otlp, self.running.url)
        if kind == "tempo":
            self.env["GATEWAY_HOLD_TIME"] = "4s"

    def start(self) -> None:
        self.running = self._stack.enter_context(self._new())

    def _new(self) -> AbstractContextManager[Backend]:
        if self._kind == "tempo":
            return tempo_backend(tempo_or_skip(), self._data_dir, ports=self._ports)
        otlp, http, _ = map(str, self._ports)
        return embedded_backend(self._data_dir, "--otlp-port", otlp, "--http-port", http)

    def kill(self) -> None:
        self.running.kill()

    def freeze(self) -> None:
        """It stands still: connections stay open, and nothing is answered."""
        self.running.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.running.process.send_signal(signal.SIGCONT)


KILL = (ExternalBackend.kill, ExternalBackend.start)
FREEZE = (ExternalBackend.freeze, ExternalBackend.thaw)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        pytest.param("embedded", KILL, id="embedded-killed"),
        pytest.param("embedded", FREEZE, id="embedded-frozen"),
        pytest.param("tempo", KILL, id="tempo-killed", marks=pytest.mark.tempo),
        *([pytest.param("tempo", FREEZE, id="tempo-frozen", marks=pytest.mark.tempo)] * SOAK),
    ],
)
def test_outage(gateways, report, tmp_path, stack, kind, fault):
    """0 missing, memory inside its budget, drained within a minute of the return."""
    backend = ExternalBackend(kind, tmp_path / "backend", stack)
    leave, return_ = fault
    fleet = gateways(backend.env | {"GATEWAY_MEMORY_BYTES": f"{MEMORY_MIB}MiB"})
    gateway = fleet.start()
    with ledger_client(gateway, rate=SPANS_PER_S, padding=500) as client:
        client.wait_for_more(SPANS_PER_S)
        leave(backend)
        time.sleep(SIZE.outage_s)
        backlog = status_of(gateway)["queue"]["pending_spans"]
        return_(backend)
        returned = time.monotonic()
        eventually(lambda: caught_up(gateway), timeout_s=DRAIN_S)
        drained_s = time.monotonic() - returned
        ledger = client.finish()
    missing = missing_spans(numbers_at(gateway.url), ledger)
    wait_until_quiet(gateway)
    peak = memory_of(gateway).peak
    report(
        away_s=SIZE.outage_s,
        backlog=backlog,
        drained_s=round(drained_s, 1),
        acknowledged=ledger.counts.acknowledged,
        refused_requests=ledger.counts.refused,
        missing=missing,
        peak_mib=peak // MIB,
        budget_mib=MEMORY_MIB,
    )
    assert missing == 0
    assert backlog > SPANS_PER_S * SIZE.outage_s / 2
    assert peak <= MEMORY_MIB * MIB + BASE_BYTES


def caught_up(gateway) -> bool:
    """Nothing waits but what has just come."""
    queue = status_of(gateway)["queue"]
    return not queue["backlog_on_disk"] and queue["in_memory_bytes"] < MIB
