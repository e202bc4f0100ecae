"""Export without sockets: however a message is cut, it means the same."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2.headers import encode
from gateway.receivers.frontdoor.rpc.calls import Calls
from gateway.receivers.frontdoor.wire import Timing
from gateway.receivers.headers import EXPORT_METHOD
from tests.kit.receivers import MIB, Receivers
from tests.kit.spans import make_payload
from tests.receivers.frontdoor.peers import RawPeer, data, headers, resets

TIMING = Timing()
PAYLOAD = make_payload(3)
MESSAGE = b"\0" + len(PAYLOAD).to_bytes(4, "big") + PAYLOAD


def block(path: str = EXPORT_METHOD, **fields: str) -> bytes:
    return encode(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            ("content-type", "application/grpc"),
            *((name.replace("_", "-"), value) for name, value in fields.items()),
        ]
    )


class Peer(RawPeer):
    def __init__(self, **limits: int) -> None:
        values = {"memory_bytes": 64 * MIB, "max_request_bytes": MIB} | limits
        self.receivers = Receivers(batch_spans=8192, batch_bytes=MIB, **values)
        self.intake = self.receivers.intake
        super().__init__(Calls(self.receivers.ingest, {}, None, TIMING))


def status(received: list[frames.Frame]) -> dict[str, str]:
    told: dict[str, str] = {}
    for kind, _, _, payload in received:
        if kind == frames.HEADERS:
            told |= dict(Decoder().decode(payload))
    return told


@pytest.fixture
async def peer():
    made = Peer()
    yield made
    made.speaker.lost()
    made.receivers.check_books()


def test_however_a_message_is_cut_it_is_taken_once():
    @given(st.lists(st.integers(0, len(MESSAGE)), max_size=6), st.booleans())
    def check(points, ended_apart):
        peer = Peer()
        received = peer.send(headers(1, block()))
        edges = [0, *sorted(points), len(MESSAGE)]
        pieces = [MESSAGE[a:b] for a, b in itertools.pairwise(edges)]
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            received += peer.send(data(1, piece, ended=last and not ended_apart))
        if ended_apart:
            received += peer.send(data(1, b"", ended=True))
        assert status(received)["grpc-status"] == "0"
        assert [envelope.payload for envelope in peer.intake.taken] == [PAYLOAD]
        peer.receivers.check_books()

    async def on_a_loop():
        check()

    asyncio.run(on_a_loop())


async def test_a_call_that_is_not_served_is_answered_when_it_has_begun_to_send(peer):
    """Before that, grpcio's clients would lose the answer."""
    unknown = block("/x/Y")
    assert peer.send(headers(1, unknown)) == []
    assert status(peer.send(data(1, b"x")))["grpc-status"] == "12"
    assert peer.send(headers(3, unknown)) == []
    assert peer.after(TIMING.body_idle_s - 1) == []
    assert status(peer.after(2))["grpc-status"] == "12"


async def test_the_size_is_refused_before_the_message_comes(peer):
    peer.send(headers(1, block()))
    received = peer.send(data(1, b"\0" + (2 * MIB).to_bytes(4, "big") + b"x"))
    assert status(received)["grpc-status"] == "8"
    assert resets(received) == {1: frames.ErrorCode.NO_ERROR}
    assert peer.send(data(1, bytes(1000))) == []


async def test_a_message_is_counted_against_the_budget_while_it_comes(peer):
    peer.send(headers(1, block()), data(1, b"\0" + (MIB // 2).to_bytes(4, "big") + bytes(1000)))
    assert peer.receivers.budget.used >= 1000
    peer.send(frames.reset_frame(1, frames.ErrorCode.CANCEL))
    assert peer.receivers.budget.used == 0


async def test_small_pieces_do_not_pile_up(peer):
    peer.send(headers(1, block()), data(1, b"\0" + (5000).to_bytes(4, "big")))
    for _ in range(900):
        peer.send(data(1, b"x"))
    call = peer.speaker._streams[1].call
    assert len(call._exchange._pieces) == 1


async def test_what_follows_the_message_is_ignored_while_the_answer_is_awaited(peer):
    peer.intake.holding = True
    peer.send(headers(1, block()), data(1, MESSAGE), data(1, MESSAGE), data(1, b"x", ended=True))
    assert peer.intake.open == 1
    peer.intake.settle()
    assert status(peer.read())["grpc-status"] == "0"
    assert peer.intake.spans == 3


@pytest.mark.parametrize("step_s", [TIMING.body_idle_s + 1, TIMING.body_idle_s / 2])
async def test_a_slow_message_is_told_so(peer, step_s):
    peer.send(headers(1, block()), data(1, MESSAGE[:20]))
    received = []
    while not received and peer.now < 1100:
        received = peer.after(step_s)
        peer.send(data(1, b"x"))
    assert status(received)["grpc-status"] == "4"
    assert "in time" in status(received)["grpc-message"]
    assert peer.receivers.counts() == {"refused_requests/slow_client": 1}


async def test_a_call_that_never_sends_a_message_is_told_so(peer):
    peer.send(headers(1, block()))
    assert status(peer.after(TIMING.body_idle_s + 1))["grpc-status"] == "4"


async def test_a_deadline_ends_a_call_inside_its_message(peer):
    peer.send(headers(1, block(grpc_timeout="2S")), data(1, MESSAGE[:20]))
    assert status(peer.after(1)) == {}
    assert status(peer.after(1.5))["grpc-message"] == "Deadline Exceeded"
    assert peer.receivers.budget.used == 0
    assert peer.intake.taken == []


async def test_a_deadline_while_the_pipeline_works_is_told_and_the_spans_stay(peer):
    peer.intake.holding = True
    peer.send(headers(1, block(grpc_timeout="2S")), data(1, MESSAGE, ended=True))
    assert status(peer.after(2.5))["grpc-status"] == "4"
    peer.intake.settle()
    assert peer.read() == []
    assert peer.receivers.counts()["accepted_spans"] == 3


async def test_an_answer_for_a_client_that_has_left_goes_nowhere(peer):
    peer.intake.holding = True
    peer.send(headers(1, block()), data(1, MESSAGE, ended=True))
    peer.send(frames.reset_frame(1, frames.ErrorCode.CANCEL))
    peer.intake.settle()
    assert peer.read() == []
    assert peer.receivers.counts()["accepted_spans"] == 3


async def test_calls_with_the_same_headers_share_what_was_made_of_them(peer):
    for stream_id in (1, 3, 5):
        received = peer.send(headers(stream_id, block()), data(stream_id, MESSAGE, ended=True))
        assert status(received)["grpc-status"] == "0"
    assert len(peer.speaker._headers._known) == 1
