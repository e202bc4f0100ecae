"""A distributed Tempo on loopback: its parts as processes of their own, by config/scale/."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.kit.backends import HOST, BackendError, free_ports
from tests.kit.gateway import ROOT

SCALE = ROOT / "config" / "scale"
START_TIMEOUT_S = 60.0


class Part:
    """One process of the cluster."""

    def __init__(self, binary: Path, config: Path, target: str, name: str, directory: Path) -> None:
        self.target = target
        self.name = name
        self.http_port, self.grpc_port, self.otlp_port, self.member_port = free_ports(4)
        self._command = [
            *(str(binary), f"-config.file={config}", "-config.expand-env=true"),
            f"-target={target}",
        ]
        self._log = directory / f"{name}.log"
        self._data_dir = directory / name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, shared: Mapping[str, str]) -> None:
        self._data_dir.mkdir(exist_ok=True)
        own = {
            "INSTANCE": self.name,
            "ADDRESS": HOST,
            "LISTEN": HOST,
            "HTTP_PORT": str(self.http_port),
            "GRPC_PORT": str(self.grpc_port),
            "OTLP_PORT": str(self.otlp_port),
            "MEMBER_PORT": str(self.member_port),
            "DATA_DIR": str(self._data_dir),
            "READY_AFTER": "0s",
        }
        with self._log.open("wb") as stream:
            self._process = subprocess.Popen(
                self._command,
                env={"PATH": os.environ["PATH"], **shared, **own},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        """Raises BackendError when it ends or does not get ready in time."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                tail = self._log.read_text(errors="replace")[-3000:]
                raise BackendError(f"{self.name} is not ready:\n{tail}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.http_port}/ready", timeout=2) as got:
                return bool(got.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL. Safe twice, and before the start."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)


class Cluster:
    """Its parts by name, and the addresses that gateways need."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.parts = parts

    @property
    def otlp_endpoints(self) -> str:
        """Of all distributors, for TEMPO_OTLP_ENDPOINT."""
        return ",".join(
            f"http://{HOST}:{part.otlp_port}"
            for part in self.parts.values()
            if part.target == "distributor"
        )

    @property
    def query_url(self) -> str:
        """Of the query-frontend, for TEMPO_QUERY_URL."""
        return f"http://{HOST}:{self.parts['query-frontend-0'].http_port}"


@contextmanager
def tempo_cluster(
    binary: Path, config: str, directory: Path, counts: Mapping[str, int], **environment: str
) -> Iterator[Cluster]:
    """So many parts of each target by a file of config/scale/, with blocks in one directory."""
    parts = {
        f"{target}-{number}": Part(binary, SCALE / config, target, f"{target}-{number}", directory)
        for target, count in counts.items()
        for number in range(count)
    }
    cluster = Cluster(parts)
    shared = {
        "MEMBERS": ",".join(f"{HOST}:{part.member_port}" for part in parts.values()),
        "FRONTEND": f"{HOST}:{parts['query-frontend-0'].grpc_port}",
        "STORAGE": "local",
        "BLOCKS_DIR": str(directory / "blocks"),
        **environment,
    }
    try:
        for part in parts.values():
            part.start(shared)
        for part in parts.values():
            part.wait_until_ready()
        yield cluster
    finally:
        for part in parts.values():
            part.kill()
