"""Passes streamed queries on: Tempo's ``tempopb.StreamingQuerier``, which Grafana's search uses.

Messages pass as they are, one after another, no faster than the client takes them. How long it may
take is the engine's to say: only that can end a call whose client does not read. Only the methods
named here exist: the same port of Tempo's serves its internal services too, to anybody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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


_LEAST_MESSAGE_BYTES, _MOST_MESSAGE_BYTES = 4 * 2**20, 16 * 2**20
"""What clients of gRPC take unless told otherwise, and what Tempo 2 sends at most (Tempo 3: 2 MiB).
"""
_HELD_FACTOR = 2
"""grpcio has a message in pieces and, for a moment, whole beside them."""
_ROOM_POLL_S = 0.05


class Limits(NamedTuple):
    """Bounds on what clients and the backend can make the gateway hold or wait for."""

    message_bytes: int
    """Of one message. grpcio tells of it when it is whole, so each call has to have room for it."""
    concurrent: int
    """Calls under way at once."""
    asked: int = 64
    """Calls that are under way or wait for others; the next is told to come back."""
    wait_s: float = 20.0
    """For a place among those that are under way, and for memory."""
    idle_timeout_s: float = 60.0
    """Between two messages of the backend's; Tempo sends one twice a second."""

    @classmethod
    def within(cls, budget_bytes: int) -> Limits:
        """At most half of the budget, so that queries do not keep spans out."""
        share = budget_bytes // 2
        message_bytes = max(_LEAST_MESSAGE_BYTES, min(_MOST_MESSAGE_BYTES, share // 12))
        held_bytes = _HELD_FACTOR * message_bytes
        return cls(message_bytes, concurrent=max(1, min(32, share // held_bytes)))

    @property
    def held_bytes(self) -> int:
        """Of memory that a call may take."""
        return _HELD_FACTOR * self.message_bytes


class Streams:
    """The streamed queries of one backend."""

    def __init__(
        self,
        upstream: Upstream,
        metrics: Metrics,
        budget: MemoryBudget,
        *,
        limits: Limits | None = None,
        gate: Gate = OPEN.query,
    ) -> None:
        """Where the gate is open credentials go on to the backend, as for HTTP."""
        self._upstream = upstream
        self._requests = metrics.query_requests
        self._refusals = metrics.refused_requests
        self._budget = budget
        self._limits = limits or Limits.within(budget.limit)
        self._gate = gate
        self._asked = self._under_way = 0
        self._turn = asyncio.Lock()
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
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            granted = self._gate.admit(_values(metadata, _AUTHORIZATION))
        except Refused as refused:
            return self._turned_away(path, peer, refused)
        try:
            async with self._place():
                target = self._target()
                fields = self._fields(metadata, granted, target)
                channel = await self._channel_to(target)
                answer = channel.ask(path, message, metadata=fields, deadline=deadline)
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

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Room for a call and its largest message, in the order of arrival. Raises Failure."""
        limits = self._limits
        if self._asked >= limits.asked:
            raise failure.busy(self._asked)
        self._asked += 1
        try:
            try:
                async with asyncio.timeout(limits.wait_s), self._turn:
                    while not self._take_place():  # noqa: ASYNC110 - nobody tells of memory
                        await asyncio.sleep(_ROOM_POLL_S)
            except TimeoutError:
                raise failure.busy(self._asked) from None
            try:
                yield
            finally:
                self._under_way -= 1
                self._budget.release(limits.held_bytes)
        finally:
            self._asked -= 1

    def _take_place(self) -> bool:
        limits = self._limits
        if self._under_way >= limits.concurrent:
            return False
        if not self._budget.try_reserve(limits.held_bytes, or_first=True):
            return False
        self._under_way += 1
        return True

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
                await write(piece)
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
