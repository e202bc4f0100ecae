"""HTTP/2 as RFC 9113 asks, with a well-behaved peer (h2) and with raw ones."""

from __future__ import annotations

import h2.events
import pytest

from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2 import speaker as module
from gateway.receivers.frontdoor.http2.frames import ErrorCode, Setting, frame, settings_frame
from gateway.receivers.frontdoor.http2.headers import encode
from gateway.receivers.frontdoor.http2.outgoing import Answer
from gateway.receivers.frontdoor.http2.register import MAX_DISCARDED
from gateway.receivers.frontdoor.wire import Timing
from tests.receivers.frontdoor.peers import (
    BLOCK,
    END,
    HELLO,
    REQUEST,
    H2Peer,
    RawPeer,
    data,
    goaways,
    headers,
    kinds,
    resets,
)

CLEAN = Answer.of(encode([(":status", "200")]), b"\0" * 5, encode([("grpc-status", "0")]))
PING = frame(frames.PING, 0, 0, b"12345678")
TIMING = Timing()


def window(stream_id: int, increment: int) -> bytes:
    return frames.window_frame(stream_id, increment)


def reset(stream_id: int) -> bytes:
    return frames.reset_frame(stream_id, ErrorCode.CANCEL)


# -- requests and answers, with h2 as the client ---------------------------------------------------


def test_a_request_reaches_its_call_and_the_answer_the_client():
    peer = H2Peer()
    stream = peer.request(b"hello")
    call = peer.calls[0]
    assert (call.head.method, call.head.path, call.body, call.ended) == (
        "POST",
        "/a.B/C",
        b"hello",
        True,
    )
    call.answer(b"world")
    seen = [event for event in peer.sync() if getattr(event, "stream_id", 0) == stream]
    assert [type(event).__name__ for event in seen] == [
        "ResponseReceived",
        "DataReceived",
        "TrailersReceived",
        "StreamEnded",
    ]
    assert seen[1].data == b"world"
    assert not peer.raw.speaker.busy


def test_a_constant_answer_is_well_formed_on_every_stream():
    peer = H2Peer()
    for _ in range(300):
        peer.request(b"x")
        peer.calls[-1].speaker.out.answer(peer.calls[-1].stream, CLEAN)
        ended = [event for event in peer.sync() if isinstance(event, h2.events.StreamEnded)]
        assert len(ended) == 1


def test_a_request_without_a_body_has_ended():
    peer = H2Peer()
    peer.request()
    assert peer.calls[0].ended


def test_trailers_end_a_request():
    peer = H2Peer()
    stream = peer.request(b"x", ended=False)
    peer.client.send_headers(stream, [("checksum", "1")], end_stream=True)
    peer.sync()
    assert peer.calls[0].ended


def test_calls_are_answered_in_any_order():
    peer = H2Peer()
    streams = [peer.request(b"x") for _ in range(5)]
    for call in reversed(peer.calls):
        call.answer()
    ended = [event.stream_id for event in peer.sync() if isinstance(event, h2.events.StreamEnded)]
    assert ended == streams[::-1]


def test_large_bodies_come_through_since_windows_are_opened_again():
    peer = H2Peer()
    stream = peer.request(b"", ended=False)
    sent = 0
    while sent < 6 * 2**20:
        size = min(
            peer.client.local_flow_control_window(stream), peer.client.max_outbound_frame_size
        )
        assert size, "the windows were not opened again"
        peer.client.send_data(stream, bytes(size))
        sent += size
        peer.sync()
    assert len(peer.calls[0].body) == sent


def test_an_early_answer_ends_the_stream_and_what_still_comes_is_thrown_away():
    peer = H2Peer()
    stream = peer.request(b"part", ended=False)
    peer.client.send_data(stream, b"sent before the answer was read")
    in_flight = peer.client.data_to_send()
    peer.calls[0].speaker.out.respond(peer.calls[0].stream, encode([(":status", "200")]))
    seen = peer.sync()
    assert [type(event).__name__ for event in seen] == [
        "ResponseReceived",
        "StreamEnded",
        "StreamReset",
    ]
    assert seen[-1].error_code == ErrorCode.NO_ERROR
    assert peer.raw.send(in_flight) == []
    assert peer.calls[0].body == b"part"
    peer.request(b"next")
    assert peer.calls[1].body == b"next"


