"""The load: h2load, and for bodies that vary a feeder of our own. Both are cheaper than any server.

As fast as it can (``at_full_speed``): ``CONNECTIONS`` connections, each with one request at a time
over HTTP/1.1, or ``STREAMS`` over HTTP/2. At a rate (``at_rate``): requests come at random moments
(Poisson), whether or not earlier ones were answered.
"""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.peers.cases import Case
from benchmarks.peers.processes import HOST, BenchError

CONNECTIONS = 8
STREAMS = 8
_TIMEOUT_S = 120.0
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Load:
    """Sends the requests of one case. Everything runs on the caller's core."""

    def __init__(
        self,
        case: Case,
        bodies: Sequence[bytes],
        directory: Path,
        *,
        connections: int = CONNECTIONS,
    ) -> None:
        self._case = case
        self._connections = connections
        self._bodies = cycle(bodies)
        self._varies = len(bodies) > 1
        self._directory = directory
        self._body = directory / "body"
        self._body.write_bytes(bodies[0])

    def at_full_speed(self, port: int, requests: int) -> float:
        """Send so many, each answered with success; returns the seconds it took."""
        if self._varies:
            try:
                return uvloop.run(_feed(port, self._case, self._bodies, requests))
            except TimeoutError:
                raise _too_slow(requests) from None
        began = time.perf_counter()
        arguments = [f"-n{requests}", f"-c{min(self._connections, requests)}", self._url(port)]
        _check(self._h2load(*arguments), requests)
        return time.perf_counter() - began

    def at_rate(self, port: int, per_s: float, seconds: float) -> tuple[int, list[float]]:
        """How many were sent, and the milliseconds from each request to its whole answer, sorted.

        One h2load for each connection, each with moments of its own.
        """
        running = []
        for number in range(CONNECTIONS):
            moments = list(_poisson(per_s / CONNECTIONS, seconds, seed=number))
            script = self._directory / f"script{number}"
            script.write_text("".join(f"{ms:.3f}\t{self._url(port)}\n" for ms in moments))
            log = self._directory / f"log{number}"
            log.unlink(missing_ok=True)
            paced = (f"--timing-script-file={script}", f"--log-file={log}", "-c1")
            running.append((self._h2load(*paced), len(moments), log))
        try:
            for process, requests, _ in running:
                _check(process, requests)
        finally:
            for process, _, _ in running:
                process.kill()
        rows = [row for _, _, log in running for row in log.read_text().splitlines()]
        return len(rows), sorted(int(row.split("\t")[2]) / 1000 for row in rows)

    def _url(self, port: int) -> str:
        return f"http://{HOST}:{port}{self._case.path}"

    def _h2load(self, *arguments: str) -> subprocess.Popen[str]:
        protocol = [f"-m{STREAMS}"] if self._case.form == "gRPC" else ["--h1"]
        headers = [f"-H{name}: {value}" for name, value in self._case.headers.items()]
        return subprocess.Popen(
            ["h2load", *protocol, *headers, f"-d{self._body}", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _check(process: subprocess.Popen[str], requests: int) -> None:
    try:
        told, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _too_slow(requests) from None
    finally:
        process.kill()
        process.wait()
    if not re.search(rf"status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx", told):
        raise BenchError(f"not every request succeeded:\n{told}")


def _too_slow(requests: int) -> BenchError:
    return BenchError(f"{requests} requests took longer than {_TIMEOUT_S:g} s")


def _poisson(per_s: float, seconds: float, *, seed: int) -> Iterator[float]:
    """Moments in milliseconds; at least one."""
    chance = random.Random(seed)
    moment_s = chance.uniform(0, 1 / per_s)
    yield moment_s * 1000
    while (moment_s := moment_s + chance.expovariate(per_s)) < seconds:
        yield moment_s * 1000


async def _feed(port: int, case: Case, bodies: Iterator[bytes], requests: int) -> float:
    """The feeder: HTTP/1.1 with another body in each request."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in case.headers.items())
    head = f"POST {case.path} HTTP/1.1\r\nhost: {HOST}\r\n{fields}content-length: ".encode()
    left = iter(range(requests))
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    async with asyncio.timeout(_TIMEOUT_S):
        feeders = [
            (await loop.create_connection(lambda: _Feeder(head, bodies, left), HOST, port))[1]
            for _ in range(CONNECTIONS)
        ]
        await asyncio.gather(*[feeder.done for feeder in feeders])
    return time.perf_counter() - began


class _Feeder(asyncio.Protocol):
    """One connection: writes the next request as soon as the last is answered."""

    _transport: asyncio.Transport

    def __init__(self, head: bytes, bodies: Iterator[bytes], left: Iterator[int]) -> None:
        self._head = head
        self._bodies = bodies
        self._left = left
        self._answer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._write_next()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end:
            return
        length = _LENGTH.search(head)
        if length is None or not head.startswith(b"HTTP/1.1 200 "):
            self._end(BenchError(f"not every request succeeded: {self._answer[:500]!r}"))
        elif len(body) >= int(length[1]):
            self._answer = b""
            self._write_next()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._end(BenchError("the system closed a connection"))

    def _write_next(self) -> None:
        if next(self._left, None) is None:
            self._end(None)
            return
        body = next(self._bodies)
        self._transport.writelines([self._head, b"%d\r\n\r\n" % len(body), body])

    def _end(self, error: BenchError | None) -> None:
        if not self.done.done():
            self._transport.close()
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
