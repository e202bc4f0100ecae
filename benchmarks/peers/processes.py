"""Processes under measurement: pinned to a core, with what they and their children have used."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

HOST = "127.0.0.1"
_STOP_S = 30.0
_START_S = 60.0


class BenchError(Exception):
    """The run cannot go on or would tell nothing; the text says why."""


def cores() -> tuple[int, int]:
    """The core of the systems under test, and that of the load and the sink."""
    free = sorted(os.sched_getaffinity(0))
    if len(free) < 2:
        raise BenchError("two cores are needed: one for the system, one for its load")
    return free[0], free[-1]


@contextlib.contextmanager
def pinned(core: int | Collection[int]) -> Iterator[None]:
    """What is started inside runs on this core only, or on these."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} if isinstance(core, int) else core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.create_server((HOST, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def clean_environment() -> dict[str, str]:
    """Ours, without any setting of the systems under test."""
    ours = ("GATEWAY_", "TEMPO_", "ROTEL_", "OTEL_", "PORT", "TCP_GRPC_PORT", "WEB_CONCURRENCY")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


class System:
    """A running system under test."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ports: Mapping[str, int],
        log: Path,
        core: int | Collection[int],
        env: Mapping[str, str] | None = None,
    ) -> None:
        """``ports`` by protocol, ``grpc`` and ``http``; what it says goes into the file ``log``."""
        self.name = name
        self.ports = dict(ports)
        self._log = log
        with pinned(core), log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                env=clean_environment() | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def wait_until_listening(self) -> None:
        for port in self.ports.values():
            self._wait_for(port)

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection((HOST, port), timeout=1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"{self.name} does not listen:\n{self.log}") from None
                time.sleep(0.05)
            else:
                return

    @property
    def log(self) -> str:
        """The end of what it said."""
        return self._log.read_text(errors="replace")[-4000:]

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return descendants(self.process.pid)

    def cpu_s(self) -> float:
        """User and system time that its processes have used."""
        return sum(map(cpu_s, self.pids))

    def reset_peak(self) -> None:
        """Forget what memory was used before."""
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """Most memory in use since ``reset_peak``."""
        return sum(_status_bytes(pid, "VmHWM") for pid in self.pids)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def descendants(pid: int) -> list[int]:
    """A process and its children, and theirs."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """Of all threads of any process, also of those that have ended (``clock_getcpuclockid``)."""
    return time.clock_gettime((~pid << 3) | 2)


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
