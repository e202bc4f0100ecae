"""HTTP/1.1 on one connection, without sockets; with sockets it is in test_same_as_aiohttp."""

from __future__ import annotations

import gzip

import pytest

from gateway.receivers.frontdoor.http1.answers import Answers
from gateway.receivers.frontdoor.http1.request import MAX_HEAD_BYTES
from gateway.receivers.frontdoor.http1.speaker import Http1
from gateway.receivers.frontdoor.wire import Timing
from tests.kit.receivers import MIB, Receivers
from tests.kit.spans import make_payload
from tests.receivers.frontdoor.peers import RecordedWire

TIMING = Timing()
PROTOBUF = "Content-Type: application/x-protobuf\r\n"
GET = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"


def request(body: bytes, head: str = PROTOBUF, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"POST /v1/traces HTTP/1.1\r\n{head}Content-Length: {size}\r\n\r\n".encode() + body


class Peer:
    """A client of one connection."""

    def __init__(self) -> None:
        self.receivers = Receivers(
            memory_bytes=64 * MIB, max_request_bytes=MIB, batch_spans=8192, batch_bytes=MIB
        )
        self.intake = self.receivers.intake
        self.wire = RecordedWire()
        self.now = 1000.0
        self.speaker = Http1(
            self.wire,
            self.receivers.ingest,
            Answers(),
            TIMING,
            self.now,
            retire_at=self.now + 500,
        )

    def send(self, data: bytes) -> list[int]:
        """Send; the statuses that come back."""
        self.speaker.receive(data, self.now)
        return self.statuses()

    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.wire.take().decode("latin-1").split("HTTP/1.1 ")[1:]]

    def after(self, seconds: float) -> list[int]:
        self.now += seconds
        self.speaker.check(self.now)
        return self.statuses()


@pytest.fixture
async def peer():
    made = Peer()
    yield made
    made.speaker.lost()
    made.receivers.check_books()


async def test_requests_follow_one_another(peer):
    for _ in range(3):
        assert peer.send(request(make_payload())) == [200]
    assert peer.wire.ends == []


async def test_a_request_may_come_in_any_pieces(peer):
    data = request(make_payload())
    statuses = [status for at in range(len(data)) for status in peer.send(data[at : at + 1])]
    assert statuses == [200]


async def test_a_head_is_known_whatever_the_body_is_and_however_it_comes(peer):
    good, bad, large = make_payload(), b"\xff", make_payload(50)
    assert peer.send(request(good)) == [200]
    assert peer.send(request(bad)) == [400]
    data = request(large)
    assert peer.send(data[:1000]) == []
    assert peer.send(data[1000:] + request(b"")) == [200, 200]
    assert peer.intake.spans == 51


async def test_other_heads_between_known_ones_are_what_they_are(peer):
    good, other = request(make_payload()), "Content-Type: text/plain\r\n"
    compressed = PROTOBUF + "Content-Encoding: gzip\r\n"
    body = make_payload()
    for _ in range(2):
        assert peer.send(good) == [200]
        assert peer.send(request(body, other)) == [415]
        assert peer.send(request(gzip.compress(body), compressed)) == [200]
        assert peer.send(request(body, compressed)) == [400]
    assert peer.intake.spans == 4


async def test_requests_sent_ahead_are_answered_in_order(peer):
    good, bad = request(make_payload()), request(b"\xff")
    assert peer.send(good + bad + good + bad) == [200, 400, 200, 400]


async def test_requests_sent_ahead_wait_for_the_answer_before(peer):
    peer.intake.holding = True
    assert peer.send(request(make_payload()) * 3) == []
    assert peer.intake.open == 1
    peer.intake.settle()
    assert peer.statuses() == [200]
    assert peer.intake.open == 1
    peer.intake.holding = False
    peer.intake.settle()
    assert peer.statuses() == [200, 200]


async def test_no_more_than_a_bit_is_read_ahead(peer):
    peer.intake.holding = True
    peer.send(request(make_payload()))
    peer.send(request(make_payload()) * 300)
    assert peer.wire.held
    peer.intake.holding = False
    peer.intake.settle()
    assert peer.statuses() == [200] * 301
    assert not peer.wire.held


async def test_nothing_is_begun_while_the_peer_does_not_read(peer):
    peer.wire.paused = True
    assert peer.send(request(make_payload())) == []
    assert peer.intake.spans == 0
    peer.wire.paused = False
    peer.speaker.resumed()
    assert peer.statuses() == [200]


async def test_another_request_goes_to_the_general_server_with_all_that_follows(peer):
    after = GET + request(make_payload())
    assert peer.send(request(make_payload()) + after) == [200]
    assert peer.wire.handed_over == after
    assert peer.send(b"more") == []


async def test_another_request_waits_for_the_answer_before(peer):
    peer.intake.holding = True
    peer.send(request(make_payload()) + GET)
    assert peer.wire.handed_over is None
    peer.intake.settle()
    assert peer.statuses() == [200]
    assert peer.wire.handed_over == GET


