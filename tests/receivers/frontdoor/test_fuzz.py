"""Whatever a peer sends, in whatever pieces, nothing is raised and the books balance."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.receivers.frontdoor.http1.answers import Answers
from gateway.receivers.frontdoor.http1.speaker import Http1
from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2.speaker import Http2
from gateway.receivers.frontdoor.rpc.calls import Calls
from gateway.receivers.frontdoor.sniff import sniff
from gateway.receivers.frontdoor.wire import Timing
from tests.kit.receivers import MIB, Receivers
from tests.kit.spans import make_payload
from tests.receivers.frontdoor.peers import HELLO, RecordedWire, data, headers
from tests.receivers.frontdoor.rpc.test_export import block

PAYLOAD = make_payload()
MESSAGE = b"\0" + len(PAYLOAD).to_bytes(4, "big") + PAYLOAD
BLOCK = block()

stream_ids = st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1])
payloads = st.one_of(
    st.binary(max_size=40), st.sampled_from([MESSAGE, MESSAGE[:9], BLOCK, BLOCK[:7], bytes(8)])
)
any_frames = st.builds(
    frames.frame,
    st.integers(0, 11),
    st.sampled_from([0, 1, 4, 5, 8, 13, 32, 255]),
    stream_ids,
    payloads,
)
good_frames = st.one_of(
    st.builds(lambda stream, ended: headers(stream, BLOCK, ended=ended), stream_ids, st.booleans()),
    st.builds(lambda stream, ended: data(stream, MESSAGE, ended=ended), stream_ids, st.booleans()),
    st.builds(frames.window_frame, stream_ids, st.integers(0, 2**31 - 1)),
    st.sampled_from([HELLO, frames.SETTINGS_ACK]),
)
head_lines = st.sampled_from(
    [
        "Content-Length: 3",
        f"Content-Length: {len(PAYLOAD)}",
        "Transfer-Encoding: chunked",
        "Content-Type: application/x-protobuf",
        "Content-Type: application/json",
        "Content-Encoding: gzip",
        "Connection: close",
        "Expect: 100-continue",
        "X-Scope-OrgID: a",
        "A: \x00",
        " folded",
    ]
)
http1_parts = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"3\r\nabc\r\n", b"0\r\n\r\n", b"{}\r\n", PAYLOAD, b"GET / HTTP/1.1\r\n\r\n"]),
    st.builds(
        lambda lines: (
            "POST /v1/traces HTTP/1.1\r\n" + "".join(line + "\r\n" for line in lines) + "\r\n"
        ).encode(),
        st.lists(head_lines, max_size=4),
    ),
)
times = st.lists(st.floats(0, 100), max_size=3)


def pieces_of(sent: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(sent) + 1) for point in points), len(sent)]
    return [sent[a:b] for a, b in itertools.pairwise(edges)]


def run(make, sent: bytes, points: list[int], waits: list[float], *, hold: bool) -> RecordedWire:
    """A connection from its first byte to its end."""

    async def connection() -> RecordedWire:
        receivers = Receivers(
            memory_bytes=MIB, max_request_bytes=MIB, batch_spans=8192, batch_bytes=MIB
        )
        receivers.intake.holding = hold
        wire = RecordedWire()
        speaker = make(wire, receivers.ingest)
        now = 0.0
        for piece in pieces_of(sent, points):
            speaker.receive(piece, now)
        receivers.intake.settle()
        for wait in waits:
            now += wait
            speaker.check(now)
        speaker.drain(now)
        receivers.intake.holding = False
        speaker.lost()
        receivers.intake.settle()
        receivers.check_books()
        assert receivers.ingest.in_hand == 0
        return wire

    return asyncio.run(connection())


def http2(wire, ingest):
    timing = Timing()
    return Http2(wire, Calls(ingest, {}, None, timing), timing, 0.0, retire_at=50.0)


def http1(wire, ingest):
    return Http1(wire, ingest, Answers(), Timing(), 0.0, retire_at=50.0)


@settings(max_examples=150)
@given(
    st.lists(st.one_of(any_frames, good_frames), max_size=12),
    st.lists(st.integers(0, 3000), max_size=6),
    times,
    st.booleans(),
)
def test_http2(sent, points, waits, hold):
    wire = run(http2, HELLO + b"".join(sent), points, waits, hold=hold)
    for _ in frames.FrameReader().feed(wire.written):
        pass  # all that was answered is frames


@settings(max_examples=150)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6), times)
def test_http2_with_any_bytes(sent, points, waits):
    run(http2, sent, points, waits, hold=False)


@settings(max_examples=200)
@given(
    st.lists(http1_parts, max_size=8),
    st.lists(st.integers(0, 1000), max_size=6),
    times,
    st.booleans(),
)
def test_http1(sent, points, waits, hold):
    run(http1, b"".join(sent), points, waits, hold=hold)


@given(st.lists(http1_parts, max_size=6), st.lists(st.integers(0, 1000), max_size=8))
def test_http1_answers_the_same_whatever_the_pieces(sent, points):
    joined = b"".join(sent)
    whole = run(http1, joined, [], [], hold=False)
    cut = run(http1, joined, points, [], hold=False)
    assert statuses(cut) == statuses(whole)


def statuses(wire: RecordedWire) -> list[bytes]:
    return [part[:3] for part in wire.written.split(b"HTTP/1.1 ")[1:]]


@given(st.binary(max_size=40))
def test_what_is_spoken_is_known_after_24_bytes(sent):
    assert sniff(sent.ljust(24, b"\0")) is not None