def test_an_answer_waits_for_the_window_of_its_stream():
    peer = H2Peer()
    peer.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 3})
    peer.sync()
    stream = peer.request(b"x")
    call = peer.calls[0]
    call.answer(b"abcdefgh")
    assert b"".join(e.data for e in peer.sync() if isinstance(e, h2.events.DataReceived)) == b"abc"
    peer.client.increment_flow_control_window(2, stream)
    assert b"".join(e.data for e in peer.sync() if isinstance(e, h2.events.DataReceived)) == b"de"
    peer.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
    rest = peer.sync()
    assert b"".join(e.data for e in rest if isinstance(e, h2.events.DataReceived)) == b"fgh"
    assert any(isinstance(event, h2.events.StreamEnded) for event in rest)


def test_a_constant_answer_waits_for_windows_too():
    peer = H2Peer()
    peer.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    peer.sync()
    stream = peer.request(b"x")
    peer.calls[0].speaker.out.answer(peer.calls[0].stream, CLEAN)
    assert [type(event).__name__ for event in peer.sync()] == ["ResponseReceived"]
    assert peer.raw.speaker.busy
    peer.client.increment_flow_control_window(5, stream)
    assert any(isinstance(event, h2.events.StreamEnded) for event in peer.sync())
    assert not peer.raw.speaker.busy


def test_a_constant_answer_waits_for_the_window_of_the_connection_too():
    peer = RawPeer()
    peer.open(1, ended=True).answer(bytes(frames.DEFAULT_WINDOW - 4))
    call = peer.open(3, ended=True)
    peer.read()
    call.speaker.out.answer(call.stream, CLEAN)
    assert [len(payload) for kind, _, _, payload in peer.read() if kind == frames.DATA] == [4]
    received = peer.send(window(0, 10))
    assert [len(payload) for kind, _, _, payload in received if kind == frames.DATA] == [1]
    assert not peer.speaker.busy


def test_answers_share_the_window_of_the_connection():
    peer = RawPeer()
    calls = [peer.open(1, ended=True), peer.open(3, ended=True)]
    for call in calls:
        call.answer(bytes(60_000))
    sent = sum(len(payload) for kind, _, _, payload in peer.read() if kind == frames.DATA)
    assert sent == frames.DEFAULT_WINDOW
    received = peer.send(window(0, 10**6), window(3, 10**6))
    assert sum(len(payload) for kind, _, _, payload in received if kind == frames.DATA) == (
        120_000 - frames.DEFAULT_WINDOW
    )
    assert not peer.speaker.busy


def test_frames_are_no_larger_than_the_peer_takes():
    peer = RawPeer()
    peer.send(settings_frame({Setting.INITIAL_WINDOW_SIZE: 2**20}), window(0, 2**20))
    peer.open(1, ended=True).answer(bytes(50_000))
    sizes = [len(payload) for kind, _, _, payload in peer.read() if kind == frames.DATA]
    assert max(sizes) == 16_384
    peer.send(settings_frame({Setting.MAX_FRAME_SIZE: 40_000}))
    peer.open(3, ended=True).answer(bytes(50_000))
    assert [len(payload) for kind, _, _, payload in peer.read() if kind == frames.DATA] == [
        40_000,
        10_000,
    ]


def test_a_call_hears_when_all_it_sent_is_out():
    peer = RawPeer()
    call = peer.open(1, ended=True)
    call.speaker.out.begin(call.stream, encode([(":status", "200")]))
    call.speaker.out.send(call.stream, bytes(60_000))
    assert call.writables == 1
    call.speaker.out.send(call.stream, bytes(60_000))
    assert call.writables == 1
    peer.send(window(0, 10**6), window(1, 10**6))
    assert call.writables == 2


def test_nothing_is_made_while_the_peer_does_not_read():
    peer = RawPeer()
    call = peer.open(1, ended=True)
    peer.wire.paused = True
    call.answer(bytes(100))
    assert frames.DATA not in kinds(peer.read())
    peer.wire.paused = False
    peer.speaker.resumed()
    assert kinds(peer.read()) == [frames.DATA, frames.HEADERS]


def test_a_cancelled_call_hears_of_it_once_and_its_window_is_given_back():
    peer = RawPeer()
    call = peer.open(1)
    peer.send(data(1, bytes(1000)), reset(1))
    assert call.cancelled
    assert not peer.speaker.busy
    assert peer.send(PING) == [(frames.PING, frames.ACK, 0, b"12345678")]


