"""The sans-I/O core: what a transport may call in which order, and what comes of it."""

from __future__ import annotations

import asyncio
import gzip
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from gateway.errors import Cause, Refused
from gateway.receivers.books import Sender
from gateway.receivers.ingest import Head
from tests.kit.receivers import MIB, Receivers
from tests.kit.spans import make_payload, make_request, make_span

PAYLOAD = make_payload(3)
SENDER = Sender("http", "10.0.0.1:4711", "request-1")
HEAD = Head(SENDER, "POST", "/v1/traces", "application/x-protobuf")


class Client:
    """Both ends of the exchanges of one ingest: calls like a transport, keeps the replies."""

    def __init__(self, **limits) -> None:
        bounds = {
            "memory_bytes": MIB,
            "max_request_bytes": MIB // 4,
            "batch_spans": 100,
            "batch_bytes": MIB,
        }
        self.receivers = Receivers(**bounds | limits)
        self.intake = self.receivers.intake
        self.budget = self.receivers.budget
        self.replies = []

    def begin(self, **head):
        return self.receivers.ingest.begin(HEAD._replace(**head), self.replies.append)

    def send(self, body=PAYLOAD, **head):
        exchange = self.begin(**head)
        exchange.feed(body)
        exchange.end()
        return self.replies[-1]

    @property
    def durations(self):
        return sum(self.receivers.metrics.request_duration.series("http").counts)


@pytest.fixture
def client():
    used = Client()
    yield used
    assert used.receivers.ingest.in_hand == 0
    used.receivers.check_books()


def test_accepts_in_one_go_where_the_intake_settles_at_once(client):
    reply = client.send(tenants=["team-7"])
    assert (reply.refused, reply.http_status, reply.grpc_code, reply.body) == (None, 200, 0, b"")
    (envelope,) = client.intake.taken
    assert (envelope.tenant, envelope.payload, envelope.spans) == ("team-7", PAYLOAD, 3)
    assert envelope.received_at > 1.7e9
    assert client.durations == 1


def test_answers_only_when_the_intake_has_settled(client):
    client.intake.holding = True
    exchange = client.begin()
    exchange.feed(PAYLOAD)
    exchange.end()
    assert client.replies == []
    assert client.receivers.counts() == {}
    assert client.budget.used >= len(PAYLOAD)
    client.intake.settle()
    assert [reply.http_status for reply in client.replies] == [200]


def test_takes_a_body_in_any_pieces(client):
    exchange = client.begin(content_encoding="gzip")
    for byte in gzip.compress(PAYLOAD):
        exchange.feed(bytes((byte,)))
    exchange.end()
    assert client.intake.payload == PAYLOAD


def test_offers_all_envelopes_of_a_request_at_once(client):
    offers = []
    client.intake.offer = lambda envelopes, settled: (offers.append(envelopes), settled(None))
    client.send(make_payload(250))
    client.intake.taken += offers[0]
    assert (len(offers), [envelope.spans for envelope in offers[0]]) == (1, [100, 100, 50])


def test_a_head_that_is_refused_is_answered_at_once_and_its_body_ignored(client):
    exchange = client.begin(path="/v1/metrics")
    assert [reply.http_status for reply in client.replies] == [404]
    exchange.feed(PAYLOAD)
    exchange.end()
    exchange.abandon()
    exchange.refuse(Refused(Cause.SLOW_CLIENT, "too late"))
    assert len(client.replies) == 1
    assert client.intake.taken == []
    assert client.durations == 0


