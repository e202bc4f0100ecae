"""Backends to test against: the embedded one and a real Tempo, each a child process on loopback.

Both are context managers that yield a ``Backend`` once ``/ready`` says so and kill it at the end.
They block while they start (half a second), so asynchronous tests enter them in fixtures.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.embedded.api import API_VERSION

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
EMBEDDED_API = tuple(int(part) for part in API_VERSION.split("."))
_LISTENING = re.compile(r"msg=listening .*protocol=(\w+) .*port=(\d+)")
_MESSAGE_LIMIT = 64 * 2**20


class BackendError(Exception):
    """The backend did not start; the text holds the end of its log."""


class Reply(NamedTuple):
    """An answer of the HTTP API."""

    status: int
    content_type: str
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Backend(NamedTuple):
    """A running backend and where it listens."""

    name: str
    """``embedded`` or ``tempo``."""
    version: tuple[int, ...]
    """Of Tempo, or of the Tempo whose API the embedded one has."""
    otlp_port: int
    http_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def otlp(self) -> str:
        """Target of its OTLP gRPC receiver."""
        return f"{HOST}:{self.otlp_port}"

    @property
    def url(self) -> str:
        """Base URL of its HTTP API."""
        return f"http://{HOST}:{self.http_port}"

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Reply:
        """What the HTTP API answers, whatever its status."""
        connection = http.client.HTTPConnection(HOST, self.http_port, timeout=20)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, answer.getheader("Content-Type", ""), answer.read())
        finally:
            connection.close()

    def push(self, request: ExportTraceServiceRequest, *, tenant: str | None = None) -> None:
        """Exports by OTLP gRPC. Raises grpc.RpcError."""
        metadata = (("x-scope-orgid", tenant),) if tenant else ()
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(self.otlp, options) as channel:
            export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)
            export(request.SerializeToString(), timeout=20, metadata=metadata)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Safe twice."""
        self.process.kill()
        self.process.wait(timeout=10)

    def terminate(self, timeout_s: float = 10) -> int:
        """SIGTERM; returns the exit status. Raises TimeoutExpired when it does not end in time."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=timeout_s)


def find_tempo() -> Path | None:
    """The Tempo binary to test with: TEMPO_BIN, else ./bin/tempo."""
    for candidate in (os.environ.get("TEMPO_BIN"), "bin/tempo"):
        if candidate and (found := shutil.which(candidate)):
            return Path(found).resolve()
    return None


def tempo_version(binary: Path) -> tuple[int, ...]:
    text = subprocess.run(  # the answer is "tempo, version 2.10.8 (branch: ...)"
        [binary, "-version"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    match = re.search(r"version v?(\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise BackendError(f"{binary} -version says {text!r}")
    return tuple(int(part) for part in match.groups())


@contextmanager
def embedded_backend(data_dir: Path, *arguments: str) -> Iterator[Backend]:
    """The embedded backend over ``data_dir``, on ports of the system's choice."""
    command = [
        *(sys.executable, "-m", "gateway.embedded", "--data-dir", str(data_dir)),
        *("--otlp-port", "0", "--http-port", "0", *arguments),
    ]
    log = _log_file(data_dir, "embedded")
    process = _spawn(command, log)
    try:
        ports = _wait(lambda: _listening(log), process, log)
        backend = Backend("embedded", EMBEDDED_API, ports["grpc"], ports["http"], process, log)
        _wait(lambda: _is_ready(backend.url), process, log)
        yield backend
    finally:
        _end(process)


@contextmanager
def tempo_backend(
    binary: Path,
    data_dir: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    ports: Sequence[int] = (),
) -> Iterator[Backend]:
    """A real Tempo over ``data_dir`` that flushes within about a second, so that a search finds
    what was pushed a moment ago. ``overrides`` replaces top-level keys of its configuration;
    ``ports`` are for OTLP, its HTTP API and its insides.
    """
    version = tempo_version(binary)
    otlp_port, http_port, grpc_port = ports or free_ports(3)
    config = tempo_config(
        version, data_dir, http_port=http_port, grpc_port=grpc_port, otlp_port=otlp_port
    ) | dict(overrides or {})
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "tempo.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    log = _log_file(data_dir, "tempo")
    process = _spawn([str(binary), f"-config.file={path}"], log)
    try:
        backend = Backend("tempo", version, otlp_port, http_port, process, log)
        _wait(lambda: _is_ready(backend.url), process, log)
        yield backend
    finally:
        _end(process)


def tempo_config(
    version: tuple[int, ...], data_dir: Path, *, http_port: int, grpc_port: int, otlp_port: int
) -> dict[str, Any]:
    """Configuration of a Tempo for tests: loopback only, large messages, quick flushes."""
    wal = {"path": f"{data_dir}/wal", "ingestion_time_range_slack": "48h"}
    receiver = {"endpoint": f"{HOST}:{otlp_port}", "max_recv_msg_size_mib": 64}
    distributor: dict[str, Any] = {"receivers": {"otlp": {"protocols": {"grpc": receiver}}}}
    if version >= (2, 7):
        distributor["max_attribute_bytes"] = 65536
    config: dict[str, Any] = {
        "stream_over_http_enabled": True,
        "server": {
            "http_listen_address": HOST,
            "http_listen_port": http_port,
            "grpc_listen_address": HOST,
            "grpc_listen_port": grpc_port,
            "grpc_server_max_recv_msg_size": _MESSAGE_LIMIT,
            "grpc_server_max_send_msg_size": _MESSAGE_LIMIT,
        },
        "distributor": distributor,
        "storage": {
            "trace": {"backend": "local", "local": {"path": f"{data_dir}/blocks"}, "wal": wal}
        },
        "overrides": {
            "defaults": {
                "ingestion": {
                    "rate_limit_bytes": 10**9,
                    "burst_size_bytes": 10**9,
                    "max_traces_per_user": 0,
                },
                "global": {"max_bytes_per_trace": 10**9},
            }
        },
        "usage_report": {"reporting_enabled": False},
    }
    return config | (_since_3(data_dir) if version >= (3,) else _before_3())


def _before_3() -> dict[str, Any]:
    return {
        "ingester": {
            "lifecycler": {"min_ready_duration": "0s"},
            "flush_check_period": "1s",
            "trace_idle_period": "1s",
        }
    }


def _since_3(data_dir: Path) -> dict[str, Any]:
    return {
        "live_store": {
            "flush_check_period": "1s",
            "max_trace_idle": "1s",
            "shutdown_marker_dir": f"{data_dir}/marker",
            "wal": {"path": f"{data_dir}/live-wal", "ingestion_time_range_slack": "48h"},
        },
        "backend_scheduler": {"local_work_path": f"{data_dir}/scheduler"},
        "backend_worker": {"finish_on_shutdown_timeout": "0s"},
        "query_frontend": {"query_end_cutoff": "0s"},
    }


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has at the moment."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _log_file(data_dir: Path, name: str) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    return data_dir / f"{name}.log"


def _spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    # Tempo can hang on SIGTERM after a query (grafana/tempo#7967), and nothing here is worth a wait
    process.kill()
    process.wait(timeout=10)


def _listening(log: Path) -> dict[str, int] | None:
    ports = {protocol: int(port) for protocol, port in _LISTENING.findall(log.read_text())}
    return ports if ports.keys() >= {"grpc", "http"} else None


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def _wait(look: Any, process: subprocess.Popen[bytes], log: Path) -> Any:
    """Ask ``look`` until it gives something true. Raises BackendError when the process ends."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (seen := look()):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise BackendError(f"not started, exit status {process.poll()}:\n{tail}")
        time.sleep(0.02)
    return seen