def test_all_calls_are_cancelled_with_their_connection():
    peer = RawPeer()
    calls = [peer.open(1), peer.open(3)]
    peer.speaker.lost()
    assert [call.cancelled for call in calls] == [True, True]


# -- the rules -------------------------------------------------------------------------------------

UNKNOWN = frame(0x42, 0xFF, 1, b"grease")
PRIORITY = frame(frames.PRIORITY, 0, 9, bytes(5))

FINE = {
    "ping": [PING],
    "unknown frame type": [UNKNOWN],
    "unknown setting": [frame(frames.SETTINGS, 0, 0, bytes.fromhex("9a9a 00000001"))],
    "priority of an idle stream": [PRIORITY],
    "priority of a closed stream": [headers(3), reset(3), frame(2, 0, 3, bytes(5))],
    "padded data": [headers(1), frame(0, frames.PADDED, 1, b"\2ab\0\0")],
    "empty padded data": [headers(1), frame(0, frames.PADDED, 1, b"\0")],
    "padded headers": [headers(1, b"\3" + BLOCK + bytes(3), flags=END | frames.PADDED)],
    "headers with priority": [headers(1, bytes(5) + BLOCK, flags=END | frames.HAS_PRIORITY)],
    "continued headers": [
        headers(1, BLOCK[:9], flags=0),
        frame(9, 0, 1, BLOCK[9:20]),
        frame(9, frames.END_HEADERS, 1, BLOCK[20:]),
    ],
    "skipped stream numbers": [headers(9), headers(101)],
    "window update of a stream just ended": [headers(1), reset(1), window(1, 10)],
    "reset of a stream just ended": [headers(1), reset(1), reset(1)],
    "settings ack": [frames.SETTINGS_ACK],
    "settings twice": [HELLO, HELLO],
    "flags that are not defined": [frame(frames.PING, 0xFE, 0, bytes(8))],
    "reserved bit": [bytes.fromhex("000008 06 00 80000000") + bytes(8)],
}


@pytest.mark.parametrize("sent", FINE.values(), ids=FINE)
def test_what_is_allowed_is_taken(sent):
    peer = RawPeer()
    peer.send(*sent)
    assert peer.send(PING)[-1] == (frames.PING, frames.ACK, 0, b"12345678")
    assert peer.alive


BIG_WINDOW = settings_frame({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1})
P, F, S, SC = (
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.FRAME_SIZE_ERROR,
    ErrorCode.STREAM_CLOSED,
)

CONNECTION_FAULTS = {
    "data on stream 0": ([data(0, b"x")], P),
    "data on an idle stream": ([data(1, b"x")], P),
    "headers on stream 0": ([headers(0)], P),
    "headers on an even stream": ([headers(2)], P),
    "data on an even stream": ([data(2, b"x")], P),
    "headers on a stream skipped before": ([headers(5), headers(3, ended=True)], SC),
    "headers on a stream that was cancelled": ([headers(1), reset(1), headers(1, ended=True)], SC),
    "data on a stream that was cancelled": ([headers(1), reset(1), data(1, b"x")], SC),
    "reset of stream 0": ([reset(0)], P),
    "reset of an idle stream": ([reset(1)], P),
    "reset of 3 bytes": ([headers(1), frame(3, 0, 1, bytes(3))], S),
    "priority of stream 0": ([frame(2, 0, 0, bytes(5))], P),
    "priority of 4 bytes": ([frame(2, 0, 1, bytes(4))], S),
    "settings on a stream": ([frame(4, 0, 1)], P),
    "settings of 5 bytes": ([frame(4, 0, 0, bytes(5))], S),
    "settings ack with content": ([frame(4, frames.ACK, 0, bytes(6))], S),
    "push enabled with 2": ([settings_frame({Setting.ENABLE_PUSH: 2})], P),
    "initial window of 2^31": ([settings_frame({Setting.INITIAL_WINDOW_SIZE: 2**31})], F),
    "frame size of 2^14 - 1": ([settings_frame({Setting.MAX_FRAME_SIZE: 2**14 - 1})], P),
    "frame size of 2^24": ([settings_frame({Setting.MAX_FRAME_SIZE: 2**24})], P),
    "push promise": ([headers(1), frame(5, frames.END_HEADERS, 1, bytes(4) + BLOCK)], P),
    "ping on a stream": ([frame(6, 0, 1, bytes(8))], P),
    "ping of 7 bytes": ([frame(6, 0, 0, bytes(7))], S),
    "goaway on a stream": ([frame(7, 0, 1, bytes(8))], P),
    "goaway of 7 bytes": ([frame(7, 0, 0, bytes(7))], S),
    "window update of an idle stream": ([window(1, 1)], P),
    "window update of 3 bytes": ([frame(8, 0, 0, bytes(3))], S),
    "window update by 0": ([window(0, 0)], P),
    "window above 2^31 - 1": ([window(0, 2**31 - 1)], F),
    "initial window lifts a window above the limit": ([headers(1), window(1, 9), BIG_WINDOW], F),
    "continuation alone": ([frame(9, frames.END_HEADERS, 1, BLOCK)], P),
    "continuation on another stream": ([headers(1, BLOCK, flags=0), frame(9, 4, 3, b"")], P),
    "continuation behind whole headers": ([headers(1), frame(9, 4, 1, b"")], P),
    "data within headers": ([headers(1, BLOCK, flags=0), data(1, b"x")], P),
    "ping within headers": ([headers(1, BLOCK, flags=0), PING], P),
    "unknown frame within headers": ([headers(1, BLOCK, flags=0), UNKNOWN], P),
    "headers within headers": ([headers(1, BLOCK, flags=0), headers(3)], P),
    "more padding than data": ([headers(1), frame(0, frames.PADDED, 1, b"\5abc")], P),
    "more padding than headers": ([frame(1, END | frames.PADDED, 1, b"\xff" + BLOCK)], P),
    "padded data of 0 bytes": ([headers(1), frame(0, frames.PADDED, 1)], P),
    "headers too short for priority": ([headers(1, b"1", flags=END | frames.HAS_PRIORITY)], S),
    "frame above the limit": ([headers(1), data(1, bytes(frames.MAX_FRAME_BYTES + 1))], S),
    "undecodable headers": ([headers(1, b"\xff\xff\xff")], ErrorCode.COMPRESSION_ERROR),
}


