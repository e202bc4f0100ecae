"""See the package's own words."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import __doc__ as about_this
from benchmarks.peers import report, systems, tempo
from benchmarks.peers.cases import CASES
from benchmarks.peers.chart import svg
from benchmarks.peers.measure import Bench, Measured
from benchmarks.peers.processes import BenchError, System, cores, pinned
from benchmarks.peers.sink import Sink


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=about_this,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=5, help="rounds of each case")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="one round of half a second")
    parser.add_argument("--only", default="", help="cases whose name matches, such as 'gRPC, 1$'")
    parser.add_argument("--env", type=_pair, action="append", default=[], help="of the gateway")
    parser.add_argument(
        "--variant",
        type=_pair,
        action="append",
        default=[],
        help="measure a second gateway that has this setting, too",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--page", type=Path, help="a Markdown page that has a place for figures")
    return parser.parse_args()


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("write NAME=VALUE")
    return name, value


def main() -> None:
    chosen = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all children are ended
    if chosen.quick:
        chosen.runs, chosen.seconds = 1, 0.5
    try:
        run(chosen)
    except BenchError as error:
        raise SystemExit(str(error)) from error


def run(chosen: argparse.Namespace) -> None:
    systems.check_tools()
    system_core, load_core = cores()
    about = report.facts()
    with tempfile.TemporaryDirectory(prefix="peers-") as name, pinned(load_core):
        directory = Path(name)
        measured = list(_side_by_side(chosen, directory, system_core, load_core))
        behind = _behind(directory, system_core, chosen.runs)
    told = report.markdown(measured, tempo.markdown(behind) if behind else "", about)
    print(f"\n{told}")
    if chosen.json:
        chosen.json.write_text(report.as_json(measured, behind, about))
    names = list(measured[0].samples)
    if chosen.svg and report.YARDSTICK in names:
        names.remove(report.YARDSTICK)
        chosen.svg.write_text(svg(report.order(measured), names))
    if chosen.page:
        report.put_into_page(chosen.page, told)


def _behind(directory: Path, core: int, runs: int) -> list[tempo.Round]:
    """Empty where there is no Tempo, or its part failed: the rest of a long run is told all the
    same.
    """
    try:
        return tempo.measure(directory, core, runs) if tempo.wanted() else []
    except BenchError as error:
        print(f"Tempo could not be measured: {error}", file=sys.stderr)
        return []


def _side_by_side(
    chosen: argparse.Namespace, directory: Path, system_core: int, load_core: int
) -> Iterator[Measured]:
    """Measure each case, telling of it on standard error as it goes."""
    with contextlib.ExitStack() as undo:
        sink = Sink(load_core)
        undo.callback(sink.stop)
        started = list(_start(chosen, directory, system_core, sink, undo))
        bench = Bench(started, sink, directory, runs=chosen.runs, seconds=chosen.seconds)
        cases = [case for case in CASES if re.search(chosen.only, case.name)]
        if not cases:
            raise BenchError("no case matches; names are such as 'HTTP JSON, gzip, 512'")
        for case in cases:
            measured = bench.measure(case)
            costs = [f"{name} {measured.median(name, 'cpu_us'):.1f}" for name in measured.samples]
            print(f"{case.name} spans: CPU us a request: {', '.join(costs)}", file=sys.stderr)
            yield measured


def _start(
    chosen: argparse.Namespace,
    directory: Path,
    core: int,
    sink: Sink,
    undo: contextlib.ExitStack,
) -> Iterator[System]:
    def started(system: System) -> System:
        undo.callback(system.stop)
        system.wait_until_listening()
        return system

    env = systems.before_sink(sink.port) | dict(chosen.env)
    yield started(systems.gateway("gateway", directory, core, env))
    for name, value in chosen.variant:
        named = f"gateway {name}={value}"
        yield started(systems.gateway(named, directory, core, env | {name: value}))
    yield started(systems.rotel(directory, core, sink.port))
    if binary := os.environ.get("OTELCOL_BIN"):
        yield started(systems.collector(binary, directory, core, sink.port))


if __name__ == "__main__":
    main()
