"""One worker against several: CPU of a request, and requests per second.

python -m benchmarks.workers [--workers N] [--rounds N] [--seconds S] [--share F] [CASE ...]

Each gateway has all cores of the machine, which it shares with the load (h2load) and the sink, and
they are measured in turn. Where other work is on the cores, the rates tell more of that than of the
gateway; CPU of a request does not depend on it as much. ``--share 0.1`` lets each worker have a
tenth of a core and not more (``quota``), so that one and two do not compete for it. The load has 32
connections for each worker, so that the kernel's way of sharing them out by their addresses leaves
none much behind.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.cases import Case, bodies
from benchmarks.peers.load import Load
from benchmarks.peers.processes import HOST, BenchError, System
from benchmarks.peers.sink import Sink
from benchmarks.peers.systems import before_sink, check_tools, gateway
from benchmarks.quota import limited

CONNECTIONS = 32
"""For each worker: requests that come together share the work of being written and answered, so a
worker with half of the connections would cost more for that alone."""
WARM_UP_REQUESTS = 500
ARRIVAL_S = 60.0
CASES = [Case("gRPC", False, 1), Case("HTTP protobuf", False, 1)]
CASES += [Case(form, False, spans) for form in ("gRPC", "HTTP protobuf") for spans in (100, 512)]


class Sample(NamedTuple):
    """One measurement."""

    cpu_us: float
    """Of all processes of the gateway, a request."""
    per_s: float
    cores: float
    """How many it had, on average."""


def sample(case: Case, load: Load, system: System, sink: Sink, *, requests: int) -> Sample:
    port = system.ports["grpc" if case.form == "gRPC" else "http"]
    before_s, seen = system.cpu_s(), sink.spans()
    took_s = load.at_full_speed(port, requests)
    sink.wait_for(seen + requests * case.spans, ARRIVAL_S)
    used_s = system.cpu_s() - before_s
    return Sample(used_s / requests * 1e6, requests / took_s, used_s / took_s)


def measure(
    case: Case, loads: Sequence[tuple[System, Load]], sink: Sink, *, rounds: int, seconds: float
) -> list[list[Sample]]:
    """Samples by system. Both orders take turns."""
    warm = [sample(case, load, system, sink, requests=WARM_UP_REQUESTS) for system, load in loads]
    taken: list[list[Sample]] = [[] for _ in loads]
    for number in range(rounds):
        order = list(enumerate(loads))
        for index, (system, load) in order if number % 2 else reversed(order):
            requests = max(WARM_UP_REQUESTS, int(warm[index].per_s * seconds))
            taken[index].append(sample(case, load, system, sink, requests=requests))
    return taken


def row(case: Case, one: Sequence[Sample], several: Sequence[Sample]) -> str:
    def median(samples: Sequence[Sample], figure: str) -> float:
        return statistics.median(getattr(each, figure) for each in samples)

    pairs = list(zip(one, several, strict=True))
    cpu = statistics.median(b.cpu_us / a.cpu_us for a, b in pairs)
    rate = statistics.median(b.per_s / a.per_s for a, b in pairs)
    told = [
        case.form,
        str(case.spans),
        *(f"{median(samples, 'cpu_us'):.0f}" for samples in (one, several)),
        f"{cpu:.2f}",
        *(f"{median(samples, 'per_s'):.0f}" for samples in (one, several)),
        f"{rate:.2f}",
        *(f"{median(samples, 'cores'):.2f}" for samples in (one, several)),
    ]
    return "| " + " | ".join(told) + " |"


def workers_of(system: System) -> list[int]:
    """Its processes that take spans."""
    url = f"http://{HOST}:{system.ports['http']}/gateway/status"
    with urllib.request.urlopen(url, timeout=10) as answer:
        pids: list[int] = json.load(answer)["workers"].get("pids", [system.process.pid])
    return pids


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement, about")
    parser.add_argument("--share", type=float, help="most of a core that each worker may use")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="such as 'gRPC, 100'")
    options = parser.parse_args(arguments)
    cases = [case for case in CASES if not options.cases or case.name in options.cases]
    try:
        check_tools()
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            compare(cases, Path(folder), stack, options)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def compare(
    cases: Sequence[Case], directory: Path, stack: ExitStack, options: argparse.Namespace
) -> None:
    """Print the table. What is started is stopped by ``stack``."""
    cores = os.sched_getaffinity(0)
    sink = Sink(cores)
    stack.callback(sink.stop)
    systems = []
    for name, count in (("one", 1), ("several", options.workers)):
        env = before_sink(sink.port) | {"WEB_CONCURRENCY": str(count)}
        system = gateway(name, directory, cores, env)
        systems.append(system)
        wait = ExitStack()  # a quota ends when its processes have
        stack.push(wait)
        stack.callback(system.stop)
        system.wait_until_listening()
        if options.share is not None:
            wait.enter_context(limited(workers_of(system), options.share))
    had = f", each with {options.share} of a core" if options.share is not None else ""
    print(f"{len(cores)} cores, load average {os.getloadavg()[0]:.1f};", end=" ")
    print(f"1 worker against {options.workers}{had}")
    print("| | spans | CPU us | | ratio | requests/s | | ratio | cores | |")
    print("|" + " --- |" * 10, flush=True)
    for case in cases:
        loads = [
            (system, Load(case, bodies(case), directory, connections=CONNECTIONS * count))
            for system, count in zip(systems, (1, options.workers), strict=True)
        ]
        taken = measure(case, loads, sink, rounds=options.rounds, seconds=options.seconds)
        print(row(case, *taken), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
