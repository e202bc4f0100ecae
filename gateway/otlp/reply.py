"""What the gateway answers, and what it reads in a backend's answers.

Success and partial success are an ``ExportTraceServiceResponse``, failures a ``google.rpc.Status``
with a ``google.rpc.RetryInfo`` where a retry makes sense, in the media type of the request
(OTLP specification, "OTLP/HTTP Response").
"""

from __future__ import annotations

import json

from google.protobuf.message import DecodeError

from gateway.errors import Refused
from gateway.otlp.media import Decoded, Media
from proto_stubs.answers_pb2 import (
    Detail,
    Duration,
    ExportResponse,
    PartialSuccess,
    RetryInfo,
    Status,
)

MAX_MESSAGE_BYTES = 4096
"""Answers stay small: the specification asks for less than 4 MiB, proxies for less than a page."""

RETRY_INFO_TYPE = "type.googleapis.com/google.rpc.RetryInfo"

_CLEAN = {Media.PROTOBUF: ExportResponse().SerializeToString(), Media.JSON: b"{}"}
"""Success leaves ``partial_success`` unset."""


def success(media: Media, decoded: Decoded) -> bytes:
    """The body of a success; a partial one where spans were refused."""
    if not decoded.message:
        return _CLEAN[media]
    rejected, message = sum(decoded.rejected.values()), _short(decoded.message)
    if media is Media.JSON:
        # Proto3 JSON writes 64-bit integers as strings.
        told = {"rejectedSpans": str(rejected), "errorMessage": message}
        return json.dumps({"partialSuccess": told}).encode()
    partial = PartialSuccess(rejected_spans=rejected, error_message=message.encode())
    return ExportResponse(partial_success=partial).SerializeToString()


def failure(media: Media, refused: Refused) -> bytes:
    """The body of a failure: a Status."""
    if media is Media.JSON:
        return _json_status(refused)
    return status_details(refused)


def status_details(refused: Refused) -> bytes:
    """The Status in protobuf, also the value of ``grpc-status-details-bin``."""
    status = Status(code=refused.cause.value.grpc, message=_short(refused.message).encode())
    if refused.retry_after_s is not None:
        seconds, nanos = _split(refused.retry_after_s)
        info = RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos))
        status.details.append(
            Detail(type_url=RETRY_INFO_TYPE.encode(), value=info.SerializeToString())
        )
    return status.SerializeToString()


def read_export_response(body: bytes) -> tuple[int, str]:
    """How many spans a backend refused in a success, and its message.

    A body that is no such message says nothing, so it reads as a plain success.
    """
    try:
        partial = ExportResponse.FromString(body).partial_success
    except DecodeError:
        return 0, ""
    return max(0, partial.rejected_spans), partial.error_message.decode(errors="replace")


def read_status(body: bytes) -> tuple[int, str]:
    """Code and message of a backend's failure; 0 and the body as text if it is no Status."""
    try:
        status = Status.FromString(body)
    except DecodeError:
        return 0, body[:MAX_MESSAGE_BYTES].decode(errors="replace")
    return status.code, status.message.decode(errors="replace")


def read_retry_info(status: bytes) -> float | None:
    """Seconds after which a backend wants to be asked again; None where its Status says nothing."""
    try:
        for detail in Status.FromString(status).details:
            if detail.type_url.endswith(b"google.rpc.RetryInfo"):
                delay = RetryInfo.FromString(detail.value).retry_delay
                return max(0.0, delay.seconds + delay.nanos / 1e9)
    except DecodeError:
        return None
    return None


def _json_status(refused: Refused) -> bytes:
    status: dict[str, object] = {
        "code": refused.cause.value.grpc,
        "message": _short(refused.message),
    }
    if refused.retry_after_s is not None:
        seconds, nanos = _split(refused.retry_after_s)
        fraction = f".{nanos:09d}" if nanos else ""
        status["details"] = [{"@type": RETRY_INFO_TYPE, "retryDelay": f"{seconds}{fraction}s"}]
    return json.dumps(status).encode()


def _split(seconds: float) -> tuple[int, int]:
    return divmod(round(seconds * 1e9), 10**9)


def _short(message: str) -> str:
    """At most MAX_MESSAGE_BYTES of valid UTF-8; what a client sent may stand in it."""
    text = message.encode(errors="replace")
    if len(text) <= MAX_MESSAGE_BYTES:
        return text.decode()
    return text[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "..."
