from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2.frames import ConnectionFault, ErrorCode, FrameReader


def read(*pieces: bytes) -> tuple[list[frames.Frame], str]:
    """All frames, and the fault that ended them."""
    reader, seen = FrameReader(), []
    try:
        for piece in pieces:
            seen.extend(reader.feed(piece))
    except ConnectionFault as fault:
        return seen, fault.code.name
    return seen, ""


def cut(data: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


frame_values = st.tuples(
    st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=300)
)


@given(st.binary(max_size=400), st.lists(st.integers(0, 1000), max_size=8))
def test_any_bytes_in_any_pieces_give_the_same_frames_and_no_other_error(data, points):
    assert read(*cut(data, points)) == read(data)


@given(st.lists(frame_values, max_size=6), st.lists(st.integers(0, 5000), max_size=8))
def test_what_is_written_is_read(values, points):
    data = b"".join(frames.frame(*value) for value in values)
    assert read(*cut(data, points)) == (values, "")


def test_a_frame_above_the_limit_is_refused_by_its_head_and_those_before_it_count():
    large = (frames.MAX_FRAME_BYTES + 1).to_bytes(3, "big") + bytes(6)
    before = frames.frame(frames.PING, 0, 0, bytes(8))
    assert read(before + large) == ([(frames.PING, 0, 0, bytes(8))], "FRAME_SIZE_ERROR")


def test_a_frame_at_the_limit_is_taken():
    payload = bytes(frames.MAX_FRAME_BYTES)
    assert read(frames.frame(frames.DATA, 0, 1, payload)) == ([(frames.DATA, 0, 1, payload)], "")


def test_the_reserved_bit_of_a_stream_id_is_ignored():
    data = bytes.fromhex("000000 00 01 80000003")
    assert read(data) == ([(frames.DATA, 1, 3, b"")], "")


def test_the_reader_knows_that_a_frame_is_unfinished():
    reader = FrameReader()
    assert list(reader.feed(frames.SETTINGS_ACK + b"\0")) == [(frames.SETTINGS, 1, 0, b"")]
    assert reader.unfinished
    assert list(reader.feed(frames.SETTINGS_ACK[1:])) == [(frames.SETTINGS, 1, 0, b"")]
    assert not reader.unfinished


def test_a_long_header_block_is_continued():
    data = frames.header_frames(5, b"abcdefg", ended=True, max_frame_bytes=3)
    assert read(data)[0] == [
        (frames.HEADERS, frames.END_STREAM, 5, b"abc"),
        (frames.CONTINUATION, 0, 5, b"def"),
        (frames.CONTINUATION, frames.END_HEADERS, 5, b"g"),
    ]


@pytest.mark.parametrize(
    ("payload", "content"), [(b"\0abc", b"abc"), (b"\2abc\0\0", b"abc"), (b"\2\0\0", b"")]
)
def test_padding_is_taken_off(payload, content):
    assert frames.unpadded(payload) == content


@pytest.mark.parametrize("payload", [b"", b"\1", b"\4abc"])
def test_more_padding_than_payload_is_a_fault(payload):
    with pytest.raises(ConnectionFault) as caught:
        frames.unpadded(payload)
    assert caught.value.code is ErrorCode.PROTOCOL_ERROR


def test_settings_come_in_sixes():
    assert list(frames.read_settings(bytes.fromhex("0004 00000001"))) == [(4, 1)]
    with pytest.raises(ConnectionFault) as caught:
        frames.read_settings(bytes(5))
    assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR
