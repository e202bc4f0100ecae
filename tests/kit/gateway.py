"""A started gateway: a real child process with its own data directory and free ports."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def logfmt(line: str) -> dict[str, str]:
    """One log line as its facts."""
    return {key: shlex.split(value)[0] if value else "" for key, value in _PAIR.findall(line)}


def eventually(find: Callable[[], T], *, timeout_s: float = 20) -> T:
    """The first true result of ``find``, asked again until the time is over."""
    deadline = time.monotonic() + timeout_s
    while not (found := find()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so in time, last: {found!r}")
        time.sleep(0.1)
    return found


def is_gone(pid: int) -> bool:
    """True once a process has ended, whether or not its new parent has reaped it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class RunningGateway:
    """``python -m gateway`` in a child process. Waits are for events, under a deadline."""

    def __init__(self, data_dir: Path, env: Mapping[str, str], *arguments: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "TEMPO_"))}
        self.env = clean | {
            "PORT": "0",
            "TCP_GRPC_PORT": "0",
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_DATA_DIR": str(data_dir),
            "PYTHONWARNINGS": "default",
            **env,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.http_port = 0
        self.grpc_port = 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, timeout_s: float = 20) -> str:
        """The first log line that matches, also if it has come already."""
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        with self._changed:
            seen = 0
            while True:
                for line in self.lines[seen:]:
                    if expression.search(line):
                        return line
                seen = len(self.lines)
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"no line like {pattern!r} in:\n{self.log}")
                self._changed.wait(min(left, 0.5))

    def wait_until_listening(self) -> None:
        """Until both ports accept; sets ``http_port`` and ``grpc_port``."""
        pattern = r"msg=listening.*logger=gateway.receivers.address .*protocol={}"
        self.http_port = int(logfmt(self.wait_for_line(pattern.format("http")))["port"])
        self.grpc_port = int(logfmt(self.wait_for_line(pattern.format("grpc")))["port"])

    def wait_until_ready(self, timeout_s: float = 40) -> None:
        """Until /ready says so."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if self.get("/ready")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {timeout_s} s:\n{self.log}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def get(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, Mapping[str, str]]:
        """Status, body and headers; an error status is an answer too."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), dict(error.headers)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, timeout_s: float = 40) -> int:
        """SIGTERM and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout_s)
        finally:
            self.kill()
        return code

    def kill(self) -> None:
        """SIGKILL, and everything is given back."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(timeout=5)
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def running_gateway(
    data_dir: Path, env: Mapping[str, str] | None = None
) -> Iterator[RunningGateway]:
    """A gateway that listens; killed at the end if the test has not stopped it."""
    gateway = RunningGateway(data_dir, env or {})
    try:
        gateway.wait_until_listening()
        yield gateway
    finally:
        gateway.kill()