@pytest.mark.parametrize(
    ("faults", "cause"),
    [
        ({"path": "/x", "method": "GET", "content_type": None}, Cause.NOT_FOUND),
        ({"method": "GET", "content_type": None, "tenants": ["/"]}, Cause.METHOD),
        ({"content_type": "text/plain", "tenants": ["/"]}, Cause.MALFORMED),
        ({"content_type": "text/plain", "content_encoding": "br"}, Cause.CONTENT_TYPE),
        ({"content_encoding": "br", "content_length": MIB}, Cause.CONTENT_ENCODING),
        ({"content_length": MIB // 4 + 1}, Cause.TOO_LARGE),
    ],
)
def test_names_the_first_fault_of_a_head(client, faults, cause):
    client.begin(**faults)
    assert [reply.refused.cause for reply in client.replies] == [cause]


def test_a_transport_refuses_for_reasons_of_its_own(client):
    exchange = client.begin(content_length=1000)
    exchange.feed(PAYLOAD)
    exchange.refuse(Refused(Cause.SLOW_CLIENT, "too slow"))
    exchange.end()
    assert [reply.http_status for reply in client.replies] == [408]
    assert client.receivers.counts() == {"refused_requests/slow_client": 1}


def test_an_abandoned_body_leaves_no_trace(client):
    exchange = client.begin(content_length=1000)
    exchange.feed(PAYLOAD)
    exchange.abandon()
    exchange.abandon()
    exchange.end()
    assert (client.replies, client.receivers.counts()) == ([], {})


def test_after_its_end_a_request_cannot_be_abandoned_or_refused(client):
    client.intake.holding = True
    exchange = client.begin()
    exchange.feed(PAYLOAD)
    exchange.end()
    exchange.abandon()
    exchange.refuse(Refused(Cause.SLOW_CLIENT, "too late"))
    exchange.end()
    assert client.receivers.ingest.in_hand == 1
    client.intake.settle()
    assert [reply.http_status for reply in client.replies] == [200]


def test_answers_once_even_if_the_intake_settles_twice(client):
    def offer(envelopes, settled):
        client.intake.taken += envelopes
        settled(None)
        settled(Refused(Cause.INTERNAL, "again"))
        settled(None)
        raise ZeroDivisionError

    client.intake.offer = offer
    assert client.send().http_status == 200
    assert len(client.replies) == 1


@pytest.mark.parametrize("cause", Cause)
def test_a_refusal_counts_as_nothing_but_a_refused_request(client, cause):
    client.intake.refusals.append(Refused(cause, "no"))
    assert client.send().refused.cause is cause
    assert client.receivers.counts() == {f"refused_requests/{cause.value.reason}": 1}
    assert client.durations == 1


def test_a_request_of_bad_spans_only_is_not_offered(client):
    client.intake.refusals.append(ZeroDivisionError("was asked"))
    reply = client.send(make_request(make_span(trace_id=bytes(16))).SerializeToString())
    partial = ExportTraceServiceResponse.FromString(reply.body).partial_success
    assert (reply.http_status, partial.rejected_spans) == (200, 1)


def test_holds_memory_for_what_has_come_until_the_answer(client):
    client.intake.holding = True
    exchange = client.begin(content_length=len(PAYLOAD))
    assert client.budget.used == 0
    exchange.feed(PAYLOAD[:10])
    assert client.budget.used == 10
    exchange.feed(PAYLOAD[10:])
    assert client.budget.used == len(PAYLOAD)
    exchange.end()
    assert client.budget.used == len(PAYLOAD)
    assert client.budget.peak > 2 * len(PAYLOAD)  # while it decoded
    client.intake.settle()
    assert client.budget.used == 0


def test_an_answered_request_holds_nothing_of_its_body(client):
    body = make_payload(3)
    exchange = client.begin()
    exchange.feed(body)
    exchange.end()
    assert client.intake.taken[0].payload is body
    assert sys.getrefcount(body) == 3  # ours, the intake's, and the argument here


def test_json_that_would_become_too_much_is_refused_before_it_is_decoded(client):
    reply = client.send(b"," * 10_000, content_type="application/json")
    assert reply.refused.cause is Cause.TOO_LARGE
    assert "GATEWAY_MEMORY_BYTES" in reply.refused.message


@pytest.mark.parametrize("body", [b"," * 10_000, b"[" * 100], ids=["too large", "malformed"])
def test_a_refusal_holds_nothing_of_its_request(client, body):
    """Until its answer is sent, which a slow client delays, while the memory counts as released."""
    refused = client.send(body, content_type="application/json").refused
    assert (refused.__traceback__, refused.__context__, refused.__cause__) == (None, None, None)


def test_requests_that_fit_alone_but_not_together_come_through_one_by_one(client):
    first = client.begin(content_length=len(PAYLOAD))
    first.feed(PAYLOAD)
    client.budget.try_reserve(960_000)
    client.begin(content_length=100_000)
    assert client.replies[0].refused.cause is Cause.MEMORY_FULL
    assert client.replies[0].http_headers()["Retry-After"] == "1"
    client.budget.release(960_000)
    first.end()
    assert client.replies[1].http_status == 200


# -- stop ----------------------------------------------------------------------------------------


async def test_stops_at_once_with_nothing_in_hand_and_twice(client):
    assert await client.receivers.ingest.stop(0) == 0
    assert await client.receivers.ingest.stop(60) == 0
    assert client.send().refused.cause is Cause.STOPPING


async def test_stops_at_its_deadline_and_says_what_is_still_in_hand(client, caplog):
    client.intake.holding = True
    exchange = client.begin()
    exchange.feed(PAYLOAD)
    exchange.end()
    assert await client.receivers.ingest.stop(0.01) == 1
    (record,) = [record for record in caplog.records if record.msg == "requests cut short"]
    assert record.facts == {"count": 1}
    client.intake.settle()
    assert client.receivers.counts()["accepted_spans"] == 3


async def test_stops_when_the_last_request_is_answered_or_abandoned(client):
    client.intake.holding = True
    answered, left = client.begin(), client.begin()
    answered.feed(PAYLOAD)
    answered.end()
    stop = asyncio.ensure_future(client.receivers.ingest.stop(10))
    await asyncio.sleep(0)
    client.intake.settle()
    await asyncio.sleep(0)
    assert not stop.done()
    left.abandon()
    assert await stop == 0


# -- whatever comes ------------------------------------------------------------------------------

HEADS = st.fixed_dictionaries(
    {
        "path": st.sampled_from(["/v1/traces", "/v1/traces", "/v1/logs"]),
        "content_type": st.sampled_from(["application/x-protobuf", "application/json", None]),
        "content_encoding": st.sampled_from(["", "gzip", "zstd", "deflate", "br"]),
        "content_length": st.sampled_from([None, 0, 1000, MIB]),
        "tenants": st.lists(st.text(max_size=5), max_size=2),
    }
)
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=50),
        st.sampled_from([PAYLOAD, PAYLOAD[:20], gzip.compress(PAYLOAD), b'{"resourceSpans":[]}']),
    ),
    max_size=4,
)
ENDS = st.sampled_from(["end", "refuse", "abandon"])


@given(heads=st.lists(st.tuples(HEADS, PIECES, ENDS), max_size=4), holding=st.booleans())
def test_whatever_comes_each_request_gets_one_answer_and_the_books_balance(heads, holding):
    client = Client()
    client.intake.holding = holding
    abandoned = 0
    for head, pieces, end in heads:
        before = len(client.replies)
        exchange = client.begin(**head)
        for piece in pieces:
            exchange.feed(piece)
        if end == "refuse":
            exchange.refuse(Refused(Cause.SLOW_CLIENT, "too slow"))
        elif end == "end":
            exchange.end()
        elif len(client.replies) == before:
            abandoned += 1
        exchange.abandon()
    client.intake.settle()
    assert len(client.replies) == len(heads) - abandoned
    assert client.receivers.ingest.in_hand == 0
    client.receivers.check_books()
    assert client.receivers.counts().get("refused_requests/internal") is None