@pytest.mark.parametrize(("sent", "code"), CONNECTION_FAULTS.values(), ids=CONNECTION_FAULTS)
def test_a_fault_ends_the_connection_with_its_code(sent, code):
    peer = RawPeer()
    received = peer.send(*sent)
    assert [seen for _, seen, _ in goaways(received)] == [code]
    assert peer.wire.ends == ["finish"]
    assert peer.wire.notes == [("http2 connection ended", code.name)]
    assert all(call.cancelled for call in peer.calls.calls)
    assert peer.send(PING) == []


STREAM_FAULTS = {
    "data behind the end": ([headers(1, ended=True), data(1, b"x")], SC),
    "headers behind the end": ([headers(1, ended=True), headers(1, ended=True)], SC),
    "second headers that do not end": ([headers(1), headers(1, encode([("a", "b")]))], P),
    "pseudo-header field in trailers": ([headers(1), headers(1, ended=True)], P),
    "window update by 0": ([headers(1), window(1, 0)], P),
    "window above 2^31 - 1": ([headers(1), window(1, 2**31 - 1)], F),
    "no path": ([headers(1, encode(REQUEST[:2]))], P),
    "field name in upper case": ([headers(1, encode([*REQUEST, ("A", "b")]))], P),
    "connection-specific field": ([headers(1, encode([*REQUEST, ("connection", "x")]))], P),
    "less than content-length": (
        [headers(1, encode([*REQUEST, ("content-length", "3")])), data(1, b"ab", ended=True)],
        P,
    ),
    "more than content-length": (
        [headers(1, encode([*REQUEST, ("content-length", "1")])), data(1, b"ab")],
        P,
    ),
    "content-length without a body": (
        [headers(1, encode([*REQUEST, ("content-length", "1")]), ended=True)],
        P,
    ),
    "content-length and trailers": (
        [
            headers(1, encode([*REQUEST, ("content-length", "1")])),
            headers(1, encode([("a", "b")]), ended=True),
        ],
        P,
    ),
}


@pytest.mark.parametrize(("sent", "code"), STREAM_FAULTS.values(), ids=STREAM_FAULTS)
def test_a_fault_ends_its_stream_and_no_other(sent, code):
    peer = RawPeer()
    received = peer.send(*sent)
    assert resets(received) == {1: code}
    other = peer.open(3)
    peer.send(data(3, b"fine", ended=True))
    assert other.body == b"fine"
    assert all(call.cancelled for call in peer.calls.calls[:-1])


