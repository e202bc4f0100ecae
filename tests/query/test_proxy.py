from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from socket import SO_ERROR, SOL_SOCKET

import aiohttp
import pytest
from aiohttp import web

from gateway.query import proxy
from gateway.query.proxy import Limits
from gateway.telemetry.metrics import Metrics
from tests.query.scripted import (
    DEADLINE_S,
    HOST,
    Backend,
    Facts,
    Reply,
    ask_raw,
    connection,
    raw_backend,
    request_bytes,
    serve,
)

SEARCH = "/api/search?q=%7B%7D"
CLOSE = ("Connection", "close")


@contextlib.asynccontextmanager
async def proxy_for(
    upstream: Facts, *, metrics: Metrics | None = None, **options: object
) -> AsyncIterator[int]:
    app = web.Application()
    proxy.add_routes(app, upstream, metrics or Metrics(), **options)
    async with serve(app) as port:
        yield port


@pytest.fixture
async def port(backend: Backend) -> AsyncIterator[int]:
    async with proxy_for(Facts(backend.url)) as port:
        yield port


async def ask(port: int, target: str = SEARCH, **request: object) -> Reply:
    fields = [CLOSE, *request.pop("fields", ())]
    return await ask_raw(port, request_bytes(target, fields=fields, **request))


def told(reply: Reply) -> dict[str, str]:
    """The JSON of an answer that the gateway gave itself."""
    assert reply.values("Content-Type") == ["application/json; charset=utf-8"]
    body = json.loads(reply.body)
    assert set(body) == {"error", "reason", "backend"}
    assert all(isinstance(value, str) and value for value in body.values())
    return body


def answering(status: int = 200, body: bytes = b"", **fields: str):
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=fields)

    return answer


async def counted(metrics: Metrics, code: str) -> None:
    """Wait until one query with this code is counted."""
    async with asyncio.timeout(DEADLINE_S):
        while metrics.query_requests.series(code).value < 1:
            await asyncio.sleep(0)


# What is passed on, and what is not


@pytest.mark.parametrize(
    "target",
    [
        "/api/search",
        "/api/search?q=%7B%20name%3D%22a%20b%22%20%7D&limit=20&spss=3",
        "/api/search?tags=service.name%3Da+b&start=1&end=2",
        "/api/traces/0af7651916cd43dd8448eb211c80319c?start=1&end=2",
        "/api/v2/search/tag/span.a%2Fb/values",
        "/api/v2/search/tag/span.a%252Fb/values?q=%257B",
        "/api/metrics/query_range?q=%7B%7D%7Crate()&step=15s",
        "/status/services",
    ],
)
async def test_the_target_arrives_as_the_client_wrote_it(port, backend, target):
    reply = await ask(port, target)

    assert reply.status == 200
    assert [(seen.method, seen.target) for seen in backend.requests] == [("GET", target)]


@pytest.mark.parametrize(
    "target",
    [
        "/shutdown",
        "/flush",
        "//flush",
        "/api/../flush",
        "/api/./../flush",
        "/api/%2e%2e/flush",
        "/api/%2e%2e%2fflush",
        "/api%2f..%2fflush",
        "/api/echo/../../flush",
        "/api/search;/../../flush",
        "/api/search/tag/..%2f..%2f..%2f..%2fflush/values",
        "/api/search/tag/a%252f..%252f..%252f..%252fflush/values",
        "/API/search",
        "/api/search.",
        "/api/search/",
        "/api/%73earch",
        "/api/overrides",
        "/api/mcp",
        "/status",
        "/status/config",
        "/status/nothing",
        "/debug/pprof/heap",
        "/querier/api/search",
        "http://gateway.test/api/search",
        "http://gateway.test/flush",
        "*",
        "api/search",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_anything_else_never_reaches_the_backend(port, backend, method, target):
    fields = [("X-Original-URL", "/api/search"), ("Content-Length", "0")]
    reply = await ask(port, target, method=method, fields=fields)

    assert reply.status in {400, 404}
    assert not backend.requests


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "get", "FLUSH"])
async def test_a_method_that_is_no_query_never_reaches_the_backend(port, backend, method):
    reply = await ask(port, "/api/traces/ab", method=method)

    assert reply.status in {400, 405}
    if reply.status == 405:
        assert reply.values("Allow") == ["GET, HEAD"]
        assert "GET or HEAD" in told(reply)["reason"]
    assert not backend.requests


