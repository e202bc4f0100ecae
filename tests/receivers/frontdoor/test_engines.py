"""The same calls to both gRPC engines: the same status, message, details and effect.

Sent by ``h2``, which leaves headers and framing to the test. Where the front door answers otherwise
on purpose, the second table says how, and why.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import NamedTuple

import pytest
import zstandard
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from gateway.errors import Cause, Refused
from gateway.receivers.headers import EXPORT_METHOD
from gateway.receivers.health import CHECK_METHOD, request_for
from tests.kit.receivers import HOST, started_receivers
from tests.kit.spans import make_payload, make_request, make_span
from tests.receivers.frontdoor.doors import started_door

ENGINES = {"grpcio": started_receivers, "front door": started_door}
GOOD = make_payload(2)
PARTIAL = make_request(make_span(), make_span(trace_id=bytes(16))).SerializeToString()


class Told(NamedTuple):
    """What a client sees of a call, and what the call did."""

    status: str
    message: str
    details: str
    data: bytes
    counts: dict[str, float]
    reset: int | None = None
    http: str = "200"


def message(payload: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(payload).to_bytes(4, "big") + payload


def fields(**changes: str | None) -> list[tuple[str, str]]:
    """The headers of an Export; ``_`` stands for ``-``, and a leading one for ``:``."""
    values: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": EXPORT_METHOD,
        ":authority": "gateway",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    for name, value in changes.items():
        values[(":" + name[1:] if name[0] == "_" else name).replace("_", "-")] = value
    return [(name, value) for name, value in values.items() if value is not None]


async def call(port: int, head: list[tuple[str, str]], body: bytes, *, ended: bool = True):
    """The events of one call until its end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    config = H2Configuration(
        header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
    )
    client = H2Connection(config)
    client.initiate_connection()
    client.send_headers(1, head, end_stream=ended and not body)
    for at in range(0, len(body), 16384):
        piece = body[at : at + 16384]
        client.send_data(1, piece, end_stream=ended and at + 16384 >= len(body))
    events = []
    writer.write(client.data_to_send())
    async with asyncio.timeout(10):
        while not any(isinstance(event, StreamEnded | StreamReset) for event in events):
            events += client.receive_data(await reader.read(65536))
            writer.write(client.data_to_send())
    writer.close()
    return events


async def tell(
    engine: str, head, body: bytes, *, refusal: Refused | None = None, **options
) -> Told:
    async with ENGINES[engine]() as receivers:
        if refusal is not None:
            receivers.intake.refusals.append(refusal)
        events = await call(receivers.grpc_port, head, body, **options)
        counts = receivers.counts()
    seen: dict[str, str] = {}
    data = b""
    reset = None
    for event in events:
        if isinstance(event, ResponseReceived | TrailersReceived):
            seen |= event.headers
        elif isinstance(event, DataReceived):
            data += event.data
        elif isinstance(event, StreamReset) and event.error_code:
            reset = int(event.error_code)
    return Told(
        seen.get("grpc-status", ""),
        seen.get("grpc-message", ""),
        seen.get("grpc-status-details-bin", ""),
        data,
        counts,
        reset,
        seen.get(":status", ""),
    )


SAME = {
    "good": (fields(), message(GOOD)),
    "empty request": (fields(), message(b"")),
    "partial success": (fields(), message(PARTIAL)),
    "gzip": (fields(grpc_encoding="gzip"), message(gzip.compress(GOOD), 1)),
    "gzip, not used": (fields(grpc_encoding="gzip"), message(GOOD)),
    "damaged gzip": (fields(grpc_encoding="gzip"), message(gzip.compress(GOOD)[:-9], 1)),
    "undecodable": (fields(), message(b"\xff\xff\xff")),
    "second message is ignored": (fields(), message(GOOD) + message(GOOD)),
    "bytes behind the message are ignored": (fields(), message(GOOD) + b"abc"),
    "tenant": (fields(x_scope_orgid="team-7"), message(GOOD)),
    "bad tenant": (fields(x_scope_orgid="a b"), message(GOOD)),
    "tenant outside ASCII": (fields(x_scope_orgid="hé"), message(GOOD)),
    "no deadline so far away": (fields(grpc_timeout="99999999H"), message(GOOD)),
    "deadline in time": (fields(grpc_timeout="10S"), message(GOOD)),
    "deadline over at once": (fields(grpc_timeout="0m"), message(GOOD)),
    "deadline that is no time": (fields(grpc_timeout="abc"), message(GOOD)),
    "deadline that is negative": (fields(grpc_timeout="-1S"), message(GOOD)),
    "content type with codec": (fields(content_type="application/grpc+proto"), message(GOOD)),
    "content type in capitals": (fields(content_type="Application/GRPC"), message(GOOD)),
    "unknown metadata": (fields(x_foo="bar", foo_bin="AAEC", grpc_foo="1"), message(GOOD)),
    "metadata outside ASCII": (fields(foo="hé"), message(GOOD)),
    "large metadata": (fields(foo="x" * 6000), message(GOOD)),
    "https scheme": (fields(_scheme="https"), message(GOOD)),
    "unknown method": (fields(_path="/foo.Bar/Baz"), message(GOOD)),
    "method without a service": (fields(_path="/"), message(GOOD)),
    "method with a query": (fields(_path=EXPORT_METHOD + "?x=1"), message(GOOD)),
    "health": (fields(_path=CHECK_METHOD), message(b"")),
    "health of a service": (fields(_path=CHECK_METHOD), message(request_for("grpc"))),
}


