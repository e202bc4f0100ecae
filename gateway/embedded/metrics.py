"""Metrics under the names that Tempo gives to the same things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.embedded.writer import Counts

SINGLE_TENANT = "single-tenant"


class Metrics(Collector):
    def __init__(self, counts: Counts, used_bytes: Callable[[], int], version: str) -> None:
        self.queries: Counter[str] = Counter()
        """By operation: search or traces."""
        self.registry = CollectorRegistry()
        self._counts = counts
        self._used_bytes = used_bytes
        self._version = version
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield _counter(
            "tempo_distributor_spans_received",
            "Spans stored since the start.",
            "tenant",
            {tenant or SINGLE_TENANT: count for tenant, count in self._counts.spans.items()},
        )
        yield _counter(
            "tempo_distributor_bytes_received",
            "Bytes of the requests stored since the start.",
            "tenant",
            {tenant or SINGLE_TENANT: count for tenant, count in self._counts.bytes.items()},
        )
        yield _counter(
            "tempo_query_frontend_queries",
            "Queries since the start.",
            "op",
            {"search": 0, "traces": 0} | self.queries,
        )
        yield GaugeMetricFamily(
            "tempo_embedded_store_bytes", "Bytes that traces take on disk.", self._used_bytes()
        )
        build = GaugeMetricFamily(
            "tempo_build_info", "What answers here.", labels=("version", "branch")
        )
        build.add_metric((self._version, "embedded"), 1)
        yield build


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family
