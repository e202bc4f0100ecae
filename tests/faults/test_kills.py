"""Nothing acknowledged is lost when something dies. A ledger client sends all the while."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.faults.ledger import ledger_client, missing_spans
from tests.kit.gateway import RunningGateway, eventually
from tests.kit.ledger import assert_books_balance
from tests.kit.modes import BACKENDS, backend_env

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def free_ports(count: int) -> list[int]:
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


@pytest.fixture(params=BACKENDS)
def start(request, tmp_path):
    """Starts a gateway on the same ports and data as the one before."""
    http, grpc = free_ports(2)
    env = backend_env(request.param) | {"PORT": str(http), "TCP_GRPC_PORT": str(grpc)}
    started: list[RunningGateway] = []

    def start() -> RunningGateway:
        gateway = RunningGateway(tmp_path / "data", env)
        started.append(gateway)
        gateway.wait_until_listening()
        return gateway

    yield start
    for gateway in started:
        gateway.kill()


def child_of(gateway: RunningGateway) -> int:
    """Process id of the backend."""
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    return int(eventually(lambda: children.read_text().split())[0])


def assert_quiet_and_balanced(gateway: RunningGateway) -> dict[str, int]:
    eventually(lambda: "gateway_pending_spans 0.0" in gateway.get("/metrics")[1], timeout_s=60)
    return assert_books_balance(gateway.get("/metrics")[1])


def test_kill_9_of_the_gateway(start, size, report):
    """Kill at random moments under load; what was acknowledged is found after the restarts."""
    gateway = start()
    with ledger_client(gateway) as client:
        for _ in range(size.gateway_kills):
            time.sleep(random.uniform(0.3, 1.5))
            backend = child_of(gateway)
            gateway.kill()
            eventually(lambda pid=backend: not os.path.exists(f"/proc/{pid}"), timeout_s=5)
            gateway = start()
        result = client.finish()
    missing = missing_spans(gateway, result)
    report(kills=size.gateway_kills, acknowledged=result.spans, missing=missing)
    assert result.no_answer > 0
    assert missing == 0
    assert_quiet_and_balanced(gateway)


def test_kill_9_of_the_backend(start, size, report):
    """Kill the backend under load; it is started again and what it had lost is delivered again."""
    gateway = start()
    gateway.wait_until_ready()
    with ledger_client(gateway) as client:
        for _ in range(size.tempo_kills):
            time.sleep(random.uniform(1.0, 4.0))
            os.kill(child_of(gateway), signal.SIGKILL)
            eventually(lambda: gateway.get("/ready")[0] == 503)
            gateway.wait_until_ready()
        result = client.finish()
    missing = missing_spans(gateway, result)
    report(kills=size.tempo_kills, acknowledged=result.spans, missing=missing)
    assert result.spans > 1000
    assert missing == 0
    assert_quiet_and_balanced(gateway)


def test_sigterm_under_load(start, size, report):
    """Stop under load: exit code 0 inside the timeout, and nothing acknowledged is missing."""
    gateway, slowest = start(), 0.0
    with ledger_client(gateway) as client:
        for _ in range(size.stops):
            time.sleep(random.uniform(0.5, 2.0))
            began = time.monotonic()
            assert gateway.stop() == 0
            slowest = max(slowest, time.monotonic() - began)
            gateway = start()
        result = client.finish()
    missing = missing_spans(gateway, result)
    report(
        stops=size.stops, slowest_s=round(slowest, 1), acknowledged=result.spans, missing=missing
    )
    assert slowest < 22
    assert missing == 0
    assert_quiet_and_balanced(gateway)