async def test_a_method_override_changes_nothing(port, backend):
    fields = [("X-HTTP-Method-Override", "DELETE"), ("X-HTTP-Method", "DELETE")]
    reply = await ask(port, fields=fields)

    assert reply.status == 200
    assert backend.requests[0].method == "GET"
    assert not backend.requests[0].values("X-HTTP-Method-Override")


async def test_an_unlisted_path_is_answered_in_words(port):
    reply = await ask(port, "/api/overrides")

    assert reply.status == 404
    assert "read paths" in told(reply)["reason"]


async def test_head_stays_head_and_keeps_the_length(port, backend):
    backend.answer = answering(body=b"12345")
    reply = await ask(port, method="HEAD")

    assert backend.requests[0].method == "HEAD"
    assert (reply.status, reply.values("Content-Length"), reply.body) == (200, ["5"], b"")


async def test_the_body_of_a_get_stays_here(port, backend):
    fields = [("Content-Length", "3"), ("Content-Type", "application/json")]
    reply = await ask(port, fields=fields, body=b"{} ")

    assert reply.status == 200
    assert backend.requests[0].body == b""
    assert not backend.requests[0].names() & {"content-length", "content-type"}


# POST


def form(body: bytes, *more: tuple[str, str], kind: str = "application/x-www-form-urlencoded"):
    fields = [("Content-Type", kind), ("Content-Length", str(len(body))), *more]
    return {"method": "POST", "fields": fields, "body": body}


async def test_a_posted_form_becomes_the_query_string_of_a_get(port, backend):
    reply = await ask(port, "/api/search?limit=5", **form(b"q=%7B%7D&spss=1\r\n"))

    assert reply.status == 200
    seen = backend.requests[0]
    assert (seen.method, seen.target) == ("GET", "/api/search?limit=5&q=%7B%7D&spss=1")
    assert not seen.names() & {"content-length", "content-type", "transfer-encoding"}


async def test_raw_bytes_of_a_form_arrive_as_valid_http(port, backend):
    await ask(port, "/api/search", **form('q={ name="caf\u00e9" }#'.encode() + b"\xe9"))

    assert backend.requests[0].target == '/api/search?q={%20name="caf%C3%A9"%20}%23%E9'


async def test_a_post_without_a_body_is_a_get(port, backend):
    await ask(port, "/api/search?limit=5", method="POST", fields=[("Content-Length", "0")])

    assert [(seen.method, seen.target) for seen in backend.requests] == [
        ("GET", "/api/search?limit=5")
    ]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (form(b"{}", kind="application/json"), 415),
        (form(gzip.compress(b"q=%7B%7D"), ("Content-Encoding", "gzip")), 415),
        (form(b"q=" + b"x" * 64 * 2**10), 413),
    ],
    ids=["no form", "compressed", "too large"],
)
async def test_a_post_that_is_no_plain_form_is_refused(port, backend, request_, status):
    reply = await ask(port, "/api/search", **request_)

    assert reply.status == status
    told(reply)
    assert not backend.requests


async def test_a_post_with_broken_framing_is_refused(port, backend):
    fields = [("Content-Type", "application/x-www-form-urlencoded")]
    fields += [("Transfer-Encoding", "chunked")]
    reply = await ask(port, "/api/search", method="POST", fields=fields, body=b"zz\r\nq=1\r\n")

    assert reply.status == 400
    assert not backend.requests


async def test_a_form_that_does_not_arrive_is_given_up(backend):
    fields = [CLOSE, ("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", "9")]
    head = request_bytes("/api/search", method="POST", fields=fields, body=b"q=")
    limits = Limits(first_byte_timeout_s=0.05)
    async with proxy_for(Facts(backend.url), limits=limits) as port, connection(port) as (r, w):
        w.write(head)
        answer = await asyncio.wait_for(r.readuntil(b"\r\n\r\n"), DEADLINE_S)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert not backend.requests


