"""A backend that is somebody else's: a Tempo elsewhere, or another gateway."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from gateway.settings import Settings
from gateway.telemetry.logs import facts
from gateway.tempo.balance import BalancedExporter
from gateway.tempo.client import MAX_MESSAGE_BYTES, HeadersOf, OtlpExporter, make_exporter
from gateway.tempo.discards import NONE_DISCARDED
from gateway.tempo.losses import WatchedExporter

logger = logging.getLogger(__name__)


class ExternalBackend:
    """Little is known of its life: it counts as alive and ready, and with a hold time each loss of
    it as a death.
    """

    state = "ready"
    reason = ""
    restarts = 0
    usage = None
    discarded = NONE_DISCARDED
    max_message_bytes = MAX_MESSAGE_BYTES
    default_tenant = ""

    def __init__(
        self,
        exporter: OtlpExporter,
        *,
        mode: str = "external",
        query_url: str | None = None,
        hold_s: float = 0.0,
    ) -> None:
        self.mode = mode
        self.exporter = exporter
        self.hold_s = hold_s
        self._watched: WatchedExporter | None = None
        if hold_s:
            self.exporter = self._watched = WatchedExporter(exporter)
        self.base_url = query_url

    @property
    def generation(self) -> int:
        return self._watched.losses if self._watched is not None else 0

    def alive_s(self) -> float:
        return time.monotonic()

    def start(self, changed: Callable[[], None]) -> None:
        changed()

    async def stop(self, timeout_s: float) -> bool:  # noqa: ARG002 - the shape of a backend
        """It lives on, so what it holds in memory is certain only when its time has come."""
        await self.exporter.close()
        return not self.hold_s


def external_tempo(settings: Settings, *, mode: str = "external") -> ExternalBackend:
    """The one at TEMPO_OTLP_ENDPOINT."""
    return ExternalBackend(
        deliver_to(settings.tempo_otlp_endpoint, lambda *_: settings.tempo_otlp_headers),
        mode=mode,
        query_url=settings.tempo_query_url,
        hold_s=settings.hold_time_s or 0.0,
    )


def deliver_to(urls: Sequence[str], headers: HeadersOf) -> OtlpExporter:
    """One exporter to all of these."""
    exporters = [make_exporter(url, headers) for url in urls]
    logger.info("delivering", extra=facts(endpoints=",".join(map(without_credentials, urls))))
    return exporters[0] if len(exporters) == 1 else BalancedExporter(exporters)


def without_credentials(url: str) -> str:
    """The URL as it may be logged."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
