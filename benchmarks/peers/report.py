"""What came out: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.cases import FORMS, SIZES
from benchmarks.peers.measure import Measured

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- figures: make bench -->", "<!-- end of figures -->"
YARDSTICK = "rotel"

TARGETS = {
    "gRPC": (1.0, 0.6, 0.25, 0.25),
    "HTTP protobuf": (1.0, 0.8, 0.30, 0.20),
    "HTTP JSON": (1.5, 1.2, 0.8, 0.7),
}
"""CPU of a request, as a part of Rotel's, at 1, 10, 100 and 512 spans, not compressed."""


def facts() -> dict[str, Any]:
    """Where and when this was measured."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--", "gateway").splitlines()),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)  # noqa: PLW1510 - a copy without history is fine
    return done.stdout.rstrip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def as_json(measured: Iterable[Measured], tempo: object, about: Mapping[str, Any]) -> str:
    cases = [
        {
            **each.case._asdict(),
            "samples": {n: [s._asdict() for s in each.samples[n]] for n in each.samples},
        }
        for each in measured
    ]
    return json.dumps({"about": about, "cases": cases, "tempo": tempo}, indent=1) + "\n"


def markdown(measured: Sequence[Measured], tempo: str, about: Mapping[str, Any]) -> str:
    """The tables of one run."""
    systems = list(measured[0].samples)
    changed = " and uncommitted changes" if about["changed_files"] else ""
    said = (
        f"Commit {about['commit']}{changed}, {about['date']}, {about['cores']} cores of"
        f" {about['cpu']}, Linux {about['kernel']}, Python {about['python']},"
        f" {len(measured[0].samples[systems[0]])} rounds, medians;"
        f" load average at the start {about['load_average']:.1f}."
    )
    parts = [said, _ratios(measured, systems), _costs(measured, systems), _loads(measured, systems)]
    return "\n\n".join([*parts, *([tempo] if tempo else [])]) + "\n"


def _ratios(measured: Sequence[Measured], systems: Sequence[str]) -> str:
    """Each system's CPU a request as a part of the yardstick's; in brackets what is aimed at."""
    if YARDSTICK not in systems:
        return "Rotel was not measured."
    found = {(each.case.title, each.case.spans): each for each in measured}
    rows = []
    for title in dict.fromkeys(each.case.title for each in measured):
        for system in systems:
            if system != YARDSTICK:
                cells = [_ratio(found.get((title, spans)), system) for spans in SIZES]
                rows.append([title, system, *cells])
    heads = ["CPU a request, Rotel = 1", "", *(_spans(spans) for spans in SIZES)]
    return _table(heads, rows)


def _ratio(each: Measured | None, system: str) -> str:
    if each is None:
        return ""
    ratio = f"{each.ratio(system, YARDSTICK):.2f}"
    if each.case.gzip or system != "gateway":
        return ratio
    target = TARGETS[each.case.form][SIZES.index(each.case.spans)]
    return f"{ratio} (≤ {target:g})"


def _costs(measured: Sequence[Measured], systems: Sequence[str]) -> str:
    heads = ["CPU us", "spans"]
    heads += [f"{system}, {unit}" for system in systems for unit in ("request", "span")]
    rows = []
    for each in measured:
        cells = []
        for system in systems:
            cpu_us = each.median(system, "cpu_us")
            cells += [f"{cpu_us:.0f}", f"{cpu_us / each.case.spans:.1f}"]
        rows.append([each.case.title, str(each.case.spans), *cells])
    return _table(heads, rows)


def _loads(measured: Sequence[Measured], systems: Sequence[str]) -> str:
    """Rate, memory and latency. A rate with a tilde was limited by the load, not the system."""
    units = ("requests/s", "p50 / p99 ms", "MiB")
    heads = ["at full speed; latency at half of it", "spans"]
    heads += [f"{system}, {unit}" for system in systems for unit in units]
    rows = []
    for each in measured:
        cells = []
        for system in systems:
            limited = "~" if each.median(system, "busy") < 0.85 else ""
            latency = f"{each.median(system, 'p50_ms'):.1f} / {each.median(system, 'p99_ms'):.1f}"
            peak = each.median(system, "peak_bytes") / 2**20
            cells += [f"{limited}{each.median(system, 'per_s'):.0f}", latency, f"{peak:.0f}"]
        rows.append([each.case.title, str(each.case.spans), *cells])
    return _table(heads, rows)


def _spans(count: int) -> str:
    return f"{count} span{'s' if count > 1 else ''}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def put_into_page(page: Path, figures: str) -> None:
    """Replace what stands between the two marks."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for figures: {BEGIN} ... {END}")
    page.write_text(f"{before}{BEGIN}\n\n{figures}\n{END}{after}")


def order(measured: Iterable[Measured]) -> dict[str, list[Measured]]:
    """By form, not compressed, by size: what the chart shows."""
    found: dict[str, list[Measured]] = {form: [] for form in FORMS}
    for each in measured:
        if not each.case.gzip:
            found[each.case.form].append(each)
    return {form: cases for form, cases in found.items() if cases}