# Headers


async def test_headers_of_one_hop_do_not_travel_to_the_backend(port, backend):
    fields = [
        ("Connection", "x-private"),
        ("X-Private", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "trailers"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("Forwarded", "for=1.2.3.4"),
        ("Accept", "application/protobuf"),
        ("X-Request-ID", "7"),
    ]
    await ask(port, fields=fields)

    names = backend.requests[0].names()
    assert names == {"host", "accept", "x-request-id"}
    assert backend.requests[0].values("Host") == [backend.url.removeprefix("http://")]


async def test_an_upgrade_is_not_passed_on(port, backend):
    fields = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "")]
    reply = await ask(port, fields=fields)

    assert reply.status == 200
    assert not backend.requests[0].names() & {"connection", "upgrade", "http2-settings"}


async def test_headers_of_one_hop_do_not_travel_to_the_client():
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: x-private\r\nX-Private: 1\r\nX-Kept: 2\r\n"
            b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: X-Sum\r\n"
            b"X-Latin: caf\xe9\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        await writer.drain()

    async with raw_backend(script) as url, proxy_for(Facts(url)) as port:
        reply = await ask(port, version="1.0")

    names = {name.lower() for name, _ in reply.fields}
    assert reply.body == b"ok"
    assert reply.values("X-Kept") == ["2"]
    assert names <= {"x-kept", "content-type", "date", "server", "connection"}
    assert reply.values("Connection") in ([], ["close"])


async def test_credentials_and_tenant_pass_through_an_open_gateway(port, backend):
    await ask(port, fields=[("Authorization", "Bearer x"), ("X-Scope-OrgID", "team-a")])

    assert backend.requests[0].values("Authorization") == ["Bearer x"]
    assert backend.requests[0].values("X-Scope-OrgID") == ["team-a"]


async def test_a_tenant_of_the_gateways_replaces_what_the_client_claims(backend):
    fields = [("Authorization", "Bearer x"), ("X-Scope-OrgID", "a"), ("x-scope-orgid", "b")]
    async with proxy_for(Facts(backend.url), tenant_of=lambda _: "team-b") as port:
        await ask(port, fields=fields)

    assert backend.requests[0].values("X-Scope-OrgID") == ["team-b"]
    assert not backend.requests[0].values("Authorization")


async def test_credentials_without_a_tenant_stay_at_the_gateway(backend):
    fields = [("Authorization", "Bearer x"), ("X-Scope-OrgID", "team-a")]
    async with proxy_for(Facts(backend.url), tenant_of=lambda _: "") as port:
        await ask(port, fields=fields)

    assert backend.requests[0].values("X-Scope-OrgID") == ["team-a"]
    assert not backend.requests[0].values("Authorization")


async def test_a_backend_that_needs_a_tenant_gets_its_default_where_none_is_named(backend):
    async with proxy_for(Facts(backend.url, default_tenant="single-tenant")) as port:
        await ask(port)
        await ask(port, fields=[("X-Scope-OrgID", "a|b")])

    asked = [request.values("X-Scope-OrgID") for request in backend.requests]
    assert asked == [["single-tenant"], ["a|b"]]


async def test_a_search_that_names_no_time_gets_the_last_hour_of_the_gateways_own_tempo(backend):
    async with proxy_for(Facts(backend.url, mode="managed")) as port:
        for target in ("/api/search?q=%7B%7D", "/api/search?q=%7B%7D&start=1&end=2", "/api/echo"):
            await ask(port, target)
    async with proxy_for(Facts(backend.url, mode="external")) as port:
        await ask(port, "/api/search")

    searched, *others = [request.target for request in backend.requests]
    window = re.fullmatch(r"/api/search\?q=%7B%7D&start=(\d+)&end=(\d+)", searched)
    assert window is not None
    assert int(window[1]) < time.time() - 3500 < time.time() <= int(window[2]) + 1
    assert others == ["/api/search?q=%7B%7D&start=1&end=2", "/api/echo", "/api/search"]


async def test_two_tenants_in_two_fields_are_refused(port, backend):
    reply = await ask(port, fields=[("X-Scope-OrgID", "a"), ("X-Scope-OrgID", "b")])

    assert reply.status == 400
    assert b"more than once" in reply.body
    assert not backend.requests


