"""Gateways that are started one after the other, and what is seen of them from outside."""

from __future__ import annotations

import json
import os
import random
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.kit.gateway import RunningGateway, eventually
from tests.kit.ledger import assert_books_balance

MIB = 2**20

BASE_BYTES = 112 * MIB
"""Resident memory that a gateway may take beside GATEWAY_MEMORY_BYTES; docs/durability.md says how
it was found.
"""


def steady_ports(count: int) -> list[int]:
    """Ports that stay free while nobody listens. Those that the system hands out do not: another
    socket may get one for its own end, even that of the client that tries to reach it.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)  # below Linux's ephemeral ports
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


class Gateways:
    """Starts each gateway on the ports and the data of the one before."""

    def __init__(self, data_dir: Path, env: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        http, grpc = steady_ports(2)
        self.env = {"PORT": str(http), "TCP_GRPC_PORT": str(grpc), **env}
        self._started: list[RunningGateway] = []

    def start(self) -> RunningGateway:
        gateway = self.start_unready()
        gateway.wait_until_listening()
        return gateway

    def start_unready(self) -> RunningGateway:
        """One that may fail to start."""
        gateway = RunningGateway(self.data_dir, self.env)
        self._started.append(gateway)
        return gateway

    def kill_all(self) -> None:
        for gateway in self._started:
            gateway.kill()


def kill(gateway: RunningGateway) -> None:
    """SIGKILL, and wait until its child is gone as well."""
    children = children_of(gateway)
    gateway.kill()
    eventually(lambda: not any(map(_lives, children)))


def children_of(gateway: RunningGateway) -> list[int]:
    pid = gateway.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def backend_of(gateway: RunningGateway) -> int:
    """Process id of the backend that it runs."""
    (child,) = eventually(lambda: children_of(gateway))
    return child


def _lives(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def post(gateway: RunningGateway, body: bytes) -> int:
    """One request over HTTP; returns the status of the answer."""
    headers = {"Content-Type": "application/x-protobuf"}
    request = urllib.request.Request(gateway.url + "/v1/traces", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def status_of(gateway: RunningGateway) -> dict[str, Any]:
    return json.loads(gateway.get("/gateway/status")[1])


class Memory(NamedTuple):
    """Of one process, bytes."""

    resident: int
    peak: int


def memory_of(gateway: RunningGateway) -> Memory:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    sizes = dict(line.split(":", 1) for line in status.splitlines())
    return Memory(*(int(sizes[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")))


def wait_until_quiet(gateway: RunningGateway, timeout_s: float = 60) -> dict[str, int]:
    """Until nothing is pending; the books must balance then."""

    def quiet() -> bool:
        return "gateway_pending_spans 0.0" in gateway.get("/metrics")[1]

    eventually(quiet, timeout_s=timeout_s)
    return assert_books_balance(gateway.get("/metrics")[1])


def external_env(otlp_address: str, query_url: str | None = None) -> dict[str, str]:
    """Settings of a gateway in front of a backend that is somebody else's."""
    env = {"TEMPO_MODE": "external", "TEMPO_OTLP_ENDPOINT": f"http://{otlp_address}"}
    return env | ({"TEMPO_QUERY_URL": query_url} if query_url else {})