def test_content_length_that_is_right_is_fine():
    peer = RawPeer()
    block = encode([*REQUEST, ("content-length", "4")])
    peer.send(headers(1, block), data(1, b"ab"), frame(0, 9, 1, b"\1cd\0"))
    assert peer.calls.calls[0].body == b"abcd"
    assert peer.calls.calls[0].ended


def test_the_first_frame_is_settings():
    for first in (PING, frames.SETTINGS_ACK, headers(1), data(1, b"x")):
        peer = RawPeer(greet=False)
        assert [code for _, code, _ in goaways(peer.send(first))] == [P]


def test_settings_are_acknowledged():
    received = RawPeer(greet=False).send(HELLO)
    assert [(kind, flags) for kind, flags, _, _ in received] == [
        (frames.SETTINGS, 0),
        (frames.WINDOW_UPDATE, 0),
        (frames.SETTINGS, frames.ACK),
    ]


def test_of_a_setting_that_comes_twice_the_last_counts():
    peer = RawPeer()
    pair = bytes.fromhex("0004 00000001 0004 0000000a")
    peer.send(frame(frames.SETTINGS, 0, 0, pair))
    peer.open(1, ended=True).answer(bytes(20))
    assert [len(payload) for kind, _, _, payload in peer.read() if kind == frames.DATA] == [10]


def test_a_window_may_become_negative():
    """RFC 9113, section 6.9.2."""
    peer = RawPeer()
    call = peer.open(1, ended=True)
    call.speaker.out.begin(call.stream, encode([(":status", "200")]))
    call.speaker.out.send(call.stream, bytes(100))
    peer.send(settings_frame({Setting.INITIAL_WINDOW_SIZE: 0}))
    call.speaker.out.send(call.stream, bytes(10))
    assert frames.DATA not in kinds(peer.read())
    assert frames.DATA not in kinds(peer.send(window(1, 100)))
    assert frames.DATA in kinds(peer.send(window(1, 10)))


def test_more_than_the_window_of_a_stream_ends_the_stream():
    peer = RawPeer()
    call = peer.open(1)
    size = frames.MAX_FRAME_BYTES
    # The window is opened again as long as frames are taken, so a peer must be out of step.
    call.stream.receive_left = size - 1
    received = peer.send(data(1, bytes(size)))
    assert resets(received) == {1: F}
    assert call.cancelled


def test_more_than_the_window_of_the_connection_ends_the_connection():
    peer = RawPeer()
    peer.open(1)
    peer.speaker._receive_left = 10
    assert [code for _, code, _ in goaways(peer.send(data(1, bytes(11))))] == [F]


def test_data_that_is_thrown_away_still_opens_the_window_of_the_connection():
    peer = RawPeer()
    call = peer.open(1)
    call.speaker.reset(call.stream, ErrorCode.CANCEL)
    received = []
    for _ in range(80):
        received += peer.send(data(1, bytes(frames.MAX_FRAME_BYTES)))
    opened = sum(
        int.from_bytes(payload, "big")
        for kind, _, stream_id, payload in received
        if kind == frames.WINDOW_UPDATE and not stream_id
    )
    assert opened >= 80 * frames.MAX_FRAME_BYTES - module.CONNECTION_WINDOW // 2


def test_padding_counts_against_the_windows():
    peer = RawPeer()
    call = peer.open(1)
    peer.send(frame(0, frames.PADDED, 1, b"\xc8ab" + bytes(200)))
    assert call.stream.receive_left == module.STREAM_WINDOW - 203


def test_streams_above_the_limit_are_refused_and_can_be_sent_again():
    peer = RawPeer()
    received = []
    for index in range(module.MAX_STREAMS + 2):
        received += peer.send(headers(2 * index + 1))
    assert list(resets(received).values()) == [ErrorCode.REFUSED_STREAM] * 2
    assert len(peer.calls.calls) == module.MAX_STREAMS
    peer.calls.calls[0].answer()
    peer.send(headers(1001, ended=True))
    assert len(peer.calls.calls) == module.MAX_STREAMS + 1


def test_a_refused_stream_keeps_the_compression_in_step():
    peer = H2Peer()
    for _ in range(module.MAX_STREAMS):
        peer.request(b"x")
    # h2 keeps to the limit that it was told, so it must not know.
    peer.client.remote_settings._settings[3].append(10**6)
    peer.client.remote_settings.acknowledge()
    refused = peer.request(b"x", [*REQUEST, ("x-new", "1")])
    assert any(
        isinstance(event, h2.events.StreamReset) and event.stream_id == refused
        for event in peer.events
    )
    peer.calls[0].answer()
    peer.request(b"x", [*REQUEST, ("x-new", "1")])
    assert ("x-new", "1") in peer.calls[-1].head.fields