async def test_credentials_of_the_backends_address_are_used(backend):
    url = backend.url.replace("://", "://me:secret@") + "/tempo/"
    async with proxy_for(Facts(url)) as port:
        await ask(port, fields=[("Authorization", "Bearer x")])

    assert backend.requests[0].values("Authorization") == [
        "Basic " + base64.b64encode(b"me:secret").decode()
    ]
    assert backend.requests[0].target == "/tempo" + SEARCH


async def test_a_cookie_of_one_client_is_not_sent_for_another(backend):
    backend.answer = answering(**{"Set-Cookie": "session=1"})
    named = backend.url.replace(HOST, "localhost")  # cookies of bare addresses are not kept anyway
    async with proxy_for(Facts(named)) as port:
        reply = await ask(port)
        await ask(port)

    assert reply.values("Set-Cookie") == ["session=1"]
    assert not backend.requests[1].values("Cookie")


# Answers


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"trace not found"),
        (404, b""),
        (400, b"trace IDs can only contain hex characters"),
        (422, b"trace exceeds max size"),
        (500, b"error finding generators"),
        (204, b""),
        (304, b""),
    ],
)
async def test_the_backends_own_answer_is_kept(port, backend, status, body):
    backend.answer = answering(status, body, **{"Content-Type": "text/plain; charset=utf-8"})
    reply = await ask(port, "/api/v2/traces/ab")

    assert (reply.status, reply.body) == (status, body)
    assert reply.values("Content-Type") == ["text/plain; charset=utf-8"]


async def test_a_compressed_answer_passes_as_it_is(port, backend):
    packed = gzip.compress(b"x" * 5000)
    backend.answer = answering(body=packed, **{"Content-Encoding": "gzip"})
    reply = await ask(port, fields=[("Accept-Encoding", "zstd, gzip")])

    assert backend.requests[0].values("Accept-Encoding") == ["zstd, gzip"]
    assert reply.values("Content-Encoding") == ["gzip"]
    assert reply.values("Content-Length") == [str(len(packed))]
    assert reply.body == packed


async def test_a_redirect_is_not_followed(port, backend):
    backend.answer = answering(301, Location="/flush")
    reply = await ask(port)

    assert (reply.status, reply.values("Location")) == (301, ["/flush"])
    assert len(backend.requests) == 1


async def test_a_connection_serves_one_query_after_another(port, backend):
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.get(f"http://{HOST}:{port}{SEARCH}") as answer:
                assert (answer.status, await answer.text()) == (200, "fine\n")

    assert len(backend.requests) == 3


PIECE = bytes(range(256)) * 256
PIECES = 1000  # 64 MB


@pytest.fixture
def endless(backend):
    """The backend answers with 64 MB as fast as they are taken; ``sent`` counts the pieces."""
    sent = []

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(PIECES):
            await response.write(PIECE)
            sent.append(len(PIECE))
        return response

    backend.answer = answer
    return sent


async def standstill(sent: list[int]) -> None:
    """Wait until nothing moves any more: loopback hands on within a turn or two of the loop."""
    async with asyncio.timeout(DEADLINE_S):
        turns, before = 0, -1
        while turns < 300:
            turns, before = (turns + 1, before) if len(sent) == before else (0, len(sent))
            await asyncio.sleep(0)


async def test_a_big_answer_waits_for_its_reader_and_then_arrives_whole(port, backend, endless):
    async with connection(port) as (reader, writer):
        writer.write(request_bytes(SEARCH, version="1.0"))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        await standstill(endless)
        # The kernel holds up to about 4 MB for each of four sockets' ends; the rest is ours.
        assert 0 < sum(endless) < 24 * 2**20

        digest, size = hashlib.sha256(), 0
        while piece := await asyncio.wait_for(reader.read(2**20), DEADLINE_S):
            digest.update(piece)
            size += len(piece)

    assert size == PIECES * len(PIECE)
    assert digest.digest() == hashlib.sha256(PIECE * PIECES).digest()


# The client leaves


