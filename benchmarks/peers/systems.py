"""How each system under test is started. All batch alike: 8192 spans or 200 ms, nothing compressed
on the way to the sink, since it is on the same machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from benchmarks.peers.processes import HOST, BenchError, System, free_port

ROTEL_VERSION = "0.0.1a15"

_COLLECTOR = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", max_recv_msg_size_mib: 64}}
      http: {{endpoint: "127.0.0.1:{http}"}}
processors:
  batch: {{send_batch_size: 8192, timeout: 200ms}}
exporters:
  otlp: {{endpoint: "127.0.0.1:{sink}", compression: none, tls: {{insecure: true}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp]}}
"""


def _ports() -> dict[str, int]:
    return {"grpc": free_port(), "http": free_port()}


def gateway(
    name: str, directory: Path, core: int | Collection[int], env: Mapping[str, str]
) -> System:
    """With its default settings: spool on, fsync off, metrics on."""
    ports = _ports()
    own = {
        "PORT": str(ports["http"]),
        "TCP_GRPC_PORT": str(ports["grpc"]),
        "GATEWAY_HOST": HOST,
        "GATEWAY_DATA_DIR": str(directory / f"{name}-data"),
    }
    return System(
        name,
        [sys.executable, "-m", "gateway"],
        ports=ports,
        log=directory / f"{name}.log",
        core=core,
        env=own | dict(env),
    )


def before_sink(sink_port: int) -> dict[str, str]:
    """A gateway's settings for delivery to the sink."""
    return {"TEMPO_MODE": "external", "TEMPO_OTLP_ENDPOINT": f"http://{HOST}:{sink_port}"}


def rotel(directory: Path, core: int, sink_port: int) -> System:
    ports = _ports()
    command = [
        str(_find_rotel(directory)), "start",
        "--otlp-grpc-endpoint", f"{HOST}:{ports['grpc']}",
        "--otlp-http-endpoint", f"{HOST}:{ports['http']}",
        "--exporter", "otlp",
        "--otlp-exporter-protocol", "grpc",
        "--otlp-exporter-endpoint", f"http://{HOST}:{sink_port}",
        "--otlp-exporter-compression", "none",
    ]  # fmt: skip
    return System("rotel", command, ports=ports, log=directory / "rotel.log", core=core)


def _find_rotel(directory: Path) -> Path:
    """``ROTEL_BIN``, else out of the wheel on PyPI."""
    if named := os.environ.get("ROTEL_BIN"):
        return Path(named)
    target = directory / "rotel"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--target", target, f"rotel=={ROTEL_VERSION}"],
        check=True,
    )  # fmt: skip
    binary = target / "rotel" / "rotel-agent"
    binary.chmod(0o755)
    return binary


def collector(binary: str, directory: Path, core: int, sink_port: int) -> System:
    ports = _ports()
    config = directory / "collector.yaml"
    config.write_text(_COLLECTOR.format(sink=sink_port, **ports))
    return System(
        "collector",
        [binary, f"--config={config}"],
        ports=ports,
        log=directory / "collector.log",
        core=core,
    )


def check_tools() -> None:
    if shutil.which("h2load") is None:
        raise BenchError("h2load is not installed (Debian: apt-get install nghttp2-client)")
