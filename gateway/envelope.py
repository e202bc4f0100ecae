"""The values that travel from the receivers to the backend and back."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Envelope(NamedTuple):
    """Spans of one tenant as they came, validated and never parsed again downstream.

    A NamedTuple, not a dataclass: it is made once per request, and costs a third of a frozen
    dataclass to make.
    """

    tenant: str
    """Tenant the spans belong to; empty where the gateway runs without tenants."""
    payload: bytes
    """A serialized ``ExportTraceServiceRequest``. Concatenated payloads are one valid request."""
    spans: int
    """How many spans the payload holds; at least 1."""
    received_at: float
    """Unix time in seconds."""


class Fate(Enum):
    """What became of one delivery, and so what the pipeline does next."""

    DELIVERED = "delivered"
    """The backend said OK. It is durable only after the hold time (docs/durability.md)."""
    RETRY = "retry"
    """The same bytes can succeed later: backend away, busy, misconfigured, out of quota."""
    SPLIT = "split"
    """Too much at once: smaller pieces can succeed."""
    REFUSED = "refused"
    """The same bytes fail for ever."""


class Outcome(NamedTuple):
    """The backend's answer to one delivery."""

    fate: Fate
    code: str = "OK"
    """Name of the gRPC status code, or ``HTTP 503``; a label of ``export_requests_total``."""
    message: str = ""
    retry_after_s: float | None = None
    """Delay that the backend asked for."""
    rejected_spans: int = 0
    """Of a delivery that the backend took only in part."""
    lost_connection: bool = False
    """The connection broke while the delivery was under way; the backend may have died of it."""
