"""Delivers batches to an OTLP receiver, Tempo's or another's: one attempt, one outcome."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway import __version__
from gateway.access.outbound import proxy_for, tls_context, trusted_roots
from gateway.envelope import Fate, Outcome
from gateway.errors import GrpcCode
from gateway.otlp.reply import read_export_response, read_retry_info, read_status
from gateway.telemetry.logs import Throttle, facts
from gateway.tempo.outcomes import (
    NAMES,
    OPERATOR_CODES,
    http_outcome,
    is_misdirected,
    lost,
    outcome_of,
)

if TYPE_CHECKING:  # grpcio is loaded with the first delivery: it takes 25 ms and 9 MiB
    from grpc import aio

logger = logging.getLogger(__name__)

Fields: TypeAlias = Sequence[tuple[str, str]]
HeadersOf: TypeAlias = Callable[[str, bytes], Fields]
"""What a delivery of a tenant and a payload carries beside the tenant's name; keys in lower case.
"""

EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
DEFAULT_PORT = 4317
TENANT_KEY = "x-scope-orgid"
MAX_MESSAGE_BYTES = 16 * 2**20
"""Of a delivery, where nobody has said. Tempo's receiver takes 4 MiB unless told otherwise, and
above 16 MiB its own parts no longer understand each other unless they are told, too."""
MESSAGE_CHARS = 500
"""Of a backend's message that are kept: the gateway's log and status show it."""

_ANSWER_BYTES = 64 * 2**10
_USER_AGENT = f"otlp-gateway/{__version__}"

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", _ANSWER_BYTES),
    ("grpc.primary_user_agent", _USER_AGENT),
    # Retries are the pipeline's, which knows what they cost.
    ("grpc.enable_retries", 0),
    # grpcio waits up to two minutes between attempts to connect; a child is back in half a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # This one is also how long an attempt to connect may take: TLS over a slow line needs more
    # than the backoff.
    ("grpc.min_reconnect_backoff_ms", 5000),
    # A receiver of Go hangs up on clients that ping more often than each 5 minutes. With a period
    # set, grpcio also has the kernel give up a dead connection after 10 s (TCP_USER_TIMEOUT).
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Channels to one address share connections otherwise, and with them each other's backoff.
    ("grpc.use_local_subchannel_pool", 1),
)
SETTINGS = "TEMPO_OTLP_ENDPOINT and TEMPO_OTLP_HEADERS"
CONNECT_TIMEOUT_S = 5.0
"""As of gRPC above."""


class OtlpExporter(Protocol):
    """What both kinds are."""

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        """One attempt. Never raises for what the backend or the network did."""

    async def close(self) -> None:
        """Give back the connection. Deliveries under way end as to be retried."""


def no_headers(_tenant: str, _payload: bytes) -> Fields:
    return ()


def make_exporter(
    url: str, headers: HeadersOf = no_headers, *, connect_to: str | None = None
) -> OtlpExporter:
    """By the URL: with a path it is OTLP/HTTP, without one gRPC; TLS with https.

    ``connect_to`` is the address of the URL's host, None to leave that to the library or a proxy.
    """
    if not speaks_grpc(url):
        return OtlpHttpExporter(url, headers, connect_to=connect_to)
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return OtlpGrpcExporter(
        f"{bracketed(parts.hostname or 'localhost')}:{port_of(url)}",
        headers,
        tls=tls,
        root_certificates=trusted_roots() if tls else None,
        connect_to=connect_to,
        proxy=proxy_for(url),
    )


def speaks_grpc(url: str) -> bool:
    """A path is what OTLP/HTTP has, and gRPC has not."""
    return not urlsplit(url).path.strip("/")


def port_of(url: str) -> int:
    parts = urlsplit(url)
    if speaks_grpc(url):
        return parts.port or DEFAULT_PORT
    return parts.port or (443 if parts.scheme == "https" else 80)


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class OtlpGrpcExporter:
    """OTLP over one gRPC channel, which reconnects by itself."""

    def __init__(
        self,
        address: str,
        headers: HeadersOf = no_headers,
        *,
        tls: bool = False,
        root_certificates: bytes | None = None,
        connect_to: str | None = None,
        proxy: str | None = None,
    ) -> None:
        """``root_certificates`` is PEM, None for those that come with grpcio; ``connect_to`` is the
        IP address of the host in ``address``, where it is known.
        """
        self._address = address
        self._connect_to = connect_to
        self._proxy = proxy
        self._headers = headers
        self._tls = tls
        self._root_certificates = root_certificates
        self._complain = _Complaint(address, SETTINGS)
        self._channel: aio.Channel | None = None
        self._call: aio.UnaryUnaryMultiCallable[bytes, bytes] | None = None
        self._closed = False

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        from grpc import aio  # noqa: PLC0415 - see above

        if self._closed:
            return _CLOSED
        call = self._call or self._open()
        metadata = _with_tenant(self._headers(tenant, payload), tenant)
        try:
            answer = await call(payload, timeout=timeout_s, metadata=metadata, wait_for_ready=False)
        except aio.AioRpcError as error:
            outcome = _grpc_failure(error)
            if error.code().value[0] in OPERATOR_CODES:
                self._complain(outcome)
            return outcome
        except asyncio.CancelledError:
            # grpcio also says so to callers when the channel is closed under them.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return _CLOSED
        return _delivered(answer)

    def _open(self) -> aio.UnaryUnaryMultiCallable[bytes, bytes]:
        """A channel belongs to the event loop that it is made on, so it is made on first use."""
        import grpc  # noqa: PLC0415 - see above
        from grpc import aio  # noqa: PLC0415

        target, options = self._target()
        if self._tls:
            credentials = grpc.ssl_channel_credentials(self._root_certificates)
            self._channel = aio.secure_channel(target, credentials, options=options)
        else:
            self._channel = aio.insecure_channel(target, options=options)
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(EXPORT_METHOD)
        self._call = call
        return call

    def _target(self) -> tuple[str, tuple[tuple[str, int | str], ...]]:
        """Whom to connect to, and how."""
        # grpcio reads the variables in a way of its own, and not those in capitals.
        way = ("grpc.http_proxy", self._proxy) if self._proxy else ("grpc.enable_http_proxy", 0)
        if self._connect_to is None:
            return self._address, (*_OPTIONS, way)
        host, _, port = self._address.rpartition(":")
        names = (
            ("grpc.default_authority", self._address),
            ("grpc.ssl_target_name_override", host.strip("[]")),
        )
        return f"{bracketed(self._connect_to)}:{port}", (
            *_OPTIONS,
            way,
            *(names if self._tls else names[:1]),
        )

    async def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            await self._channel.close()


class OtlpHttpExporter:
    """OTLP over HTTP, protobuf, not compressed: the way is a data centre's or loopback."""

    def __init__(
        self,
        url: str,
        headers: HeadersOf = no_headers,
        *,
        connect_to: str | None = None,
        settings: str = SETTINGS,
    ) -> None:
        """``connect_to`` is the IP address of the URL's host, where it is known; ``settings`` names
        those that an operator has to look at when it is refused.
        """
        self._url = url
        self._connect_to = connect_to
        self._proxy = proxy_for(url)
        self._headers = headers
        self._complain = _Complaint(url, settings)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        if self._closed:
            return _CLOSED
        if self._session is None:
            self._session = self._open()
        headers = {
            "user-agent": _USER_AGENT,
            **dict(_with_tenant(self._headers(tenant, payload), tenant)),
            "content-type": "application/x-protobuf",
        }
        try:
            async with self._session.post(
                self._url,
                data=payload,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
                allow_redirects=False,
                proxy=self._proxy,
            ) as answer:
                body = await _read(answer.content)
        except aiohttp.ConnectionTimeoutError:
            return outcome_of(GrpcCode.UNAVAILABLE, f"no connection in {CONNECT_TIMEOUT_S:g} s")
        except TimeoutError:
            return outcome_of(GrpcCode.DEADLINE_EXCEEDED, f"no answer in {timeout_s:g} s")
        except aiohttp.ClientConnectorError as error:
            return outcome_of(GrpcCode.UNAVAILABLE, str(error)[:MESSAGE_CHARS])
        except (aiohttp.ClientError, ConnectionError) as error:
            return _CLOSED if self._session.closed else lost(repr(error)[:MESSAGE_CHARS])
        if answer.content_type == "text/html" and 200 <= answer.status < 300:
            # A page for people, from whatever takes any request: nobody has the spans.
            outcome = outcome_of(GrpcCode.NOT_FOUND, "a page of HTML came back", name="HTTP page")
            self._complain(outcome)
            return outcome
        if 200 <= answer.status < 300:
            return _delivered(body)
        outcome = _http_failure(answer.status, answer.headers, body)
        if is_misdirected(answer.status):
            self._complain(outcome)
        return outcome

    def _open(self) -> aiohttp.ClientSession:
        resolver = None if self._connect_to is None else _Known(self._connect_to)
        tls = tls_context() if self._url.startswith("https:") else True
        connector = aiohttp.TCPConnector(resolver=resolver, ssl=tls)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()


