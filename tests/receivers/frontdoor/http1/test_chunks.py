from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.receivers.frontdoor.http1.chunks import Chunks, MalformedError


def read(*pieces: bytes) -> tuple[bytes, bool, bytes]:
    """The body, whether it is complete, and what was left over."""
    body: list[bytes] = []
    chunks = Chunks(body.append)
    rest = b""
    for piece in pieces:
        rest += piece[chunks.feed(piece) :]
    return b"".join(body), chunks.complete, rest


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"1\r\na\r\n02\r\nbc\r\n000\r\n\r\n", b"abc"),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
        (b'3;name=value;q="x y"\r\nabc\r\n0;last\r\n\r\n', b"abc"),
        (b"3 ;a\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"3\r\na\r\n\r\n0\r\nX: y\r\nZ:\r\n\r\n", b"a\r\n"),
    ],
)
def test_a_body_is_taken_out_of_its_chunks(data, body):
    assert read(data) == (body, True, b"")
    assert read(*(data[at : at + 1] for at in range(len(data)))) == (body, True, b"")
    assert read(data + b"POST /") == (body, True, b"POST /")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1\n",
        b"1;a\n",
        b"1\r\r\n",
        b"1 2\r\n",
        b"1;\x00\r\n",
        b"1234567890123456\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"3\r\nabc0\r\n\r\n",
        b"0\r\nno colon\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\n folded\r\n",
        b"0\r\nX : y\r\n",
        b"0\r\n: y\r\n",
        b"1;" + b"x" * 600,
        b"0\r\n" + b"X: y\r\n" * 2000,
        b"1\r\na\r\n" * 1100,
    ],
)
def test_what_can_be_read_in_two_ways_or_never_ends_is_refused(data):
    with pytest.raises(MalformedError):
        read(data)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_arbitrary_bytes_raise_nothing_else_and_give_the_same_in_any_pieces(data, points):
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    results = []
    for pieces in ([data], [data[a:b] for a, b in itertools.pairwise(edges)]):
        try:
            results.append(read(*pieces))
        except MalformedError:
            results.append(None)
    assert results[0] == results[1]


@given(st.lists(st.binary(min_size=1, max_size=50)))
def test_whatever_is_sent_in_chunks_arrives(pieces):
    data = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert read(data) == (b"".join(pieces), True, b"")