# -- the end of a connection -----------------------------------------------------------------------


def test_draining_takes_two_steps_and_lets_calls_finish():
    peer = RawPeer()
    call = peer.open(1, ended=True)
    peer.speaker.drain(peer.now)
    first = peer.read()
    assert list(goaways(first)) == [(2**31 - 1, ErrorCode.NO_ERROR, "")]
    late = peer.open(3, ended=True)  # on its way before the peer has read GOAWAY
    ping = next(payload for kind, _, _, payload in first if kind == frames.PING)
    assert list(goaways(peer.send(frame(frames.PING, frames.ACK, 0, ping)))) == [
        (3, ErrorCode.NO_ERROR, "")
    ]
    assert resets(peer.send(headers(5))) == {5: ErrorCode.REFUSED_STREAM}
    call.answer()
    assert peer.alive
    late.answer()
    assert peer.wire.ends == ["finish"]


def test_an_idle_connection_drains_at_once_with_a_peer_that_answers():
    peer = RawPeer()
    peer.speaker.drain(peer.now)
    ping = next(payload for kind, _, _, payload in peer.read() if kind == frames.PING)
    peer.send(frame(frames.PING, frames.ACK, 0, ping))
    assert peer.wire.ends == ["finish"]


def test_a_peer_that_does_not_answer_is_drained_all_the_same():
    peer = RawPeer()
    call = peer.open(1, ended=True)
    peer.speaker.drain(peer.now)
    assert [last for last, _, _ in goaways(peer.read() + peer.after(1.1))] == [2**31 - 1, 1]
    assert peer.after(TIMING.age_grace_s) != []
    assert call.cancelled
    assert peer.wire.ends == ["finish"]


def test_a_connection_is_renewed_after_its_age():
    peer = RawPeer()
    peer.speaker._life._retire_at = peer.now + 100
    assert list(goaways(peer.after(99))) == []
    assert [last for last, _, _ in goaways(peer.after(2))] == [2**31 - 1]


def test_an_idle_connection_is_given_up_but_not_one_in_use():
    peer = RawPeer()
    peer.open(1)
    steps = int(TIMING.idle_s // 10) + 2

    def wait():
        received = []
        for _ in range(steps):
            received += peer.after(10)
            received += peer.send(PING)
        return list(goaways(received))

    assert wait() == []
    peer.send(reset(1))
    assert next(last for last, _, _ in wait()) == 2**31 - 1


def test_the_peer_may_go_and_calls_in_hand_still_finish():
    peer = RawPeer()
    call = peer.open(1, ended=True)
    peer.send(frame(frames.GOAWAY, 0, 0, bytes(8)))
    assert peer.alive
    call.answer()
    assert peer.wire.ends == ["finish"]


def test_a_silent_peer_is_asked_and_then_given_up():
    peer = RawPeer()
    assert kinds(peer.after(TIMING.ping_after_s + 1)) == [frames.PING]
    assert peer.after(TIMING.ping_timeout_s - 1) == []
    peer.after(2)
    assert peer.wire.ends == ["abort"]


def test_a_peer_that_answers_is_kept():
    peer = RawPeer()
    for _ in range(5):
        (asked,) = peer.after(TIMING.ping_after_s + 1)
        peer.send(frame(frames.PING, frames.ACK, 0, asked[3]))
    assert peer.alive


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(headers(1, BLOCK[:5], flags=0), id="header block"),
        pytest.param(data(1, b"abc")[:-1], id="frame"),
        pytest.param(b"\0\0", id="head of a frame"),
    ],
)
def test_what_is_begun_must_be_finished(begun):
    peer = RawPeer()
    peer.open(1)
    peer.send(begun)
    assert peer.alive
    peer.after(TIMING.head_s + 0.1)
    assert peer.wire.ends == ["finish"]


def test_a_frame_that_trickles_in_is_cut_off():
    peer = RawPeer()
    peer.send(bytes.fromhex("00ffff 06 00 00000000"))
    for _ in range(int(TIMING.body_s)):
        peer.after(1)
        peer.send(b"x")
        assert peer.alive
    peer.after(2)
    assert peer.wire.ends == ["finish"]


