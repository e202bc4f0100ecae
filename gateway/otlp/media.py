"""The two encodings of OTLP, and what decoding a request gives."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

NOTHING: Mapping[str, int] = MappingProxyType({})


class Media(Enum):
    """How a request is encoded; the value is the label ``encoding`` of the metrics."""

    PROTOBUF = "protobuf"
    JSON = "json"


class Decoded(NamedTuple):
    """A request that was taken, wholly or in part."""

    payloads: tuple[tuple[bytes, int], ...] = ()
    """Serialized requests with the number of their spans: only good spans, none without spans,
    each within the limits unless a single span exceeds them.
    """
    accepted: int = 0
    rejected: Mapping[str, int] = NOTHING
    """Refused spans by reason, such as ``{"trace_id_zero": 3}``; empty for a clean request."""
    message: str = ""
    """For ``partial_success``; empty for a clean request."""
    trace_id: str | None = None
    """Of the first refused span, in hex, for the log; cut if it is too long."""
    repairs: Mapping[str, int] = NOTHING
    """Odd but clear JSON values that were taken, by kind."""