@pytest.mark.parametrize(("head", "body"), SAME.values(), ids=SAME)
async def test_both_engines_answer_the_same(head, body):
    ours, reference = [await tell(engine, head, body) for engine in ("front door", "grpcio")]
    assert ours == reference
    assert ours.status


@pytest.mark.parametrize("cause", Cause)
async def test_both_engines_tell_each_cause_the_same(cause):
    delay_s = 2.5 if cause.value.retry else None
    refusal = Refused(cause, "do % something — else\n", retry_after_s=delay_s)
    ours, reference = [
        await tell(engine, fields(), message(GOOD), refusal=refusal)
        for engine in ("front door", "grpcio")
    ]
    assert ours == reference
    assert ours.status == str(cause.value.grpc)


# What the door does, what grpcio's server does, and why the door differs.
OTHERWISE = {
    "the compressed flag without an encoding: counted nowhere, as grpcio; told the same": (
        (fields(), message(gzip.compress(GOOD), 1)),
        ("13", None),
        ("13", None),
    ),
    "deflate and zstd are taken, since OTLP over HTTP takes them": (
        (fields(grpc_encoding="deflate"), message(zlib.compress(GOOD), 1)),
        ("0", None),
        ("12", None),
    ),
    "zstd": (
        (
            fields(grpc_encoding="zstd"),
            message(zstandard.ZstdCompressor().compress(GOOD), 1),
        ),
        ("0", None),
        ("13", None),
    ),
    "another encoding is UNIMPLEMENTED, as the protocol asks": (
        (fields(grpc_encoding="snappy"), message(GOOD, 1)),
        ("12", None),
        ("13", None),
    ),
    "an undefined flag is told; grpcio says OK and drops the message": (
        (fields(), message(GOOD, 2)),
        ("13", None),
        ("0", None),
    ),
    "a message cut short is told so; grpcio sees no message": (
        (fields(), message(GOOD)[:-3]),
        ("3", None),
        ("3", None),
    ),
    "no message": ((fields(), b""), ("3", None), ("3", None)),
    "te is not required: proxies take it away": (
        (fields(te=None), message(GOOD)),
        ("0", None),
        ("", 2),
    ),
    "te with another value is malformed (RFC 9113, 8.2.2)": (
        (fields(te="gzip"), message(GOOD)),
        ("", 1),
        ("13", None),
    ),
    "connection-specific fields are malformed (RFC 9113, 8.2.2)": (
        (fields(connection="close"), message(GOOD)),
        ("", 1),
        ("0", None),
    ),
    "a wrong content-length is malformed (RFC 9113, 8.1.1)": (
        (fields(content_length="3"), message(GOOD)),
        ("", 1),
        ("0", None),
    ),
    "binary metadata that we do not read is not decoded": (
        (fields(foo_bin="!!!!"), message(GOOD)),
        ("0", None),
        ("13", None),
    ),
    ":authority is not required (RFC 9113, 8.3.1)": (
        (fields(_authority=None), message(GOOD)),
        ("0", None),
        ("", 2),
    ),
    "health without a request is told; grpcio waits for ever": (
        (fields(_path=CHECK_METHOD), b""),
        ("12", None),
        None,
    ),
}


@pytest.mark.parametrize(("sent", "ours", "reference"), OTHERWISE.values(), ids=OTHERWISE)
async def test_where_the_front_door_differs_it_is_on_purpose(sent, ours, reference):
    told = await tell("front door", *sent)
    assert (told.status, told.reset) == ours
    if reference is not None:
        told = await tell("grpcio", *sent)
        assert (told.status, told.reset) == reference


PLAIN = {
    "JSON by POST": (fields(content_type="application/json"), b"{}", "415"),
    "no content type": (fields(content_type=None), b"x", "415"),
    "grpc-web": (fields(content_type="application/grpc-web"), b"x", "415"),
    "GET": (fields(_method="GET", _path="/ready", content_type=None, te=None), b"", "505"),
}


@pytest.mark.parametrize(("head", "body", "status"), PLAIN.values(), ids=PLAIN)
async def test_plain_http2_is_told_what_to_do(head, body, status):
    told = await tell("front door", head, body)
    assert told.http == status
    assert b"HTTP/1.1" in told.data
    assert told.counts == {}


async def test_grpc_by_another_method_is_405():
    told = await tell("front door", fields(_method="PUT"), message(GOOD))
    assert told.http == "405"


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_answer_does_not_wait_for_the_end_of_the_stream(engine):
    told = await tell(engine, fields(), message(GOOD), ended=False)
    assert told.status == "0"
    assert told.counts["accepted_spans"] == 2


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_deadline_that_passes_is_told_and_the_spans_stay(engine):
    async with ENGINES[engine]() as receivers:
        receivers.intake.holding = True
        events = await call(receivers.grpc_port, fields(grpc_timeout="50m"), message(GOOD))
        seen = {}
        for event in events:
            if isinstance(event, ResponseReceived | TrailersReceived):
                seen |= event.headers
        assert (seen["grpc-status"], seen["grpc-message"]) == ("4", "Deadline Exceeded")
        receivers.intake.settle()
        assert receivers.counts() == {"received_spans/grpc/protobuf": 2, "accepted_spans": 2}
