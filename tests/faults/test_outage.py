"""The backend is away while a ledger client sends: the backlog waits on disk, not in memory, and is
delivered when the backend is back.
"""

from __future__ import annotations

import signal
import time

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
from tests.faults.sizes import MARKS, SIZE
from tests.kit.backends import embedded_backend
from tests.kit.gateway import eventually

pytestmark = MARKS

SPANS_PER_S = 2000
MEMORY_MIB = 16
DRAIN_S = 60
"""From the backend's return, under load all the while."""


class KilledBackend:
    """A backend that is killed, and started again on the same ports and data."""

    def __init__(self, tmp_path, stack) -> None:
        self._ports = steady_ports(2)
        self._start = lambda: stack.enter_context(
            embedded_backend(
                tmp_path / "backend",
                *("--otlp-port", str(self._ports[0]), "--http-port", str(self._ports[1])),
            )
        )
        self._backend = self._start()
        self.env = external_env(self._backend.otlp, self._backend.url)

    def leave(self) -> None:
        self._backend.kill()

    def come_back(self) -> None:
        self._backend = self._start()


class FrozenBackend(KilledBackend):
    """A backend that stands still: its connections stay open, and nothing is answered."""

    def leave(self) -> None:
        self._backend.process.send_signal(signal.SIGSTOP)

    def come_back(self) -> None:
        self._backend.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("kind", [KilledBackend, FrozenBackend], ids=["killed", "frozen"])
def test_outage(gateways, report, tmp_path, stack, kind):
    """0 missing, memory inside its budget, drained within a minute of the return."""
    backend = kind(tmp_path, stack)
    fleet = gateways(backend.env | {"GATEWAY_MEMORY_BYTES": f"{MEMORY_MIB}MiB"})
    gateway = fleet.start()
    with ledger_client(gateway, rate=SPANS_PER_S, padding=500) as client:
        client.wait_for_more(SPANS_PER_S)
        backend.leave()
        time.sleep(SIZE.outage_s)
        backlog = status_of(gateway)["queue"]["pending_spans"]
        backend.come_back()
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
    return not queue["backlog_on_disk"] and queue["pending_spans"] < SPANS_PER_S