async def test_a_client_that_leaves_before_the_answer_ends_its_query_in_the_backend(backend):
    ended = asyncio.Event()

    async def answer(_: web.Request) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    backend.answer = answer
    metrics = Metrics()
    limits = Limits(concurrent=1)
    async with proxy_for(Facts(backend.url), metrics=metrics, limits=limits) as port:
        async with connection(port) as (_, writer):
            writer.write(request_bytes(SEARCH))
            await asyncio.wait_for(backend.arrived.wait(), DEADLINE_S)
        await asyncio.wait_for(ended.wait(), DEADLINE_S)
        await counted(metrics, "client_left")

        backend.answer = None
        assert (await ask(port)).status == 200  # its place is free again


async def test_a_client_that_leaves_in_mid_answer_ends_its_query_in_the_backend(backend):
    ended = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"some")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    backend.answer = answer
    metrics = Metrics()
    async with proxy_for(Facts(backend.url), metrics=metrics) as port:
        async with connection(port) as (reader, writer):
            writer.write(request_bytes(SEARCH))
            await asyncio.wait_for(reader.readuntil(b"some"), DEADLINE_S)
        await asyncio.wait_for(ended.wait(), DEADLINE_S)
        await counted(metrics, "client_left")


async def test_a_client_that_stops_reading_loses_its_place(backend, endless):
    metrics = Metrics()
    limits = Limits(idle_timeout_s=0.05)
    async with (
        proxy_for(Facts(backend.url), metrics=metrics, limits=limits) as port,
        connection(port) as (_, writer),
    ):
        writer.write(request_bytes(SEARCH))
        await counted(metrics, "cut")
        async with asyncio.timeout(DEADLINE_S):  # a reset arrives unread, unlike a mere close
            while not writer.get_extra_info("socket").getsockopt(SOL_SOCKET, SO_ERROR):
                await asyncio.sleep(0)

    assert sum(endless) < PIECES * len(PIECE)


# The backend is away, slow or broken


@pytest.mark.parametrize(
    ("upstream", "words"),
    [
        (Facts(None, "starting", "Tempo replays its log"), "Tempo replays its log"),
        (Facts(None, "down"), "it is down"),
    ],
    ids=["with a reason", "without a reason"],
)
async def test_without_a_backend_the_client_is_told_why_and_to_come_back(upstream, words):
    async with proxy_for(upstream) as port:
        reply = await ask(port)

    assert reply.status == 503
    assert told(reply)["reason"] == words
    assert told(reply)["backend"] == upstream.state
    assert int(reply.values("Retry-After")[0]) > 0


async def test_a_backend_that_comes_back_is_found(backend):
    upstream = Facts(None, "starting")
    async with proxy_for(upstream) as port:
        before = await ask(port)
        upstream.base_url = backend.url
        after = await ask(port)

    assert (before.status, after.status) == (503, 200)


async def test_a_backend_that_takes_no_connections_is_503():
    with socket.create_server((HOST, 0)) as free:
        address = free.getsockname()
    async with proxy_for(Facts(f"http://{HOST}:{address[1]}")) as port:
        reply = await ask(port)

    assert reply.status == 503
    assert "takes no connections" in told(reply)["reason"]
    assert reply.values("Retry-After") == ["5"]


async def test_a_backend_whose_queue_of_connections_is_full_is_503():
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind((HOST, 0))
        full.listen(0)
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(full.getsockname())
        limits = Limits(connect_timeout_s=0.05)
        upstream = Facts(f"http://{HOST}:{full.getsockname()[1]}")
        async with proxy_for(upstream, limits=limits) as port:
            reply = await ask(port)

    assert reply.status == 503
    assert "takes no connections" in told(reply)["reason"]


async def test_a_backend_without_an_answer_in_time_is_504(backend):
    ended = asyncio.Event()

    async def answer(_: web.Request) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    backend.answer = answer
    async with proxy_for(Facts(backend.url), limits=Limits(first_byte_timeout_s=0.05)) as port:
        reply = await ask(port)
        await asyncio.wait_for(ended.wait(), DEADLINE_S)

    assert reply.status == 504
    assert "0.05 s" in told(reply)["reason"]
    assert not reply.values("Retry-After")


