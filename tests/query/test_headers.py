from __future__ import annotations

import pytest

from gateway.query.headers import (
    answer_trailers,
    call_fields,
    request_fields,
    response_fields,
    takes_gzip,
)

HOP_BY_HOP = [
    ("Connection", "close, X-Private"),
    ("connection", "keep-alive , x-Other"),
    ("X-Private", "1"),
    ("X-OTHER", "2"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Authenticate", "Basic"),
    ("Proxy-Authorization", "Basic eDp5"),
    ("Proxy-Connection", "keep-alive"),
    ("TE", "trailers"),
    ("Trailer", "X-Sum"),
    ("Transfer-Encoding", "chunked"),
    ("Upgrade", "h2c"),
]


def test_a_request_keeps_what_is_meant_for_its_end():
    fields = [
        ("Accept", "application/protobuf"),
        ("Accept-Encoding", "gzip, zstd"),
        ("User-Agent", "Grafana/13"),
        ("Authorization", "Bearer x"),
        ("X-Scope-OrgID", "team-a"),
        ("X-Request-ID", "7"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]

    assert list(request_fields(fields + HOP_BY_HOP).items()) == fields


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Content-Length",
        "Content-Type",
        "Content-Encoding",
        "Expect",
        "Forwarded",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "X-FORWARDED-Anything",
        "X-Real-IP",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
    ],
)
def test_a_request_loses_what_is_about_its_body_or_claims_another_hop(name):
    assert not request_fields([(name, "x")])


def test_a_response_keeps_repeated_fields_and_the_description_of_its_body():
    fields = [
        ("Content-Type", "application/json"),
        ("Content-Encoding", "gzip"),
        ("Content-Length", "12"),
        ("Vary", "Accept-Encoding"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    ]

    assert list(response_fields(fields + HOP_BY_HOP).items()) == fields


def test_a_value_that_cannot_be_written_again_is_dropped():
    fields = [("X-Name", "caf\udce9"), ("X-Other", "caf\u00e9")]

    assert list(request_fields(fields).items()) == [("X-Other", "caf\u00e9")]


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, GZIP;q=0.5, br", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000 , br", False),
        ("identity", False),
        ("x-gzip-like", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=oops", True),
        (",;,;q=", False),
    ],
)
def test_reads_whether_gzip_is_welcome(accept_encoding, expected):
    assert takes_gzip(accept_encoding) is expected


def test_a_call_keeps_what_a_request_keeps_but_what_is_grpcs_own():
    kept = [
        ("authorization", "Bearer x"),
        ("x-scope-orgid", "team-a"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-two", "a"),
        ("x-two", "b"),
    ]
    dropped = [
        (":path", "/tempopb.StreamingQuerier/Search"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "grpc-go/1.80"),
        ("grpc-timeout", "10S"),
        ("grpc-trace-bin", "AAEC"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-odd", "hé"),
        ("x-empty", ""),
        ("x-line", "a\r\nb"),
        ("x odd", "a"),
    ]
    assert list(call_fields(dropped + kept).items()) == kept


def test_what_follows_an_answer_is_kept_but_what_is_grpcs_own():
    kept = (("x-took", "7ms"), ("x-odd-bin", b"\xff"), ("grpc-status-details-bin", b"\x08\x03"))
    dropped = [("grpc-status", "3"), ("content-type", "text/html"), ("connection", "close")]
    assert answer_trailers([*dropped, *kept]) == kept
    assert answer_trailers(None) == ()


def test_more_than_clients_can_take_does_not_follow_an_answer():
    assert answer_trailers([("x-much", "x" * 4090)]) != ()
    assert answer_trailers([("x-much", "x" * 4090), ("x-more", "y")]) == ()
