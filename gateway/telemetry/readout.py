"""What this process has to say for ``/metrics``: the table and what the kernel counts of it."""

from __future__ import annotations

import asyncio

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import Metric

from gateway.telemetry.metrics import Metrics


class ReadOut:
    """``gateway_*``, ``gateway_process_*`` and ``python_*`` of one process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._process = CollectorRegistry()
        ProcessCollector(namespace="gateway", registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    async def families(self) -> list[Metric]:
        """As of now."""
        process = await asyncio.to_thread(lambda: list(self._process.collect()))  # reads /proc
        return [*process, *self._metrics.collect()]
