"""What a gateway that has nothing to do takes.

How long it takes to start is in docs/performance.md: a busy machine says nothing about that.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.gateway import ROOT, running_gateway

MIB = 2**20

LOADED_WHEN_NEEDED = {"grpc", "lark", "opentelemetry", "sqlite3", "gateway.embedded"}
"""grpcio with the first delivery by gRPC, the others in the embedded backend alone."""

NOBODY = {"TEMPO_MODE": "external", "TEMPO_OTLP_ENDPOINT": "http://127.0.0.1:9"}
HTTP1 = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
HTTP1 += b"Content-Length: 0\r\n\r\n"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


@pytest.mark.parametrize("module", ["gateway.app", "gateway.cli"])
def test_what_is_large_and_may_not_be_needed_is_not_loaded_at_start(module):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert module in loaded, done.stderr
    assert not loaded & LOADED_WHEN_NEEDED


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux")
def test_an_idle_gateway_and_a_thousand_idle_connections_are_small(tmp_path):
    with running_gateway(tmp_path, NOBODY) as gateway, ExitStack() as stack:
        pid = gateway.process.pid
        idle = resident(pid)
        assert idle < 60 * MIB
        for number in range(1000):
            port = gateway.grpc_port if number % 2 else gateway.http_port
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(HTTP2 if number % 2 else HTTP1)
            assert connection.recv(2**16)
        assert resident(pid) - idle < 20 * MIB