async def test_a_head_for_the_general_server_is_handed_over_whole(peer):
    """So that slow heads are bounded here."""
    peer.send(GET[:-2])
    assert peer.wire.handed_over is None
    peer.send(GET[-2:])
    assert peer.wire.handed_over == GET


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00\x01\x02", id="no text"),
        pytest.param(b"\r\nPOST", id="line end first"),
        pytest.param(b"POST /v1/traces HTTP/1.1\nHost: x\n\n", id="bare LF"),
        pytest.param(b"POST /v1/traces HTTP/1.1\r\nA: " + b"x" * MAX_HEAD_BYTES, id="long"),
        pytest.param(b"POST /v1/traces HTTP/1.0\r\n\r\n", id="HTTP/1.0"),
        pytest.param(b"POST /v1/traces?x HTTP/1.1\r\n\r\n", id="query"),
        pytest.param(request(b"", "Expect: 100-continue\r\n"), id="expects"),
        pytest.param(request(b"abc", "Transfer-Encoding: chunked\r\n"), id="ambiguous"),
    ],
)
async def test_what_is_unusual_goes_to_the_general_server_at_once(peer, data):
    assert peer.send(data) == []
    assert peer.wire.handed_over == data


async def test_an_early_refusal_is_answered_before_the_body_and_the_next_request_after_it(peer):
    assert peer.send(request(bytes(1000), "Content-Type: text/plain\r\n", length=5000)) == [415]
    assert peer.send(bytes(4000) + request(make_payload())) == [200]
    assert peer.wire.ends == []


async def test_a_refused_body_is_not_awaited_for_ever(peer):
    peer.send(request(b"", "Content-Type: text/plain\r\n", length=5000))
    peer.after(TIMING.discard_s - 1)
    assert peer.wire.ends == []
    peer.after(2)
    assert peer.wire.ends == ["finish"]


async def test_a_client_that_wants_to_close_gets_its_answer_first(peer):
    peer.speaker.receive(request(make_payload(), PROTOBUF + "Connection: close\r\n"), peer.now)
    assert b"Connection: close" in peer.wire.take()
    assert peer.wire.ends == ["finish"]


async def test_a_client_that_sends_no_more_gets_its_answer_first(peer):
    peer.intake.holding = True
    peer.send(request(make_payload()))
    assert peer.speaker.half_closed()
    peer.intake.settle()
    assert peer.statuses() == [200]
    assert peer.wire.ends == ["finish"]


async def test_a_client_that_sends_no_more_inside_a_body_is_gone(peer):
    peer.send(request(b"ab", length=10))
    assert not peer.speaker.half_closed()


async def test_broken_chunks_are_refused_and_end_the_connection(peer):
    head = f"POST /v1/traces HTTP/1.1\r\n{PROTOBUF}Transfer-Encoding: chunked\r\n\r\n".encode()
    assert peer.send(head + b"3\r\nabcdef") == []
    assert peer.send(b"\r\n") == [400]
    assert peer.wire.ends == ["finish"]
    assert peer.receivers.counts() == {"refused_requests/malformed": 1}


async def test_requests_may_follow_a_chunked_one(peer):
    head = f"POST /v1/traces HTTP/1.1\r\n{PROTOBUF}Transfer-Encoding: chunked\r\n\r\n".encode()
    payload = make_payload()
    chunked = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(payload), payload)
    assert peer.send((chunked + request(payload)) * 2) == [200] * 4


async def test_small_pieces_do_not_pile_up(peer):
    """Each would take forty bytes more than it holds."""
    peer.send(request(b"", length=100_000))
    for _ in range(10_000):
        peer.send(b"x")
    assert len(peer.speaker._exchange._pieces) < 30


async def test_a_slow_head_ends_the_connection(peer):
    peer.send(b"POST /v1/traces HTTP/1.1\r\n")
    for _ in range(4):
        peer.after(TIMING.head_s / 4 - 0.1)
        peer.send(b"A: b\r\n")
    assert peer.wire.ends == []
    peer.after(1)
    assert peer.wire.ends == ["close"]


async def test_an_idle_connection_is_kept_for_a_while(peer):
    peer.send(request(make_payload()))
    peer.after(TIMING.keepalive_s - 1)
    assert peer.wire.ends == []
    peer.after(2)
    assert peer.wire.ends == ["close"]


@pytest.mark.parametrize("step_s", [TIMING.body_idle_s + 1, TIMING.body_idle_s / 2])
async def test_a_slow_body_is_told_so(peer, step_s):
    peer.send(request(b"", length=1000))
    statuses = []
    while not statuses and peer.now < 1100:
        statuses = peer.after(step_s)
        peer.send(b"x")
    assert statuses == [408]
    assert peer.wire.ends == ["finish"]


async def test_a_connection_is_renewed_after_its_age(peer):
    peer.now += 501
    peer.speaker.receive(request(make_payload()), peer.now)
    assert b"Connection: close" in peer.wire.take()
    assert peer.wire.ends == ["finish"]


async def test_draining_ends_an_idle_connection_at_once_and_a_busy_one_with_its_answer(peer):
    other = Peer()
    other.send(request(make_payload()))
    other.speaker.drain(other.now)
    assert other.wire.ends == ["close"]

    peer.intake.holding = True
    peer.send(request(make_payload()))
    peer.speaker.drain(peer.now)
    assert peer.wire.ends == []
    peer.intake.settle()
    assert b"Connection: close" in peer.wire.take()
    assert peer.wire.ends == ["finish"]


async def test_a_client_that_leaves_inside_a_body_leaves_nothing_behind(peer):
    peer.send(request(bytes(600), length=1000))
    assert peer.receivers.budget.used
    peer.speaker.lost()
    assert not peer.receivers.budget.used
    assert peer.receivers.ingest.in_hand == 0


async def test_spans_of_a_client_that_leaves_before_its_answer_stay_accepted(peer):
    peer.intake.holding = True
    peer.send(request(make_payload(2)))
    peer.speaker.lost()
    peer.intake.settle()
    assert peer.receivers.counts() == {"received_spans/http/protobuf": 2, "accepted_spans": 2}
