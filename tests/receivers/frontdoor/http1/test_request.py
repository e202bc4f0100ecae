from __future__ import annotations

import pytest

from gateway.receivers.frontdoor.http1.request import REQUEST_LINE, RequestReader, UnusualError


def head_of(*lines: str) -> bytes:
    return REQUEST_LINE + "".join(line + "\r\n" for line in ("Host: x", *lines)).encode() + b"\r\n"


def read(*lines: str):
    return RequestReader("10.0.0.1:4711", lambda _: None).head(head_of(*lines))


def test_a_head_is_read():
    head = read(
        "Content-Type:  application/json \t",
        "content-encoding: gzip",
        "CONTENT-LENGTH: 12",
        "X-Scope-OrgID: a",
        "x-scope-orgid: b",
        "X-Request-ID: router-7",
    )
    assert head.sender == ("http", "10.0.0.1:4711", "router-7")
    assert (head.method, head.path) == ("POST", "/v1/traces")
    assert head.content_type == "application/json"
    assert (head.content_encoding, head.content_length) == ("gzip", 12)
    assert list(head.tenants) == ["a", "b"]


def test_nothing_is_made_up():
    head = read()
    assert (head.content_type, head.content_encoding, list(head.tenants)) == (None, "", [])
    assert head.content_length == 0


def test_encodings_of_several_lines_are_one_list():
    assert read("Content-Encoding: gzip", "Content-Encoding: br").content_encoding == "gzip, br"


def test_a_chunked_body_has_no_length_ahead():
    assert read("Transfer-Encoding: Chunked").content_length is None


AMBIGUOUS = [
    ["Content-Length: 3", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Content-Length: 3"],
    ["Content-Length: 3", "Content-Length: 3"],
    ["Content-Length: 3", "Content-Length: 4"],
    ["Content-Length: 3, 3"],
    ["Content-Length: +3"],
    ["Content-Length: -3"],
    ["Content-Length: 0x3"],
    ["Content-Length: 3 4"],
    ["Content-Length:"],
    ["Content-Length: 99999999999999999999"],
    ["Content-Length : 3"],
    ["Transfer-Encoding: identity"],
    ["Transfer-Encoding: xchunked"],
    ["Transfer-Encoding: chunked, gzip"],
    ["Transfer-Encoding: gzip, chunked"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: \x0bchunked"],
    ["A: b\nContent-Length: 3"],
    ["A: b\rContent-Length: 3"],
    ["A: b", " folded"],
    ["Content-Length: 3", " 4"],
    ["A: \0"],
    ["A b: c"],
    [": c"],
    ["no colon"],
]


@pytest.mark.parametrize("lines", AMBIGUOUS)
def test_what_two_parsers_could_read_in_two_ways_is_not_read(lines):
    with pytest.raises(UnusualError):
        read(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        ["Expect: 100-continue"],
        ["Origin: https://app.example.com"],
        ["Connection: upgrade", "Upgrade: h2c"],
        ["TE: trailers"],
        [f"X-{number}: y" for number in range(101)],
    ],
)
def test_what_changes_the_handling_is_left_to_the_general_server(lines):
    with pytest.raises(UnusualError):
        read(*lines)


def test_bodies_end_where_they_should_one_after_the_other():
    seen: list[bytes] = []
    reader = RequestReader("", seen.append)
    for _ in range(3):
        reader.head(head_of("Content-Length: 4"))
        assert not reader.complete
        assert reader.feed(b"ab") == 2
        assert reader.feed(b"cdPOST") == 2
        assert reader.complete
        reader.head(head_of("Transfer-Encoding: chunked"))
        assert reader.feed(b"2\r\nef\r\n0\r\n") == 10
        assert not reader.complete
        assert reader.feed(b"\r\nPOST") == 2
        assert reader.complete
        reader.head(head_of())
        assert reader.complete
    assert b"".join(seen) == b"abcdef" * 3


def test_a_head_that_is_known_needs_no_parsing():
    seen: list[bytes] = []
    reader = RequestReader("", seen.append)
    reader.head(head_of("Transfer-Encoding: chunked"))
    reader.expect(3)
    assert reader.feed(b"abcPOST") == 3
    assert reader.complete
    assert seen == [b"abc"]


@pytest.mark.parametrize(("line", "keep"), [("A: b", True), ("Connection: close", False)])
def test_the_client_may_end_the_connection(line, keep):
    reader = RequestReader("", lambda _: None)
    reader.head(head_of(line))
    assert reader.keep_alive is keep
