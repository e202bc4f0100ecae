"""Passes streamed queries on: Tempo's ``tempopb.StreamingQuerier``, which Grafana's search uses.

Messages pass as they are, one after another, no faster than the client takes them. Only the methods
named here exist: the same port of Tempo's serves its internal services too, to anybody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from gateway.access.budget import MemoryBudget
from gateway.access.tokens import OPEN, Gate
from gateway.errors import Cause, GrpcCode, Refused
from gateway.query import failure
from gateway.query.backend import Upstream
from gateway.query.channel import Answer, Channel, Ended, LostError, Target
from gateway.query.failure import Failure
from gateway.query.headers import TENANT_FIELD, Fields, call_fields, is_carried
from gateway.query.tenancy import tenant_asked
from gateway.telemetry.logs import Throttle, facts
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

PATHS = tuple(
    f"/tempopb.StreamingQuerier/{method}"
    for method in (
        "Search",
        "SearchTags",
        "SearchTagsV2",
        "SearchTagValues",
        "SearchTagValuesV2",
        "MetricsQueryRange",
        "MetricsQueryInstant",
    )
)
"""What older versions of Tempo do not have, they say so themselves."""

_AUTHORIZATION = "authorization"
_TENANT = TENANT_FIELD.lower()

Write = Callable[[bytes], Awaitable[None]]
_CODES = {
    502: GrpcCode.UNAVAILABLE,
    503: GrpcCode.UNAVAILABLE,
    504: GrpcCode.DEADLINE_EXCEEDED,
}
"""What a failure of the HTTP side is called here."""
_NAMES = {code: name for name, code in vars(GrpcCode).items() if name.isupper()}


class Limits(NamedTuple):
    """Bounds on what clients and the backend can make the gateway hold or wait for."""

    concurrent: int = 32
    """Calls under way at once; each may hold a message."""
    message_bytes: int = 16 * 2**20
    """Of one message. Tempo 2 sends up to this much, Tempo 3 2 MiB."""
    idle_timeout_s: float = 60.0
    """Between two messages of the backend's; Tempo sends one twice a second."""


_DEFAULT = Limits()


class Streams:
    """The streamed queries of one backend."""

    def __init__(
        self,
        upstream: Upstream,
        metrics: Metrics,
        budget: MemoryBudget,
        *,
        limits: Limits = _DEFAULT,
        gate: Gate = OPEN.query,
    ) -> None:
        """Where the gate is open credentials go on to the backend, as for HTTP."""
        self._upstream = upstream
        self._requests = metrics.query_requests
        self._refusals = metrics.refused_requests
        self._budget = budget
        self._limits = limits
        self._gate = gate
        self._in_flight = 0
        self._channel: Channel | None = None
        self._throttle = Throttle()

    async def answer(
        self,
        path: str,
        message: bytes,
        *,
        metadata: Fields,
        peer: str,
        timeout_s: float | None,
        write: Write,
    ) -> Ended:
        """Serve one call of ``PATHS``: ``write`` gets each message of the answer. ``timeout_s`` is
        until the client's deadline. To cancel it ends the call in the backend.
        """
        try:
            granted = self._gate.admit(_values(metadata, _AUTHORIZATION))
        except Refused as refused:
            return self._turned_away(path, peer, refused)
        try:
            with self._counted():
                target = self._target()
                fields = self._fields(metadata, granted, target)
                channel = await self._channel_to(target)
                answer = channel.ask(path, message, metadata=fields, timeout_s=timeout_s)
                ended = await self._relay(answer, write)
        except Refused as refused:
            ended = Ended(refused.cause.value.grpc, refused.message)
        except Failure as told:
            ended = Ended(_CODES[told.status], str(told))
            self._note(path, ended, told.__cause__)
        except asyncio.CancelledError:
            self._requests.series("client_left").value += 1
            raise
        self._requests.series(_NAMES.get(ended.code, "UNKNOWN")).value += 1
        return ended

    async def close(self) -> None:
        """Give back the connection. Calls under way end."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._in_flight >= self._limits.concurrent:
            raise failure.busy(self._in_flight)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def _target(self) -> Target:
        """Raises Failure."""
        if (url := self._upstream.streaming_url) is None:
            raise failure.unavailable(self._upstream.reason or f"it is {self._upstream.state}")
        return Target.of(url)

    def _fields(self, metadata: Fields, granted: str, target: Target) -> Fields:
        """What the backend gets of the metadata. Raises Refused."""
        fields = call_fields(metadata)
        if not self._gate.is_open:
            fields.popall(_AUTHORIZATION, None)  # meant for the gateway
        if target.authorization is not None:
            fields[_AUTHORIZATION] = target.authorization
        fields.popall(_TENANT, None)
        tenant = tenant_asked(granted, _values(metadata, _TENANT), self._upstream.default_tenant)
        if tenant:
            if not is_carried(tenant):
                raise Refused(Cause.MALFORMED, "X-Scope-OrgID is to have visible ASCII characters")
            fields[_TENANT] = tenant
        return fields.items()

    async def _channel_to(self, target: Target) -> Channel:
        """A child of the gateway's has a new address whenever it was restarted."""
        old = self._channel
        if old is not None and old.target == target:
            return old
        self._channel = new = Channel(target, max_message_bytes=self._limits.message_bytes)
        if old is not None:
            await old.close()
        return new

    async def _relay(self, answer: Answer, write: Write) -> Ended:
        """Raises Failure."""
        begun = False
        try:
            while not isinstance(piece := await self._read(answer), Ended):
                await self._give(piece, write)
                begun = True
        except LostError as error:
            raise self._lost(begun=begun) from error
        else:
            return piece
        finally:
            answer.cancel()

    async def _read(self, answer: Answer) -> bytes | Ended:
        try:
            async with asyncio.timeout(self._limits.idle_timeout_s):
                return await answer.read()
        except TimeoutError:
            raise failure.slow(self._limits.idle_timeout_s) from None

    async def _give(self, message: bytes, write: Write) -> None:
        """Holds the message against the memory budget while the client takes it. How long it may
        take is the engine's to say: only that can end a call whose client does not read.
        """
        size = len(message)
        if not self._budget.try_reserve(size, or_first=True):
            raise failure.no_memory()
        try:
            await write(message)
        finally:
            self._budget.release(size)

    def _lost(self, *, begun: bool) -> Failure:
        if begun:
            return failure.cut()
        words = self._upstream.reason or (
            "it takes no gRPC on the port of its HTTP API: it is starting or has died, or its"
            " configuration lacks stream_over_http_enabled"
        )
        return failure.unavailable(words)

    def _turned_away(self, path: str, peer: str, refused: Refused) -> Ended:
        """Counted and told as the guard of the HTTP side does it."""
        reason = refused.cause.value.reason
        self._refusals.series(reason).value += 1
        if (quiet := self._throttle.ready(reason)) is not None:
            told = facts(
                reason=reason, peer=peer, path=path, message=refused.message, like_it=quiet or None
            )
            logger.warning("query refused", extra=told)
        return Ended(refused.cause.value.grpc, refused.message)

    def _note(self, path: str, ended: Ended, cause: BaseException | None) -> None:
        code = _NAMES[ended.code]
        if (quiet := self._throttle.ready(code)) is None:
            return
        told = facts(
            code=code, path=path, why=ended.message, cause=cause and repr(cause), quiet=quiet
        )
        logger.warning("query failed", extra=told)


def _values(metadata: Fields, name: str) -> list[str]:
    return [value for key, value in metadata if key == name]
