from __future__ import annotations

import pytest

from gateway.receivers.frontdoor.sniff import PREFACE, Spoken, sniff


@pytest.mark.parametrize(
    ("data", "spoken"),
    [
        (PREFACE, Spoken.HTTP2),
        (PREFACE + b"\0\0\0", Spoken.HTTP2),
        (b"\x16\x03\x01\x02\x00\x01", Spoken.TLS),
        (b"POST /v1/traces HTTP/1.1\r\n", Spoken.HTTP1),
        (b"PROPFIND / HTTP/1.1\r\n", Spoken.HTTP1),
        (b"PRI * HTTP/1.1\r\n", Spoken.HTTP1),
        (b"\x16\x02", Spoken.HTTP1),
        (b"\x00\xff", Spoken.HTTP1),
    ],
)
def test_the_first_bytes_tell_the_protocol(data, spoken):
    assert sniff(data) is spoken


@pytest.mark.parametrize("data", [b"P", b"PRI", PREFACE[:-1], b"\x16"])
def test_more_bytes_are_awaited_while_either_is_possible(data):
    assert sniff(data) is None