@pytest.mark.parametrize(
    "speech",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    ],
    ids=["silence", "half a header", "no HTTP", "bad header"],
)
async def test_a_backend_that_breaks_off_before_its_answer_is_502(speech):
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(speech)

    async with raw_backend(script) as url, proxy_for(Facts(url)) as port:
        reply = await ask(port)

    assert reply.status == 502
    assert "before its answer began" in told(reply)["reason"]


async def test_a_stale_connection_to_a_restarted_backend_is_not_the_clients_trouble():
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")  # and closes, unannounced

    async with raw_backend(script) as url, proxy_for(Facts(url)) as port:
        replies = [await ask(port) for _ in range(3)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, b"ok")] * 3


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_half_an_answer_ends_in_a_reset_and_cannot_pass_for_a_whole_one(half, version):
    go_on = asyncio.Event()

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(half)
        await go_on.wait()

    metrics = Metrics()
    async with (
        raw_backend(script) as url,
        proxy_for(Facts(url), metrics=metrics) as port,
        connection(port) as (reader, writer),
    ):
        writer.write(request_bytes(SEARCH, version=version))
        await asyncio.wait_for(reader.readuntil(b"half"), DEADLINE_S)
        go_on.set()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), DEADLINE_S)

    assert metrics.query_requests.series("cut").value == 1


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (b"Content-Length: 10\r\n\r\nhalf", b""),
        # aiohttp does not tell the reader of the broken framing, so it waits on.
        (b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"zz\r\n"),
    ],
    ids=["silence", "broken chunk"],
)
async def test_an_answer_that_stands_still_is_cut(head, rest):
    go_on = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)
        await go_on.wait()
        writer.write(rest)
        await reader.read()

    limits = Limits(idle_timeout_s=0.05)
    async with (
        raw_backend(script) as url,
        proxy_for(Facts(url), limits=limits) as port,
        connection(port) as (reader, writer),
    ):
        writer.write(request_bytes(SEARCH))
        await asyncio.wait_for(reader.readuntil(b"half"), DEADLINE_S)
        go_on.set()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), DEADLINE_S)


async def test_one_query_too_many_is_told_to_come_back(backend):
    go_on = asyncio.Event()

    async def answer(_: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(text="late")

    backend.answer = answer
    async with proxy_for(Facts(backend.url), limits=Limits(concurrent=1)) as port:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(ask(port))
            await asyncio.wait_for(backend.arrived.wait(), DEADLINE_S)
            second = await ask(port)
            go_on.set()
        third = await ask(port)

    assert (first.result().status, second.status, third.status) == (200, 503, 200)
    assert "too many" in told(second)["error"]
    assert second.values("Retry-After") == ["1"]


# What is seen of it


async def test_queries_are_counted_by_status(backend):
    metrics = Metrics()
    async with proxy_for(Facts(backend.url), metrics=metrics) as port:
        await ask(port)
        backend.answer = answering(404)
        await ask(port)
        await ask(port, "/flush")
        await ask(port, "/api/overrides")
        await ask(port, method="DELETE")

    counts = metrics.query_requests.collect().samples
    assert {sample.labels["code"]: sample.value for sample in counts} == {
        "200": 1,
        "404": 1,
        "405": 1,
    }


async def test_failures_are_logged_once_and_clients_mistakes_are_not(caplog):
    async with proxy_for(Facts(None, "down", "it died")) as port:
        for _ in range(3):
            await ask(port)
        await ask(port, method="DELETE")

    assert [record.facts for record in caplog.records if record.name == "gateway.query.proxy"] == [
        {"code": "503", "path": "/api/search", "why": "it died", "quiet": 0}
    ]


async def test_the_log_tells_the_cause_that_the_client_is_spared(caplog):
    with socket.create_server((HOST, 0)) as free:
        address = free.getsockname()
    async with proxy_for(Facts(f"http://me:secret@{HOST}:{address[1]}")) as port:
        reply = await ask(port)

    (record,) = [record for record in caplog.records if record.name == "gateway.query.proxy"]
    assert str(address[1]) in record.facts["cause"]
    assert str(address[1]) not in reply.body.decode()
    assert "secret" not in str(record.facts)
