"""What a gateway takes before it has done anything: time to start, and memory when idle.

python -m benchmarks.start [--rounds N]

The time is from the start of the process until both ports accept; the disk's cache is warm.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.processes import HOST, BenchError, System
from benchmarks.peers.systems import before_sink, gateway

IDLE_CONNECTIONS = 1000
SETTLE_S = 1.0
HTTP1 = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
HTTP1 += b"Content-Length: 0\r\n\r\n"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
MIB = 2**20


class Sample(NamedTuple):
    """One start."""

    start_s: float
    cpu_s: float
    """Of all its processes, until it accepted."""
    idle_mib: float
    """Resident in all its processes."""
    http_mib: float
    """More with a thousand idle connections of HTTP/1.1, each of which has sent a request."""
    grpc_mib: float
    """The same with as many of HTTP/2 that have sent their preface."""


def resident_mib(system: System) -> float:
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in system.pids)
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / MIB


def sample(directory: Path, workers: int) -> Sample:
    env = before_sink(9) | {"WEB_CONCURRENCY": str(workers)}  # nobody is there, nor needed
    began = time.perf_counter()
    system = gateway("gateway", directory, os.sched_getaffinity(0), env)
    try:
        with ExitStack() as stack:
            system.wait_until_listening()
            start_s, cpu_s = time.perf_counter() - began, system.cpu_s()
            time.sleep(SETTLE_S)
            sizes = [resident_mib(system)]
            for protocol, first in (("http", HTTP1), ("grpc", HTTP2)):
                for _ in range(IDLE_CONNECTIONS):
                    address = (HOST, system.ports[protocol])
                    connection = stack.enter_context(socket.create_connection(address))
                    connection.sendall(first)
                    connection.recv(2**16)
                sizes.append(resident_mib(system))
    finally:
        system.stop()
    idle, http, grpc = sizes
    return Sample(start_s, cpu_s, idle, http - idle, grpc - http)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    print(f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}")
    print("| workers | accepting after s | CPU s | idle MiB | + 1000 HTTP/1.1 | + 1000 HTTP/2 |")
    print("|" + " --- |" * 6, flush=True)
    try:
        for workers in (1, 2):
            samples = []
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory() as folder:
                    samples.append(sample(Path(folder), workers))
            medians = [statistics.median(values) for values in zip(*samples, strict=True)]
            least = min(each.start_s for each in samples)
            told = [f"{medians[0]:.2f} (best {least:.2f})", f"{medians[1]:.2f}"]
            told += [f"{value:.1f}" for value in medians[2:]]
            print(f"| {workers} | " + " | ".join(told) + " |", flush=True)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