class _Known(AbstractResolver):
    """Gives the address that is known already."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=self._address, port=port, family=family, proto=0, flags=flags
            )
        ]

    async def close(self) -> None:
        """There is nothing to give back."""


_CLOSED = Outcome(Fate.RETRY, NAMES[GrpcCode.CANCELLED], "the connection was closed from here")


class _Complaint:
    """Says loudly, though not each time, that it is the operator who has to do something."""

    def __init__(self, target: str, settings: str) -> None:
        self._target = target
        self._settings = settings
        self._throttle = Throttle(60.0)

    def __call__(self, outcome: Outcome) -> None:
        if self._throttle.ready(outcome.code) is not None:
            logger.error(
                "backend refuses the gateway",
                extra=facts(
                    endpoint=self._target,
                    code=outcome.code,
                    error=outcome.message,
                    check=self._settings,
                ),
            )


def _with_tenant(headers: Fields, tenant: str) -> tuple[tuple[str, str], ...]:
    """The tenant exactly once: Tempo takes a repeated one for none."""
    if not tenant:
        return tuple(headers)
    return (*(pair for pair in headers if pair[0] != TENANT_KEY), (TENANT_KEY, tenant))


def _delivered(answer: bytes) -> Outcome:
    rejected, message = read_export_response(answer)
    return Outcome(Fate.DELIVERED, "OK", message[:MESSAGE_CHARS], rejected_spans=rejected)


def _grpc_failure(error: aio.AioRpcError) -> Outcome:
    retry_after_s = None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            retry_after_s = read_retry_info(value)
    code, message = error.code().value[0], (error.details() or "")[:MESSAGE_CHARS]
    return outcome_of(code, message, retry_after_s=retry_after_s)


def _http_failure(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    code, message = read_status(body)
    retry_after_s = _retry_after_s(headers.get("Retry-After", ""), time.time())
    if retry_after_s is None and code:
        retry_after_s = read_retry_info(body)
    return http_outcome(status, code, message[:MESSAGE_CHARS], retry_after_s=retry_after_s)


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The answer, as much of it as matters."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > _ANSWER_BYTES:
            break
    return bytes(body[:_ANSWER_BYTES])


def _retry_after_s(text: str, now: float) -> float | None:
    """Retry-After in seconds or as a date (RFC 9110, section 10.2.3)."""
    text = text.strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:  # also where there is none
        return None
    return max(0.0, moment.timestamp() - now)
