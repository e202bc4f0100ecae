"""The short way through ``Ingest`` for the request that nearly all are: protobuf as it is, come
whole, and clean.

Where anything is out of the ordinary before the pipeline is asked, nothing has happened yet, and
the request takes the long way, which knows what to say. So the two agree, and the long way is the
only one that refuses a body. (One span: half of the time, and decoding is more than half of that.)
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
_PROTOBUF = Media.PROTOBUF  # looking up a member of an enum costs as much as a call
_CLEAN = Reply.of_success(_PROTOBUF, Decoded())


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
        if check_media(head.content_type) is not _PROTOBUF:
            return None
        return Pass(head.sender, ingest.tenant_of(head))
    except Refused:
        return None


def take(ingest: Ingest, passed: Pass, body: bytes, answer: Callable[[Reply], None]) -> bool:
    """Take a whole body; False if it is to take the long way, and then nothing has happened.

    ``answer`` is called exactly once, possibly before this returns; it must not raise.
    """
    size = len(body)
    limits, budget = ingest.limits, ingest.budget
    if ingest.stopping or size > limits.request_bytes:
        return False
    needed = decoding_bytes(body, _PROTOBUF)
    if not budget.try_reserve(needed):
        return False
    read_at, now_ns = time.perf_counter(), time.time_ns()
    try:
        decoded = decode(
            body,
            _PROTOBUF,
            now_ns=now_ns,
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
    sender, tenant = passed
    waits = True

    def settled(refused: Refused | None) -> None:  # a closure costs half of an object
        nonlocal waits
        if not waits:
            return
        waits = False
        books, seconds = ingest.books, time.perf_counter() - read_at
        if refused is None:
            books.clean(sender.transport, decoded.accepted, seconds)
            reply = _CLEAN
        else:
            books.refusal(sender, refused)
            books.duration(sender.transport, seconds)
            reply = Reply.of_refusal(_PROTOBUF, refused)
        budget.release(size)
        ingest.ended()
        answer(reply)

    now = now_ns / 1e9
    envelopes = [Envelope(tenant, payload, spans, now) for payload, spans in decoded.payloads]
    try:
        ingest.intake.offer(envelopes, settled)
    except Exception:
        logger.exception("ingest failed")
        message = "the gateway failed to handle this request; the reason is in its log"
        settled(Refused(Cause.INTERNAL, message))
    return True