def test_settings_must_come_soon():
    peer = RawPeer(greet=False)
    peer.after(TIMING.head_s + 0.1)
    assert peer.wire.ends == ["finish"]


def test_time_reaches_the_calls():
    peer = RawPeer()
    call = peer.open(1)
    peer.after(1)
    peer.after(1)
    assert call.checks == [1001.0, 1002.0]


# -- hostile peers ---------------------------------------------------------------------------------

CALM = ErrorCode.ENHANCE_YOUR_CALM
LIMIT = 3000


def floods():
    yield "ping", lambda _: PING
    yield "settings", lambda _: HELLO
    yield "settings ack", lambda _: frames.SETTINGS_ACK
    yield "priority", lambda _: PRIORITY
    yield "unknown frames", lambda _: UNKNOWN
    yield "window updates", lambda _: window(0, 1)
    yield "rapid reset", lambda index: headers(2 * index + 1) + reset(2 * index + 1)
    yield "rapid reset by us", lambda index: headers(2 * index + 1) + window(2 * index + 1, 0)
    yield "malformed requests", lambda index: headers(2 * index + 1, encode([("a", "b")]))
    yield "empty data", lambda index: (b"" if index else headers(1)) + data(1, b"")
    yield "resets of closed", lambda index: (b"" if index else headers(1) + reset(1)) + reset(1)
    yield "streams above the limit", lambda index: headers(2 * index + 1)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in floods()])
def test_a_flood_ends_its_connection(make):
    peer = RawPeer()
    for index in range(LIMIT):
        codes = [code for _, code, _ in goaways(peer.send(make(index)))]
        if codes:
            break
    assert codes == [CALM]
    assert peer.wire.ends == ["finish"]


def test_a_flood_in_one_piece_is_noticed_within_it():
    peer = RawPeer()
    received = peer.send(PING * LIMIT)
    assert [code for _, code, _ in goaways(received)] == [CALM]
    assert kinds(received).count(frames.PING) < LIMIT


def test_continuation_without_end_is_bounded():
    peer = RawPeer()
    received = peer.send(headers(1, BLOCK, flags=0))
    for _ in range(100):
        received += peer.send(frame(frames.CONTINUATION, 0, 1, bytes(1000)))
    assert [code for _, code, _ in goaways(received)] == [CALM]
    assert peer.calls.calls == []


def test_empty_continuation_without_end_is_bounded():
    peer = RawPeer()
    received = peer.send(headers(1, BLOCK, flags=0))
    received += peer.send(frame(frames.CONTINUATION, 0, 1) * LIMIT)
    assert [code for _, code, _ in goaways(received)] == [CALM]


def test_a_large_header_block_in_one_frame_is_refused():
    block = BLOCK + encode([("a", "x" * 40_000)])
    assert [code for _, code, _ in goaways(RawPeer().send(headers(1, block)))] == [CALM]


def test_many_settings_at_once_are_refused():
    many = frame(frames.SETTINGS, 0, 0, bytes.fromhex("0004 00000001") * 65)
    assert [code for _, code, _ in goaways(RawPeer().send(many))] == [CALM]


def test_an_answer_that_the_peer_never_takes_is_given_up():
    peer = RawPeer()
    peer.send(settings_frame({Setting.INITIAL_WINDOW_SIZE: 0}))
    call = peer.open(1, ended=True)
    call.answer()
    peer.read()
    assert resets(peer.after(TIMING.stall_s - 1)) == {}
    assert resets(peer.after(2)) == {1: ErrorCode.CANCEL}
    assert call.cancelled
    assert peer.alive


def test_a_busy_client_may_ping_and_update_windows_with_each_call():
    """grpc-go does so to estimate its bandwidth."""
    peer = RawPeer()
    for index in range(LIMIT):
        call = peer.open(2 * index + 1, ended=True)
        call.speaker.out.answer(call.stream, CLEAN)
        peer.send(PING, window(0, 5), frames.SETTINGS_ACK)
        assert peer.alive


def test_memory_of_ended_streams_is_bounded():
    peer = RawPeer()
    for index in range(LIMIT):
        call = peer.open(2 * index + 1)
        call.speaker.out.answer(call.stream, CLEAN)
    assert peer.alive
    assert len(peer.speaker._register._discarded) <= MAX_DISCARDED
    assert not peer.speaker._streams
