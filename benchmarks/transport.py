"""What a transport costs: CPU per request of our front door, aiohttp and grpcio's server.

    python -m benchmarks.transport [--spans 1] [--requests 40000] [--clients 8] [--json FILE]

The server runs in a child process on one core, ``h2load`` (Debian: nghttp2-client) on another. All
transports feed the same ``Ingest`` over an intake that settles at once, so the figures are the
transport and the ingest; ``ingest alone`` is the ingest called in a loop, by its long and its short
way, and ``sockets only`` a protocol that answers every read with a constant: one read and one write
for a request. (gRPC shares them among the ``--streams`` calls that a client sends at once.) Ratios
count, absolute times do not: compare within one run. Every run checks that all spans arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from gateway.access.budget import MemoryBudget
from gateway.receivers import whole
from gateway.receivers.books import Sender
from gateway.receivers.frontdoor.door import FrontDoor
from gateway.receivers.grpc import GrpcServer
from gateway.receivers.http import add_routes, make_runner
from gateway.receivers.ingest import Head, Ingest, Limits
from gateway.receivers.replies import Reply
from gateway.telemetry.metrics import Metrics
from tests.kit.spans import make_payload

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_ONE_READ_BYTES = 4096
"""A request of at most this size comes in one read."""

CASES = {
    "grpc, front door": ("door", "grpc"),
    "grpc, grpcio": ("grpcio", "grpc"),
    "http, front door": ("door", "http"),
    "http, aiohttp": ("aiohttp", "http"),
    "http, sockets only": ("bare", "http"),
}


class CountingIntake:
    """Takes everything at once."""

    def __init__(self) -> None:
        self.spans = 0

    def offer(self, envelopes: Sequence[Any], settled: Callable[[None], None]) -> None:
        self.spans += sum(envelope.spans for envelope in envelopes)
        settled(None)


class Bare(asyncio.Protocol):
    """Answers every read, whatever it was."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
        )


def make_ingest(intake: CountingIntake) -> Ingest:
    limits = Limits(64 * 2**20, 8192, 3 * 2**20)
    budget = MemoryBudget(256 * 2**20)
    return Ingest(intake=intake, budget=budget, metrics=Metrics(), limits=limits)


async def serve(kind: str) -> None:
    """Serve until standard input ends; print the port, then per line read CPU seconds and spans."""
    intake = CountingIntake()
    ingest = make_ingest(intake)
    app = web.Application()
    add_routes(app, ingest)
    runner = make_runner(app)
    await runner.setup()
    if kind == "aiohttp":
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        port = runner.addresses[0][1]
    elif kind == "grpcio":
        server = GrpcServer(ingest, host=HOST, port=0, max_request_bytes=64 * 2**20, handlers={})
        port = await server.start()
    elif kind == "bare":
        listener = await asyncio.get_running_loop().create_server(Bare, HOST, 0)
        port = listener.sockets[0].getsockname()[1]
    else:
        assert runner.server is not None
        door = FrontDoor(ingest, general=runner.server, handlers={})
        port = await door.start(HOST, 0)
    print(port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(usage.ru_utime + usage.ru_stime, intake.spans, usage.ru_maxrss, flush=True)


class Server:
    """The child process."""

    def __init__(self, kind: str, core: int) -> None:
        command = [sys.executable, "-m", "benchmarks.transport", "--serve", kind]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        os.sched_setaffinity(self._process.pid, {core})
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def usage(self) -> tuple[float, int, int]:
        """CPU seconds, spans taken, peak RSS in KiB."""
        assert self._process.stdin is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        cpu_s, spans, rss = self._line().split()
        return float(cpu_s), int(spans), int(rss)

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def load_command(port: int, what: str, body: Path, arguments: argparse.Namespace) -> list[str]:
    common = ["h2load", f"-n{arguments.requests}", f"-c{arguments.clients}", f"-d{body}"]
    if what == "grpc":
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        return [*common, f"-m{arguments.streams}", *headers, f"http://{HOST}:{port}{EXPORT}"]
    headers = ["-H", "content-type: application/x-protobuf"]
    return [*common, "--h1", *headers, f"http://{HOST}:{port}/v1/traces"]


def measure(server: Server, what: str, payload: bytes, arguments: argparse.Namespace) -> float:
    """CPU us per request of one run."""
    body = payload if what == "http" else b"\0" + len(payload).to_bytes(4, "big") + payload
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = load_command(server.port, what, Path(file.name), arguments)
        cpu_s, spans, _ = server.usage()
        done = subprocess.run(
            ["taskset", "-c", str(arguments.load_core), *command],
            capture_output=True,
            text=True,
            check=True,
        )
    cpu_after_s, spans_after, _ = server.usage()
    if spans_after and spans_after - spans != arguments.requests * arguments.spans:
        raise SystemExit(f"{spans_after - spans} spans arrived:\n{done.stdout}")
    if not re.search(r" 0 failed, 0 errored", done.stdout):
        raise SystemExit(done.stdout)
    return (cpu_after_s - cpu_s) / arguments.requests * 1e6


def ingest_alone(payload: bytes, count: int, *, short: bool) -> float:
    """CPU us per request of ``Ingest`` in a loop."""

    async def run() -> float:
        ingest = make_ingest(CountingIntake())
        head = Head(Sender("grpc", "127.0.0.1:1"), "POST", EXPORT, "application/x-protobuf")
        passed = whole.judge(ingest, head)
        began = time.process_time()
        for _ in range(count):
            if short and passed is not None:
                whole.take(ingest, passed, payload, _ignore)
            else:
                exchange = ingest.begin(head, _ignore)
                exchange.feed(payload)
                exchange.end()
        return (time.process_time() - began) / count * 1e6

    return asyncio.run(run())


def _ignore(_reply: Reply) -> None:
    """Nobody is told."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve")
    parser.add_argument("--spans", type=int, default=1)
    parser.add_argument("--requests", type=int, default=40000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve(arguments.serve))
        return
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed (Debian: apt-get install nghttp2-client)")
    report(arguments)


def report(arguments: argparse.Namespace) -> None:

    payload = make_payload(arguments.spans)
    count = 20000 // arguments.spans + 1
    figures = {
        "ingest alone": [ingest_alone(payload, count, short=False) for _ in range(arguments.runs)],
        "ingest, short way": [
            ingest_alone(payload, count, short=True) for _ in range(arguments.runs)
        ],
    }
    for name, (kind, what) in CASES.items():
        if arguments.only not in name or (kind == "bare" and len(payload) > _ONE_READ_BYTES):
            continue
        server = Server(kind, arguments.core)
        try:
            figures[name] = [
                measure(server, what, payload, arguments) for _ in range(arguments.runs)
            ]
        finally:
            server.stop()
    print(f"CPU us per request, {arguments.spans} spans, {len(payload)} bytes, median of runs")
    for name, values in figures.items():
        print(
            f"{name:20} {statistics.median(values):9.1f}   " + " ".join(f"{v:.1f}" for v in values)
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
