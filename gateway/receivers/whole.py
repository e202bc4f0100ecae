"""The short way through ``Ingest`` for the request that nearly all are: protobuf as it is, come
whole, and clean.

Where anything is out of the ordinary before the pipeline is asked, nothing has happened yet, and
the request takes the long way, which knows what to say. So the two agree, and the long way is the
only one that refuses a body. (One span: 7.6 us instead of 13.1, of which decoding takes 4.9.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from gateway.envelope import Envelope
from gateway.errors import Cause, Refused
from gateway.otlp.decode import decode
from gateway.otlp.media import Decoded, Media
from gateway.receivers.admission import decoding_bytes
from gateway.receivers.books import Sender
from gateway.receivers.headers import check_media, check_method, check_path
from gateway.receivers.ingest import Head, Ingest
from gateway.receivers.replies import Reply

logger = logging.getLogger(__name__)

_IDENTITY = frozenset({"", "identity"})
_CLEAN = Reply.of_success(Media.PROTOBUF, Decoded())


class Pass(NamedTuple):
    """A head that was found in order; may be kept for requests with the same head."""

    sender: Sender
    tenant: str


def judge(ingest: Ingest, head: Head) -> Pass | None:
    """None for a head that is to take the long way."""
    if head.content_encoding not in _IDENTITY:
        return None
    try:
        check_path(head.sender.transport, head.path)
        check_method(head.method)
        if check_media(head.content_type) is not Media.PROTOBUF:
            return None
        return Pass(head.sender, ingest.tenant_of(head))
    except Refused:
        return None


def take(ingest: Ingest, passed: Pass, body: bytes, answer: Callable[[Reply], None]) -> bool:
    """Take a whole body; False if it is to take the long way, and then nothing has happened.

    ``answer`` is called exactly once, possibly before this returns; it must not raise.
    """
    size = len(body)
    if ingest.stopping or size > ingest.limits.request_bytes:
        return False
    budget = ingest.budget
    needed = decoding_bytes(body, Media.PROTOBUF)
    if not budget.try_reserve(needed):
        return False
    read_at = time.perf_counter()
    limits = ingest.limits
    try:
        decoded = decode(
            body,
            Media.PROTOBUF,
            now_ns=time.time_ns(),
            max_spans=limits.envelope_spans,
            max_bytes=limits.envelope_bytes,
            max_span_bytes=limits.span_bytes,
        )
    except Exception:  # noqa: BLE001 - the long way meets it again, tells and logs it
        budget.release(needed)
        return False
    if decoded.message or not decoded.payloads:
        budget.release(needed)
        return False
    budget.release(needed - size)
    ingest.began()
    _Offered(ingest, passed, answer, decoded, size, read_at).offer()
    return True


class _Offered:
    """A request that the pipeline was asked to take; holds its size of the budget until settled."""

    __slots__ = ("_answer", "_decoded", "_ingest", "_passed", "_read_at", "_settled", "_size")

    def __init__(  # noqa: PLR0917 - for speed
        self,
        ingest: Ingest,
        passed: Pass,
        answer: Callable[[Reply], None],
        decoded: Decoded,
        size: int,
        read_at: float,
    ) -> None:
        self._ingest = ingest
        self._passed = passed
        self._answer = answer
        self._decoded = decoded
        self._size = size
        self._read_at = read_at
        self._settled = False

    def offer(self) -> None:
        now, tenant = time.time(), self._passed.tenant
        envelopes = [
            Envelope(tenant, payload, spans, now) for payload, spans in self._decoded.payloads
        ]
        try:
            self._ingest.intake.offer(envelopes, self.settle)
        except Exception:
            logger.exception("ingest failed")
            message = "the gateway failed to handle this request; the reason is in its log"
            self.settle(Refused(Cause.INTERNAL, message))

    def settle(self, refused: Refused | None) -> None:
        if self._settled:
            return
        self._settled = True
        ingest, sender = self._ingest, self._passed.sender
        if refused is None:
            ingest.books.success(sender, Media.PROTOBUF, self._decoded)
            reply = _CLEAN
        else:
            ingest.books.refusal(sender, refused)
            reply = Reply.of_refusal(Media.PROTOBUF, refused)
        ingest.books.duration(sender.transport, time.perf_counter() - self._read_at)
        ingest.budget.release(self._size)
        ingest.ended()
        self._answer(reply)
