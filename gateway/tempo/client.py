"""Delivers batches to an OTLP receiver, Tempo's or another's: one attempt, one outcome."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
import grpc
from grpc import aio

from gateway.envelope import Fate, Outcome
from gateway.errors import GrpcCode
from gateway.otlp.reply import read_export_response, read_retry_info, read_status
from gateway.tempo.outcomes import http_outcome, outcome_of

EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TENANT_KEY = "x-scope-orgid"
MESSAGE_CHARS = 500
"""Of a backend's message that are kept: the gateway's log and status show it."""

_ANSWER_BYTES = 4 * 2**20

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", _ANSWER_BYTES),
    # grpcio waits up to two minutes between attempts to connect; a child is back in half a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A receiver of Go hangs up on clients that ping more often than each 5 minutes; the deadline
    # of each attempt finds dead connections soon enough.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.enable_http_proxy", 0),
)


class OtlpExporter(Protocol):
    """What both kinds are."""

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        """One attempt. Never raises for what the backend or the network did."""

    async def close(self) -> None:
        """Give back the connection."""


def make_exporter(url: str, headers: Sequence[tuple[str, str]]) -> OtlpExporter:
    """By the URL: with a path it is OTLP/HTTP, without one gRPC; TLS with https."""
    parts = urlsplit(url)
    if parts.path.strip("/"):
        return OtlpHttpExporter(url, headers)
    port = parts.port or 4317
    return OtlpGrpcExporter(f"{parts.hostname}:{port}", headers, tls=parts.scheme == "https")


class OtlpGrpcExporter:
    """OTLP over one gRPC channel, which reconnects by itself."""

    def __init__(
        self, address: str, headers: Sequence[tuple[str, str]] = (), *, tls: bool = False
    ) -> None:
        self._headers = tuple(headers)
        if tls:
            credentials = grpc.ssl_channel_credentials()
            self._channel = aio.secure_channel(address, credentials, options=_OPTIONS)
        else:
            self._channel = aio.insecure_channel(address, options=_OPTIONS)
        self._call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            EXPORT_METHOD
        )

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        metadata = _with_tenant(self._headers, tenant)
        try:
            answer = await self._call(payload, timeout=timeout_s, metadata=metadata)
        except aio.AioRpcError as error:
            return _grpc_failure(error)
        return _delivered(answer)

    async def close(self) -> None:
        await self._channel.close()


class OtlpHttpExporter:
    """OTLP over HTTP, protobuf, not compressed: the way is a data centre's or loopback."""

    def __init__(self, url: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._url = url
        self._headers = tuple(headers)
        self._session: aiohttp.ClientSession | None = None

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        headers = dict(_with_tenant(self._headers, tenant))
        headers["content-type"] = "application/x-protobuf"
        sending = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.post(
                self._url, data=payload, headers=headers, timeout=sending, allow_redirects=False
            ) as answer:
                body = await answer.content.read(_ANSWER_BYTES)
        except TimeoutError:
            return outcome_of(GrpcCode.DEADLINE_EXCEEDED, f"no answer in {timeout_s:g} s")
        except aiohttp.ClientConnectorError as error:
            return outcome_of(GrpcCode.UNAVAILABLE, str(error)[:MESSAGE_CHARS])
        except (aiohttp.ClientError, ConnectionError) as error:
            message = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
            return outcome_of(GrpcCode.UNAVAILABLE, message, lost_connection=True)
        if answer.status == 200:
            return _delivered(body)
        code, message = read_status(body)
        return http_outcome(
            answer.status,
            code,
            message[:MESSAGE_CHARS],
            retry_after_s=_retry_after_s(answer.headers),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _with_tenant(headers: Sequence[tuple[str, str]], tenant: str) -> tuple[tuple[str, str], ...]:
    """The tenant exactly once: Tempo takes a repeated one for none."""
    if not tenant:
        return tuple(headers)
    return (*(pair for pair in headers if pair[0] != TENANT_KEY), (TENANT_KEY, tenant))


def _delivered(answer: bytes) -> Outcome:
    rejected, message = read_export_response(answer)
    return Outcome(Fate.DELIVERED, "OK", message[:MESSAGE_CHARS], rejected_spans=rejected)


def _grpc_failure(error: aio.AioRpcError) -> Outcome:
    code, message = error.code().value[0], (error.details() or "")[:MESSAGE_CHARS]
    retry_after_s = None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            retry_after_s = read_retry_info(value)
    return outcome_of(
        code, message, retry_after_s=retry_after_s, lost_connection=_broke_in_mid_call(error)
    )


_BROKEN = ("socket closed", "connection reset", "broken pipe", "stream removed", "rst_stream")


def _broke_in_mid_call(error: aio.AioRpcError) -> bool:
    """True where there was a connection and it broke; grpcio tells only in words.

    A refused connection ("failed to connect") never carried the payload.
    """
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    text = f"{error.details()} {error.debug_error_string()}".lower()
    return "failed to connect" not in text and any(words in text for words in _BROKEN)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds or as a date (RFC 9110, section 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    if not text:
        return None
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())
