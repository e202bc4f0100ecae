"""A backend that is somebody else's: a Tempo elsewhere, or another gateway."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from gateway.access.outbound import is_address, proxy_for, trusted_roots
from gateway.lifecycle import Tasks
from gateway.settings import Settings
from gateway.telemetry.logs import facts
from gateway.tempo.balance import BalancedExporter
from gateway.tempo.client import (
    MAX_MESSAGE_BYTES,
    TENANT_KEY,
    HeadersOf,
    OtlpExporter,
    make_exporter,
    port_of,
    speaks_grpc,
)
from gateway.tempo.discards import NONE_DISCARDED
from gateway.tempo.failures import FailureWatch
from gateway.tempo.losses import Losses
from gateway.tempo.names import Lookup, NamedExporter, look_up
from gateway.tempo.probe import Probe

logger = logging.getLogger(__name__)

LOOK_S = 2.0
"""Between two looks at the query side, and at how deliveries do."""

FAILING_AFTER_S = 10.0
"""Deliveries that fail for less are what retries are for."""


class ExternalBackend:
    """Of its life little is known: whether its query side says that it is ready, where there is
    one, and whether deliveries succeed. With a hold time each loss of it counts as a death.
    """

    restarts = 0
    usage = None
    discarded = NONE_DISCARDED
    max_message_bytes = MAX_MESSAGE_BYTES

    def __init__(
        self,
        exporter: OtlpExporter,
        *,
        mode: str = "external",
        query_url: str | None = None,
        hold_s: float = 0.0,
        losses: Losses | None = None,
        clock: Callable[[], float] = time.monotonic,
        default_tenant: str = "",
    ) -> None:
        self.mode = mode
        self.default_tenant = default_tenant
        self.hold_s = hold_s
        self.base_url = self.streaming_url = query_url
        if query_url is not None and query_url.startswith("https:"):
            trusted_roots()  # for streamed queries; read now, before anybody is served
        self._losses = losses or Losses()
        self._failures = FailureWatch(exporter, clock)
        self.exporter: OtlpExporter = self._failures
        self._changed: Callable[[], None] = lambda: None
        self._probe = None if query_url is None else Probe(query_url)
        self._tasks = Tasks("external")
        self._told = ""

    @property
    def state(self) -> str:
        """``starting`` until its query side was asked for the first time; ``failing`` while it
        takes no deliveries, ``away`` while its query side does not answer as it should, else
        ``ready``.
        """
        if self._failures.seconds > FAILING_AFTER_S:
            return "failing"
        if self._probe is not None and self._probe.fault is None:
            return "starting"
        return "away" if self._probe is not None and self._probe.fault else "ready"

    @property
    def reason(self) -> str:
        query = self._query_fault()
        if self._failures.seconds > FAILING_AFTER_S:
            told = f"no delivery for {self._failures.seconds:.0f} s: {self._failures.last}"
            return f"{told}; {query}" if query else told
        return query

    def _query_fault(self) -> str:
        if self._probe is None:
            return "" if self.mode == "relay" else "TEMPO_QUERY_URL is not set"
        return "it has not answered yet" if self._probe.fault is None else self._probe.fault

    @property
    def generation(self) -> int:
        return self._losses.count if self.hold_s else 0

    def alive_s(self) -> float:
        return time.monotonic()

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._tell()
        self._tasks.spawn(self._watch(), "watch")

    async def _watch(self) -> None:
        while True:
            if self._probe is not None:
                await self._probe.look()
            self._tell()
            await asyncio.sleep(LOOK_S)

    def _tell(self) -> None:
        """Of a change, if there is one."""
        before, self._told = self._told, self.state
        if self._told == before:
            return
        if before:
            say = logger.info if self._told == "ready" else logger.warning
            say("backend", extra=facts(state=self._told, reason=self.reason or None))
        self._changed()

    async def stop(self, timeout_s: float) -> bool:  # noqa: ARG002 - the shape of a backend
        """It lives on, so what it holds in memory is certain only when its time has come."""
        await self._tasks.stop()
        if self._probe is not None:
            await self._probe.close()
        await self.exporter.close()
        return not self.hold_s


def external_tempo(settings: Settings, *, mode: str = "external") -> ExternalBackend:
    """The one at TEMPO_OTLP_ENDPOINT."""
    losses = Losses()
    exporter = deliver_to(
        settings.tempo_otlp_endpoint, lambda *_: settings.tempo_otlp_headers, watch=losses.watch
    )
    return ExternalBackend(
        exporter,
        mode=mode,
        query_url=settings.tempo_query_url if mode == "external" else None,
        hold_s=settings.hold_time_s or 0.0,
        losses=losses,
        # Where deliveries of no tenant go, queries that name none are to look.
        default_tenant=dict(settings.tempo_otlp_headers).get(TENANT_KEY, ""),
    )


def deliver_to(
    urls: Sequence[str],
    headers: HeadersOf,
    *,
    lookup: Lookup = look_up,
    watch: Callable[[OtlpExporter], OtlpExporter] = lambda exporter: exporter,
) -> OtlpExporter:
    """One exporter to all of these, and to all the addresses of each; ``watch`` is put round the
    exporter to each single address.
    """
    logger.info("delivering", extra=facts(endpoints=",".join(map(without_credentials, urls))))
    exporters = {url: _deliver_to_one(url, headers, lookup, watch) for url in urls}
    return BalancedExporter(exporters) if len(exporters) > 1 else exporters[urls[0]]


def _deliver_to_one(
    url: str,
    headers: HeadersOf,
    lookup: Lookup,
    watch: Callable[[OtlpExporter], OtlpExporter],
) -> OtlpExporter:
    host = urlsplit(url).hostname or "localhost"
    if is_address(host) or proxy_for(url) is not None:  # a proxy looks names up itself
        return watch(make_exporter(url, headers))
    if url.startswith("https:") and speaks_grpc(url):
        trusted_roots()  # read from disk now, and not when an address is found
    return NamedExporter(
        host,
        port_of(url),
        lambda address: watch(make_exporter(url, headers, connect_to=address)),
        lookup=lookup,
    )


def without_credentials(url: str) -> str:
    """The URL as it may be logged."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
