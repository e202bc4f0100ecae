from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.receivers.frontdoor.http1.known import KnownHead
from gateway.receivers.frontdoor.http1.request import REQUEST_LINE, RequestReader, UnusualError
from gateway.receivers.whole import Pass


def head_of(*lines: str) -> bytes:
    return REQUEST_LINE + "".join(line + "\r\n" for line in lines).encode() + b"\r\n"


def known_of(data: bytes) -> KnownHead | None:
    head = RequestReader("10.0.0.1:1", lambda _: None).head(data)
    return KnownHead.of(data, head, Pass(head.sender, ""))


LINES = ("Host: x", "content-LENGTH:  5", "Content-Type: application/x-protobuf")
KNOWN = known_of(head_of(*LINES))


def test_the_same_head_is_found_with_any_length():
    assert KNOWN is not None
    for size in ("0", "5", "12", "007", "999999999"):
        data = head_of("Host: x", f"content-LENGTH:  {size}", LINES[2])
        assert KNOWN.find(data) == (len(data), int(size))
        assert KNOWN.find(data + b"body") == (len(data), int(size))


@pytest.mark.parametrize(
    "length",
    [
        "",
        "+5",
        "-5",
        "5 ",
        " 5",
        "0x5",
        "5, 5",
        "5\t",
        "\u0665",
        "9999999999",
        "5\r\nContent-Length: 5",
    ],
)
def test_what_is_no_plain_number_is_not_found(length):
    assert KNOWN is not None
    assert KNOWN.find(head_of("Host: x", f"content-LENGTH:  {length}", LINES[2])) is None


@pytest.mark.parametrize(
    "lines",
    [
        ("Host: y", *LINES[1:]),
        (*LINES, "Expect: 100-continue"),
        (*LINES, "Transfer-Encoding: chunked"),
        LINES[:2],
        LINES[::-1],
    ],
)
def test_another_head_is_not_found(lines):
    assert KNOWN is not None
    assert KNOWN.find(head_of(*lines)) is None


def test_a_head_that_is_not_whole_is_not_found():
    assert KNOWN is not None
    data = head_of(*LINES)
    assert all(KNOWN.find(data[:size]) is None for size in range(len(data)))


@pytest.mark.parametrize("line", ["A: b", "Transfer-Encoding: chunked"])
def test_a_head_without_a_length_is_not_kept(line):
    assert known_of(head_of("Host: x", line)) is None


def test_a_long_head_is_not_kept():
    assert known_of(head_of(*LINES, "A: " + "b" * 1000)) is None


def test_a_length_in_the_value_of_another_field_is_not_taken_for_one():
    known = known_of(head_of("A: content-length: 7", "Content-Length: 5"))
    assert known is not None
    assert known.find(head_of("A: content-length: 8", "Content-Length: 5")) is None
    assert known.find(head_of("A: content-length: 7", "Content-Length: 6")) is not None


@given(st.text("059 \t,+\r\n;:a", max_size=12))
def test_what_is_found_the_parser_reads_in_the_same_way(value):
    assert KNOWN is not None
    data = head_of("Host: x", f"content-LENGTH:  {value}", LINES[2])
    found = KNOWN.find(data)
    if found is not None:
        start, size = found
        try:
            head = RequestReader("10.0.0.1:1", lambda _: None).head(data[:start])
        except UnusualError:
            pytest.fail(f"the parser refuses {data!r}")
        assert head == KNOWN.head._replace(content_length=size)


@pytest.mark.parametrize("place", [0, 1, 3], ids=["first", "before the length", "last"])
def test_a_head_with_a_token_is_that_of_this_token_alone(place):
    lines = list(LINES)
    lines.insert(place, "Authorization: Bearer a-token-0123")
    data = head_of(*lines)
    known = known_of(data)
    assert known is not None
    assert known.head.authorization == ["Bearer a-token-0123"]
    assert known.find(data + b"body") == (len(data), 5)
    assert known.find(data[:-1]) is None
    begin = data.index(b"a-token")
    for at in range(begin, begin + len(b"a-token-0123")):
        assert known.find(data[:at] + b"X" + data[at + 1 :]) is None
