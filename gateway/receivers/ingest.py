"""From a request's bytes to accepted spans and an answer, without sockets.

A transport calls ``Ingest.begin`` with what the headers say, feeds the body, and gets one
``Reply``. All knowledge is here, so that transports are thin and can be exchanged: what is
admitted, what a body means, what is counted, logged and answered.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol

from gateway.access.budget import MemoryBudget
from gateway.access.handovers import Handovers
from gateway.access.tokens import OPEN, Gate
from gateway.envelope import Envelope
from gateway.errors import Cause, Refused
from gateway.otlp.decode import decode
from gateway.otlp.encoding import Inflater
from gateway.otlp.media import Decoded, Media
from gateway.receivers.admission import LEAST_FACTOR, Reservation, decoding_bytes
from gateway.receivers.books import Books, Sender
from gateway.receivers.headers import (
    check_media,
    check_method,
    check_path,
    check_tenant,
    media_of,
)
from gateway.receivers.replies import Reply
from gateway.telemetry.logs import facts
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_RESTART_S = 1.0
"""Delay told while stopping: on a platform the next container serves already."""


class Intake(Protocol):
    """Where accepted spans go."""

    def offer(
        self, envelopes: Sequence[Envelope], settled: Callable[[Refused | None], None]
    ) -> None:
        """Take all of them or none. ``settled`` is called exactly once, on the event loop, possibly
        before ``offer`` returns: with None when they are safe (the client may be told OK), else
        with the refusal. A client that leaves meanwhile changes nothing.
        """


class Limits(NamedTuple):
    """Bounds of one request, and of each envelope made from it."""

    request_bytes: int
    """Also after decompression."""
    envelope_spans: int
    envelope_bytes: int
    span_bytes: int = sys.maxsize
    """Of one span with its resource and scope; not less than ``envelope_bytes``."""


class Head(NamedTuple):
    """What is known of a request before its body. A gRPC call is a POST of protobuf to its method's
    path.
    """

    sender: Sender
    method: str
    path: str
    content_type: str | None
    content_encoding: str = ""
    content_length: int | None = None
    """Bytes that will be fed, if the client has said so."""
    tenants: Sequence[str] = ()
    """Every value of X-Scope-OrgID."""
    authorization: Sequence[str] = ()
    """Every value of Authorization."""
    handover: str = ""
    """Id of what a gateway hands over at its end; empty for all other requests."""


class Ingest:
    """Admits, decodes, offers and answers. Runs on the event loop only."""

    def __init__(
        self,
        *,
        intake: Intake,
        budget: MemoryBudget,
        metrics: Metrics,
        limits: Limits,
        gate: Gate = OPEN.ingest,
    ) -> None:
        self.intake = intake
        self.budget = budget
        self._gate = gate
        self.limits = limits
        self.books = Books(metrics)
        self.handovers = Handovers()
        self.stopping = False
        self._in_hand = 0
        self._idle = asyncio.Event()  # set by the last request in hand while stopping

    def begin(self, head: Head, answer: Callable[[Reply], None]) -> Exchange:
        """Start an exchange. ``answer`` is called exactly once unless the exchange is abandoned,
        possibly before ``begin`` returns; it must not raise.
        """
        self.began()
        exchange = Exchange(self, head, answer)
        exchange.admit()
        return exchange

    def began(self) -> None:
        """A request is in hand, until ``ended``."""
        self._in_hand += 1

    def ended(self) -> None:
        """An exchange is over."""
        self._in_hand -= 1
        if self.stopping and not self._in_hand:
            self._idle.set()

    def tenant_of(self, head: Head) -> str:
        """The tenant of its token, else the one that it names, else an empty string. Raises Refused
        for a request that may not send.
        """
        return self._gate.admit(head.authorization) or check_tenant(head.tenants)

    @property
    def in_hand(self) -> int:
        """Requests begun and not yet answered; those whose client has left are still settled."""
        return self._in_hand

    async def stop(self, timeout_s: float) -> int:
        """Refuse what is new and wait for what is in hand; returns how many still are.

        Those go on: what the pipeline takes of them is counted. Safe before the first request, and
        twice.
        """
        self.stopping = True
        if not self._in_hand:
            return 0
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("requests cut short", extra=facts(count=self._in_hand))
        return self._in_hand


_NOTHING = Decoded()


class _Stage(Enum):
    READING = auto()
    OFFERED = auto()
    OVER = auto()


class Exchange:
    """One request from its head to its answer; made by ``Ingest.begin``.

    The transport calls ``feed`` for each piece of the body and then ``end``, or ``refuse`` for what
    it finds itself, or ``abandon`` when the client has left. Each does nothing once the body has
    ended or the answer was given.
    """

    __slots__ = (
        "_answer",
        "_decoded",
        "_head",
        "_held",
        "_inflater",
        "_ingest",
        "_media",
        "_pieces",
        "_read_at",
        "_size",
        "_stage",
        "_tenant",
    )
    _tenant: str

    def __init__(self, ingest: Ingest, head: Head, answer: Callable[[Reply], None]) -> None:
        self._ingest = ingest
        self._head = head
        self._answer = answer
        self._stage = _Stage.READING
        self._held = Reservation(ingest.budget)
        self._media = media_of(head.content_type) or Media.JSON
        self._decoded = _NOTHING
        self._inflater: Inflater | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._read_at: float | None = None

    def admit(self) -> None:
        """Judge the head; ``Ingest.begin`` calls it."""
        try:
            self._admit()
        except Refused as refused:
            self._refuse(refused)

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        if self._stage is not _Stage.READING:
            return
        try:
            self._take(data)
        except Refused as refused:
            self._refuse(refused)

    def end(self) -> None:
        """The body is complete: decode it and offer its spans to the pipeline."""
        if self._stage is not _Stage.READING:
            return
        self._read_at = time.perf_counter()
        try:
            self._offer(self._decode())
        except Refused as refused:
            self._refuse(refused)
        except Exception:
            logger.exception("ingest failed")
            message = "the gateway failed to handle this request; the reason is in its log"
            self._refuse(Refused(Cause.INTERNAL, message))

    def refuse(self, refused: Refused) -> None:
        """The transport found a reason of its own."""
        if self._stage is _Stage.READING:
            self._refuse(refused)

    def abandon(self) -> None:
        """The client has left. What it had sent whole stays accepted."""
        if self._stage is _Stage.READING:
            self._close()

    # -- admission -------------------------------------------------------------------------------

    def _admit(self) -> None:
        head = self._head
        check_path(head.sender.transport, head.path)
        check_method(head.method)
        self._tenant = self._ingest.tenant_of(head)
        if self._ingest.stopping:
            message = "the gateway is stopping; send again, to the next one"
            raise Refused(Cause.STOPPING, message, retry_after_s=_RESTART_S)
        self._media = check_media(head.content_type)
        if head.content_encoding:
            limit = self._ingest.limits.request_bytes
            self._inflater = Inflater(head.content_encoding, max_bytes=limit)
        if head.content_length:
            self._check_announced(head.content_length)

    def _check_announced(self, size: int) -> None:
        """Refuse now what would be refused later. Nothing is held before it comes: few clients that
        announce much and send little could else keep out all others.
        """
        if size > self._ingest.limits.request_bytes:
            raise _too_large(size, self._ingest.limits.request_bytes)
        self._held.check_possible(size * LEAST_FACTOR)
        self._held.check_room(size)

    def _take(self, data: bytes) -> None:
        """Keep what was sent as it is: it is inflated when all of it is there, so that a body takes
        no more memory while it comes than its sender has spent on it.
        """
        size = self._size + len(data)
        if size > self._ingest.limits.request_bytes:
            raise _too_large(size, self._ingest.limits.request_bytes)
        self._keep(data)

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        self._held.check_possible(self._size * LEAST_FACTOR)
        self._held.grow(self._size)
        self._pieces.append(data)

    # -- the spans -------------------------------------------------------------------------------

    def _inflate(self, inflater: Inflater) -> None:
        """Replace the pieces by what they become."""
        sent, sent_size = self._pieces, self._size
        self._pieces = []
        for data in sent:
            for piece in inflater.feed(data):
                self._keep(piece)
        for piece in inflater.finish():
            self._keep(piece)
        self._size -= sent_size

    def _decode(self) -> Decoded:
        if self._inflater is not None:
            self._inflate(self._inflater)
        self._held.grow(self._size * LEAST_FACTOR)
        body = b"".join(self._pieces)
        self._pieces.clear()
        needed = decoding_bytes(body, self._media)
        self._held.check_possible(needed)
        self._held.grow(needed)
        limits = self._ingest.limits
        decoded = decode(
            body,
            self._media,
            now_ns=time.time_ns(),
            max_spans=limits.envelope_spans,
            max_bytes=limits.envelope_bytes,
            max_span_bytes=limits.span_bytes,
        )
        self._held.shrink(self._size)
        return decoded

    def _offer(self, decoded: Decoded) -> None:
        self._decoded = decoded
        self._stage = _Stage.OFFERED
        if self._ingest.handovers.knows(self._tenant, self._head.handover):
            self._tell(Reply.of_success(self._media, decoded))  # its answer was lost on the way
            return
        now = time.time()
        envelopes = [
            Envelope(self._tenant, payload, spans, now) for payload, spans in decoded.payloads
        ]
        if envelopes:
            self._ingest.intake.offer(envelopes, self._settled)
        else:
            self._settled(None)

    # -- the answer ------------------------------------------------------------------------------

    def _settled(self, refused: Refused | None) -> None:
        if refused is not None:
            self._refuse(refused)
            return
        if self._stage is _Stage.OVER:
            return
        books, head = self._ingest.books, self._head
        if head.handover:
            self._ingest.handovers.note(self._tenant, head.handover)
            books.handover(head.sender, self._media, self._decoded)
        else:
            books.success(head.sender, self._media, self._decoded)
        self._tell(Reply.of_success(self._media, self._decoded))

    def _refuse(self, refused: Refused) -> None:
        if self._stage is _Stage.OVER:
            return
        # Its frames hold the body, which would outlive its reservation until the answer is sent.
        refused.__traceback__ = refused.__context__ = refused.__cause__ = None
        self._ingest.books.refusal(self._head.sender, refused)
        self._tell(Reply.of_refusal(self._media, refused))

    def _tell(self, reply: Reply) -> None:
        if self._read_at is not None:
            elapsed_s = time.perf_counter() - self._read_at
            self._ingest.books.duration(self._head.sender.transport, elapsed_s)
        answer = self._answer
        self._close()
        answer(reply)

    def _close(self) -> None:
        """Hold nothing any more: who is answered may refer to this exchange, and then both live on
        until the garbage collector comes by.
        """
        self._stage = _Stage.OVER
        self._answer = _heard
        self._decoded = _NOTHING
        self._pieces.clear()
        self._held.release()
        self._ingest.ended()


def _heard(_reply: Reply) -> None:
    """Whoever was to be answered has been."""


def _too_large(size: int, limit: int) -> Refused:
    return Refused(
        Cause.TOO_LARGE,
        f"the request has {size} bytes or more and may have {limit} bytes"
        " (GATEWAY_MAX_REQUEST_BYTES); send smaller batches",
    )
