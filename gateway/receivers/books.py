"""What the operator sees of each request: counters, durations and the line ``otlp rejected``."""

from __future__ import annotations

import logging
from typing import NamedTuple

from gateway.errors import Cause, Refused
from gateway.otlp.media import Decoded, Media
from gateway.telemetry.logs import Throttle, facts
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

TRANSPORTS = ("http", "grpc")
_MESSAGE_CHARS = 300


class Sender(NamedTuple):
    """Who sent a request, as far as the log tells."""

    transport: str
    """``http`` or ``grpc``: the metric label."""
    peer: str
    """Address and port of the other end of the connection."""
    request_id: str | None = None
    """X-Request-ID, as a router in front sets it."""


class Books:
    """Counts every answer; logs refusals and bad spans, each reason at most every 10 s."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._received = {
            (transport, media): metrics.received_spans.series(transport, media.value)
            for transport in TRANSPORTS
            for media in Media
        }
        self._accepted = metrics.accepted_spans.series()
        self._recovered = metrics.recovered_spans.series()
        self._refused = {
            cause: metrics.refused_requests.series(cause.value.reason) for cause in Cause
        }
        self._durations = {
            transport: metrics.request_duration.series(transport) for transport in TRANSPORTS
        }
        self._clean = {
            transport: (self._received[transport, Media.PROTOBUF], self._durations[transport])
            for transport in TRANSPORTS
        }
        self._throttle = Throttle()

    def clean(self, transport: str, spans: int, seconds: float) -> None:
        """The same as ``success`` and ``duration``, of protobuf without anything to remark."""
        received, durations = self._clean[transport]
        received.value += spans
        self._accepted.value += spans
        durations.observe(seconds)

    def success(self, sender: Sender, media: Media, decoded: Decoded) -> None:
        """The client was told that ``decoded.accepted`` spans are taken and the others are not."""
        self._received[sender.transport, media].value += decoded.accepted
        self._accepted.value += decoded.accepted
        self._details(sender, media, decoded)

    def handover(self, sender: Sender, media: Media, decoded: Decoded) -> None:
        """A gateway that stops was told so. It had counted the spans as accepted already."""
        self._recovered.value += decoded.accepted
        self._details(sender, media, decoded)
        if (quiet := self._throttle.ready("handover")) is not None:
            told = facts(spans=decoded.accepted, peer=sender.peer, like_it=quiet or None)
            logger.info("handover taken", extra=told)

    def _details(self, sender: Sender, media: Media, decoded: Decoded) -> None:
        for kind, count in decoded.repairs.items():
            self._metrics.repaired_values.series(kind).value += count
        for reason, count in decoded.rejected.items():
            self._received[sender.transport, media].value += count
            self._metrics.rejected_spans.series(reason).value += count
            self._log(sender, reason, decoded.message, count=count, trace_id=decoded.trace_id)

    def refusal(self, sender: Sender, refused: Refused) -> None:
        """The client was told that its whole request is refused."""
        self._refused[refused.cause].value += 1
        self._log(sender, refused.cause.value.reason, refused.message)

    def duration(self, transport: str, seconds: float) -> None:
        """From the whole request read to its answer."""
        self._durations[transport].observe(seconds)

    def _log(
        self,
        sender: Sender,
        reason: str,
        message: str,
        *,
        count: int | None = None,
        trace_id: str | None = None,
    ) -> None:
        quiet = self._throttle.ready(reason)
        if quiet is None:
            return
        logger.warning(
            "otlp rejected",
            extra=facts(
                reason=reason,
                count=count,
                transport=sender.transport,
                peer=sender.peer,
                trace_id=trace_id or None,
                request_id=sender.request_id and sender.request_id[:_MESSAGE_CHARS],
                message=message[:_MESSAGE_CHARS],
                like_it=quiet or None,
            ),
        )
