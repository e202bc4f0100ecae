"""The short way and the long way agree, and where the short way is not taken nothing happens."""

from __future__ import annotations

import gzip

import pytest

from gateway.errors import Cause, Refused
from gateway.receivers import whole
from gateway.receivers.books import Sender
from gateway.receivers.headers import EXPORT_METHOD
from gateway.receivers.ingest import Head
from tests.kit.receivers import MIB, Receivers
from tests.kit.spans import make_payload, make_request, make_span

HTTP = Head(Sender("http", "10.0.0.1:4711"), "POST", "/v1/traces", "application/x-protobuf")
GRPC = Head(Sender("grpc", "10.0.0.1:4711"), "POST", EXPORT_METHOD, "application/x-protobuf")
GOOD = make_payload(3)
BAD_SPAN = make_request(make_span(trace_id=bytes(16))).SerializeToString()


def make_receivers(**values: int) -> Receivers:
    limits = {"memory_bytes": MIB, "max_request_bytes": MIB, "batch_spans": 8192} | values
    return Receivers(batch_bytes=MIB, **limits)


def by_the_long_way(receivers, head, body):
    replies = []
    exchange = receivers.ingest.begin(head, replies.append)
    exchange.feed(body)
    exchange.end()
    return replies


def by_the_short_way(receivers, head, body):
    replies = []
    assert whole.take(receivers.ingest, whole.judge(receivers.ingest, head), body, replies.append)
    return replies


@pytest.mark.parametrize("head", [HTTP, GRPC, HTTP._replace(tenants=["team-7"])])
@pytest.mark.parametrize("refusal", [None, *Cause, "raises"])
async def test_the_two_ways_agree(head, refusal):
    seen = []
    for way in (by_the_long_way, by_the_short_way):
        receivers = make_receivers()
        if isinstance(refusal, Cause):
            delay_s = 2.5 if refusal.value.retry else None
            receivers.intake.refusals.append(Refused(refusal, "no", retry_after_s=delay_s))
        elif refusal is not None:
            receivers.intake.refusals.append(ZeroDivisionError("a bug"))
        (reply,) = way(receivers, head, GOOD)
        taken = [(made.tenant, made.payload, made.spans) for made in receivers.intake.taken]
        timed = receivers.metrics.request_duration.series(head.sender.transport).counts
        told = (reply.media, reply.body, reply.http_status, reply.http_headers())
        seen.append((told, taken, receivers.counts(), sum(timed), receivers.ingest.in_hand))
        receivers.check_books()
    assert seen[0] == seen[1]


async def test_a_request_is_in_hand_and_holds_its_size_until_it_is_settled():
    receivers, replies = make_receivers(), []
    receivers.intake.holding = True
    assert whole.take(receivers.ingest, whole.judge(receivers.ingest, HTTP), GOOD, replies.append)
    assert (receivers.ingest.in_hand, receivers.budget.used, replies) == (1, len(GOOD), [])
    receivers.intake.settle()
    assert (receivers.ingest.in_hand, receivers.budget.used, len(replies)) == (0, 0, 1)


@pytest.mark.parametrize(
    "head",
    [
        HTTP._replace(content_type="application/json"),
        HTTP._replace(content_type="text/plain"),
        HTTP._replace(content_type=None),
        HTTP._replace(content_encoding="gzip"),
        HTTP._replace(method="PUT"),
        HTTP._replace(path="/v1/logs"),
        HTTP._replace(tenants=["a", "b"]),
        HTTP._replace(tenants=["a b"]),
    ],
)
def test_a_head_out_of_the_ordinary_takes_the_long_way(head):
    assert whole.judge(make_receivers().ingest, head) is None


def test_identity_is_no_encoding():
    head = HTTP._replace(content_encoding="identity")
    assert whole.judge(make_receivers().ingest, head) == (HTTP.sender, "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xff", id="undecodable"),
        pytest.param(gzip.compress(GOOD), id="compressed"),
        pytest.param(BAD_SPAN, id="bad span"),
        pytest.param(bytes(MIB + 1), id="too large"),
    ],
)
async def test_a_body_out_of_the_ordinary_takes_the_long_way_as_if_new(body):
    receivers, replies = make_receivers(), []
    assert not whole.take(
        receivers.ingest, whole.judge(receivers.ingest, HTTP), body, replies.append
    )
    assert (replies, receivers.counts(), receivers.ingest.in_hand) == ([], {}, 0)
    receivers.check_books()


async def test_nothing_takes_the_short_way_while_stopping_or_without_memory():
    receivers, replies = make_receivers(), []
    filler = receivers.budget.limit - len(GOOD)
    receivers.budget.try_reserve(filler)
    assert not whole.take(
        receivers.ingest, whole.judge(receivers.ingest, HTTP), GOOD, replies.append
    )
    receivers.budget.release(filler)
    await receivers.ingest.stop(1)
    assert not whole.take(
        receivers.ingest, whole.judge(receivers.ingest, HTTP), GOOD, replies.append
    )
    assert (replies, receivers.counts()) == ([], {})
    receivers.check_books()
