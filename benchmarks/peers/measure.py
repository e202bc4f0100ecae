"""One case at a time: rounds in which each system in turn takes the same load."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.cases import Case, bodies
from benchmarks.peers.load import Load
from benchmarks.peers.processes import System
from benchmarks.peers.sink import Sink

_WARM_UP = {1: 2000, 10: 1500, 100: 300, 512: 80}
_LEAST_REQUESTS, _MOST_REQUESTS = 64, 100_000
_ARRIVAL_S = 60.0
_LATENCY_SHARE = 0.5
"""Latency is measured at this part of the system's own highest rate."""


class Sample(NamedTuple):
    """One system in one round. Its names are the JSON's."""

    cpu_us: float
    """Of all its processes, a request; its spans have then arrived at the sink."""
    per_s: float
    """Requests answered, as fast as they can be."""
    busy: float
    """Part of its core that it used meanwhile: well below 1 the load was the slower one, and
    ``per_s`` is not the system's limit."""
    peak_bytes: float
    p50_ms: float
    p99_ms: float


class Measured(NamedTuple):
    """One case: the samples of each system, round by round."""

    case: Case
    samples: Mapping[str, Sequence[Sample]]

    def median(self, system: str, figure: str) -> float:
        values: list[float] = [getattr(sample, figure) for sample in self.samples[system]]
        return statistics.median(values)

    def ratio(self, system: str, other: str) -> float:
        """Of CPU: the median of the rounds' ratios, since a noisy round is noisy for both."""
        pairs = zip(self.samples[system], self.samples[other], strict=True)
        return statistics.median(one.cpu_us / two.cpu_us for one, two in pairs)


class Bench:
    """Measures cases on running systems."""

    def __init__(
        self,
        systems: Sequence[System],
        sink: Sink,
        directory: Path,
        *,
        runs: int,
        seconds: float,
    ) -> None:
        """``seconds`` is how long each single measurement takes, about."""
        self._systems = systems
        self._sink = sink
        self._directory = directory
        self._runs = runs
        self._seconds = seconds

    def measure(self, case: Case) -> Measured:
        load = Load(case, bodies(case), self._directory)
        rates = {system.name: self._warm_up(case, load, system) for system in self._systems}
        samples: dict[str, list[Sample]] = {system.name: [] for system in self._systems}
        for number in range(self._runs):
            # Nobody goes first each time.
            shift = number % len(self._systems)
            for system in (*self._systems[shift:], *self._systems[:shift]):
                requests = int(rates[system.name] * self._seconds)
                requests = max(_LEAST_REQUESTS, min(requests, _MOST_REQUESTS))
                samples[system.name].append(self._sample(case, load, system, requests))
        return Measured(case, samples)

    def _warm_up(self, case: Case, load: Load, system: System) -> float:
        """Requests per second, roughly."""
        requests = _WARM_UP[case.spans]
        return requests / self._full_speed(case, load, system, requests)

    def _sample(self, case: Case, load: Load, system: System, requests: int) -> Sample:
        system.reset_peak()
        before_s = system.cpu_s()
        took_s = self._full_speed(case, load, system, requests)
        used_s = system.cpu_s() - before_s
        peak_bytes = system.peak_bytes()
        latencies = self._latencies(case, load, system, requests / took_s * _LATENCY_SHARE)
        return Sample(
            cpu_us=used_s / requests * 1e6,
            per_s=requests / took_s,
            busy=used_s / took_s,
            peak_bytes=peak_bytes,
            p50_ms=latencies[len(latencies) // 2],
            p99_ms=latencies[len(latencies) * 99 // 100],
        )

    def _full_speed(self, case: Case, load: Load, system: System, requests: int) -> float:
        """Seconds until all are answered; returns once all spans have arrived."""
        seen = self._sink.spans()
        took_s = load.at_full_speed(system.ports[_port(case)], requests)
        self._sink.wait_for(seen + requests * case.spans, _ARRIVAL_S)
        return took_s

    def _latencies(self, case: Case, load: Load, system: System, per_s: float) -> list[float]:
        seen = self._sink.spans()
        sent, latencies = load.at_rate(system.ports[_port(case)], per_s, self._seconds)
        self._sink.wait_for(seen + sent * case.spans, _ARRIVAL_S)
        return latencies


def _port(case: Case) -> str:
    return "grpc" if case.form == "gRPC" else "http"
