"""What is told of a backend: in the metrics and in the status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.telemetry.metrics import Metrics
from gateway.tempo.backends import Backend


class BackendVoice:
    """Keeps the backend's rows of the table."""

    def __init__(self, backend: Backend, metrics: Metrics) -> None:
        self._backend = backend
        self._metrics = metrics
        metrics.on_scrape(self._refresh)

    @property
    def is_ready(self) -> bool:
        return self._backend.state == "ready"

    def changed(self) -> None:
        """To be told of each change of the backend's state."""
        self._metrics.backend_up.series().value = self.is_ready
        self._metrics.backend_restarts.series().value = self._backend.restarts

    def why_not_ready(self) -> str | None:
        """None where it is."""
        if self.is_ready:
            return None
        return f"the backend is {self._backend.state}: {self._backend.reason}"

    def _refresh(self) -> None:
        metrics, discarded, usage = self._metrics, self._backend.discarded, self._backend.usage
        for reason, spans in discarded.spans.items():
            metrics.backend_discarded_spans.series(reason).value = spans
        metrics.backend_truncated_attributes.series().value = discarded.truncated_attributes
        metrics.backend_memory_bytes.series().value = usage.rss_bytes if usage else 0
        if usage is not None:
            metrics.backend_cpu_seconds.series().value = usage.cpu_s

    def status(self) -> Mapping[str, Any]:
        discarded, usage = self._backend.discarded, self._backend.usage
        return {
            "state": self._backend.state,
            "reason": self._backend.reason,
            "restarts": self._backend.restarts,
            "hold_s": self._backend.hold_s,
            "memory_bytes": usage.rss_bytes if usage else None,
            "cpu_s": usage.cpu_s if usage else None,
            "discarded_spans": discarded.spans,
            "truncated_attributes": discarded.truncated_attributes,
            "last_discard": discarded.last,
        }
