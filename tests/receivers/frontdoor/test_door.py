"""The front door on real sockets, on both event loops it may run on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

import aiohttp
import grpc
import pytest
from grpc import aio

from gateway.receivers.frontdoor.door import FrontDoor
from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2.frames import ErrorCode, frame
from gateway.receivers.frontdoor.http2.headers import encode
from gateway.receivers.frontdoor.sniff import PREFACE
from gateway.receivers.headers import EXPORT_METHOD
from gateway.receivers.health import WATCH_METHOD
from tests.kit.receivers import HOST, MIB, eventually
from tests.kit.spans import make_payload
from tests.receivers.frontdoor.doors import QUICK, started_door
from tests.receivers.frontdoor.peers import HELLO, goaways

# grpcio's asyncio client does not clean up after itself on uvloop.
ASYNCIO_ONLY = pytest.mark.asyncio(loop_factories=["asyncio"])
PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.fixture
async def door():
    async with started_door() as started:
        yield started


@contextlib.asynccontextmanager
async def connection(receivers):
    reader, writer = await asyncio.open_connection(HOST, receivers.http_port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()


def post(body: bytes, head: str = "") -> bytes:
    head = f"Content-Type: application/x-protobuf\r\nContent-Length: {len(body)}\r\n{head}"
    return f"POST /v1/traces HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body


async def answer(reader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(
        int(line.split(":")[1])
        for line in head.split("\r\n")
        if line.lower().startswith("content-length")
    )
    return head.split("\r\n")[0], await reader.readexactly(length)


async def read_frames(reader) -> list[frames.Frame]:
    return list(frames.FrameReader().feed(await reader.read()))


# -- what is spoken --------------------------------------------------------------------------------


@ASYNCIO_ONLY
async def test_one_port_speaks_all_protocols(door):
    async with aio.insecure_channel(door.grpc_target) as channel:
        assert await channel.unary_unary(EXPORT_METHOD)(make_payload(2), timeout=10) == b""
    async with aiohttp.ClientSession() as client:
        async with client.post(f"{door.url}/v1/traces", data=make_payload(), headers=PROTOBUF) as a:
            assert a.status == 200
        async with client.get(f"{door.url}/ready") as a:
            assert (a.status, await a.text()) == (200, "ready")
    assert door.counts() == {
        "received_spans/grpc/protobuf": 2,
        "received_spans/http/protobuf": 1,
        "accepted_spans": 3,
    }


async def test_tls_on_a_plaintext_port_is_told_so_and_logged(door, caplog):
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        await asyncio.open_connection(HOST, door.http_port, ssl=context)
    (record,) = [record for record in caplog.records if record.msg == "tls on plaintext port"]
    assert record.facts["peer"].startswith(HOST)


@ASYNCIO_ONLY
async def test_a_grpc_client_that_wants_tls_gets_an_error_it_can_show(door):
    async with aio.secure_channel(door.grpc_target, grpc.ssl_channel_credentials()) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await channel.unary_unary(EXPORT_METHOD)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "handshake" in caught.value.details().lower()


async def test_garbage_gets_400(door):
    async with connection(door) as (reader, writer):
        writer.write(b"\x00\x01\x02garbage\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.0 400")


async def test_the_first_bytes_may_come_one_by_one(door):
    async with connection(door) as (reader, writer):
        for byte in post(make_payload()):
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await answer(reader))[0] == "HTTP/1.1 200 OK"
    async with connection(door) as (reader, writer):
        for byte in PREFACE + HELLO:
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await reader.readexactly(9))[3] == frames.SETTINGS


# -- the general server on the same connection -----------------------------------------------------


async def test_the_general_server_takes_over_and_serves_traces_too(door):
    async with connection(door) as (reader, writer):
        get = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(post(make_payload()) + get + post(make_payload()))
        assert (await answer(reader))[0] == "HTTP/1.1 200 OK"
        assert await answer(reader) == ("HTTP/1.1 200 OK", b"ready")
        assert (await answer(reader))[0] == "HTTP/1.1 200 OK"
    assert door.intake.spans == 2


async def test_a_browser_and_a_client_that_expects_100_continue_are_served(door):
    async with connection(door) as (reader, writer):
        request = post(make_payload(), "Expect: 100-continue\r\nOrigin: https://x\r\n")
        head, _, body = request.partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await answer(reader))[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"A: b\nContent-Length: 3\r\n",
        b"A: b\r\n folded\r\nContent-Length: 3\r\n",
        b"Content-Length : 3\r\n",
    ],
)
async def test_smuggling_shapes_get_400_and_nothing_behind_them_is_read(door, head):
    async with connection(door) as (reader, writer):
        writer.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\n" + head + b"\r\nabc")
        writer.write(post(make_payload()))
        assert b" 400 " in await reader.readline()
        assert b"HTTP/1.1 200" not in await reader.read()
    assert door.intake.spans == 0


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(PREFACE[:5], id="part of the preface"),
        pytest.param(PREFACE, id="preface without settings"),
        pytest.param(b"POST /v1/traces HTTP/1.1\r\nHost", id="part of a head"),
        pytest.param(b"GET / HTTP/1.1\r\nHost", id="part of a head for the general server"),
    ],
)
async def test_whoever_begins_and_does_not_go_on_is_let_go(begun):
    timing = QUICK._replace(head_s=0.05, linger_s=0.05)
    async with started_door(timing=timing) as door, connection(door) as (reader, writer):
        writer.write(begun)
        await reader.read()


async def test_a_client_that_only_listens_on_gets_the_answer_made_meanwhile(door, monkeypatch):
    loop, offer = asyncio.get_running_loop(), door.intake.offer
    monkeypatch.setattr(door.intake, "offer", lambda *given: loop.call_soon(offer, *given))
    for _ in range(5):
        async with connection(door) as (reader, writer):
            writer.write(post(make_payload(1)))
            writer.write_eof()
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_idle_http1_connections_are_ended():
    async with (
        started_door(timing=QUICK._replace(keepalive_s=0.05)) as door,
        connection(door) as (reader, writer),
    ):
        writer.write(post(make_payload()))
        await answer(reader)
        assert await reader.read() == b""


@ASYNCIO_ONLY
async def test_grpc_clients_do_not_notice_that_connections_are_renewed():
    timing = QUICK._replace(max_age_s=0.1)
    async with started_door(timing=timing) as door:
        async with aio.insecure_channel(door.grpc_target) as channel:
            export = channel.unary_unary(EXPORT_METHOD)
            peers = set()
            for count in range(200):
                call = export(make_payload(), timeout=10)
                assert await call == b""
                peers.add(len(door.grpc._connections))
                if count % 20 == 0:
                    await asyncio.sleep(0.05)
        assert door.intake.spans == 200


async def test_a_call_past_its_deadline_is_answered_so(door):
    door.intake.holding = True
    reader, writer = await asyncio.open_connection(HOST, door.grpc_port)
    writer.write(PREFACE + HELLO + raw_export(1, make_payload(), ("grpc-timeout", "20m")))
    received = b""
    async with asyncio.timeout(5):
        while b"Deadline Exceeded" not in received:
            received += await reader.read(1000)
    writer.close()
    door.intake.settle()
    assert door.counts()["accepted_spans"] == 1


def raw_export(stream_id: int, payload: bytes, *fields: tuple[str, str]) -> bytes:
    head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", EXPORT_METHOD),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *fields,
    ]
    message = b"\0" + len(payload).to_bytes(4, "big") + payload
    return frame(frames.HEADERS, frames.END_HEADERS, stream_id, encode(head)) + frames.data_frame(
        stream_id, message, ended=True
    )


# -- a peer that does not read ---------------------------------------------------------------------


async def test_a_peer_that_reads_nothing_is_let_go_and_makes_nothing_pile_up():
    async with started_door(timing=QUICK._replace(stall_s=0.2)) as door:
        with socket.create_connection((HOST, door.http_port)) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.setblocking(False)
            loop = asyncio.get_running_loop()
            request = post(b"\xff") * 100
            with contextlib.suppress(OSError):
                async with asyncio.timeout(10):
                    while True:
                        await loop.sock_sendall(peer, request)
            await eventually(lambda: not door.grpc._connections)


async def test_nothing_is_read_from_a_peer_that_does_not_read(door):
    with socket.create_connection((HOST, door.http_port)) as peer:
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(loop.sock_sendall(peer, post(b"\xff") * 300_000))
        await eventually(lambda: any(made.paused for made in door.grpc._connections))
        (made,) = door.grpc._connections
        assert not made._transport.is_reading()
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
    await eventually(lambda: not door.grpc._connections)


async def test_a_peer_that_stays_after_our_last_words_is_cut_off():
    async with (
        started_door(timing=QUICK._replace(linger_s=0.05)) as door,
        connection(door) as (reader, writer),
    ):
        writer.write(PREFACE + b"garbage that is no frame")
        assert next(goaways(await read_frames(reader)))[1] is not ErrorCode.NO_ERROR
        await eventually(lambda: not door.grpc._connections)
        assert not writer.is_closing()


async def test_answers_wait_for_a_peer_that_reads_late(door):
    async with connection(door) as (reader, writer):
        count = 3000
        writer.write(post(b"\xff") * count)
        await eventually(lambda: door.counts().get("refused_requests/malformed", 0) > 0)
        for _ in range(count):
            assert (await answer(reader))[0] == "HTTP/1.1 400 Bad Request"


# -- the end ---------------------------------------------------------------------------------------


async def test_stop_sends_goaway_and_lets_calls_finish(door):
    door.intake.holding = True
    reader, writer = await asyncio.open_connection(HOST, door.grpc_port)
    writer.write(PREFACE + HELLO + raw_export(1, make_payload()))
    await eventually(lambda: door.intake.open == 1)
    stop = asyncio.ensure_future(door.grpc.stop(5))
    await eventually(lambda: not listens(door.http_port))
    door.intake.settle()
    received = await read_frames(reader)
    writer.close()
    assert await stop == 0
    assert [last for last, _, _ in goaways(received)] == [2**31 - 1, 1]
    kinds = [(kind, flags & 1) for kind, flags, stream, _ in received if stream == 1]
    assert kinds == [(frames.HEADERS, 0), (frames.DATA, 0), (frames.HEADERS, 1)]


async def test_stop_cuts_what_does_not_end_in_time(door):
    door.intake.holding = True
    async with connection(door) as (reader, writer):
        writer.write(post(make_payload()))
        await eventually(lambda: door.intake.open == 1)
        assert await door.grpc.stop(0.05) == 1
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    door.intake.settle()


@ASYNCIO_ONLY
async def test_stop_ends_watches_and_is_safe_twice(door):
    async with aio.insecure_channel(door.grpc_target) as channel:
        watch = channel.unary_stream(WATCH_METHOD)(b"", timeout=10)
        assert await watch.read() == b"\x08\x01"
        await door.stop_grpc(5)
        await door.stop_grpc(5)
        with pytest.raises(aio.AioRpcError) as caught:
            await watch.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_stop_is_safe_before_start(door):
    other = FrontDoor(door.ingest, general=door.runner.server, handlers={})
    assert await other.stop(1) == 0


async def test_a_port_that_is_taken_is_an_error(door):
    other = FrontDoor(door.ingest, general=door.runner.server, handlers={})
    with pytest.raises(OSError, match=str(door.http_port)):
        await other.start(HOST, door.http_port)
    await other.stop(1)


@ASYNCIO_ONLY
async def test_listens_on_several_ports_and_on_ipv6(door):
    port = await door.grpc.start("::1", 0)
    async with aio.insecure_channel(f"[::1]:{port}") as channel:
        assert await channel.unary_unary(EXPORT_METHOD)(make_payload(), timeout=10) == b""
    async with aio.insecure_channel(door.grpc_target) as channel:
        assert await channel.unary_unary(EXPORT_METHOD)(make_payload(), timeout=10) == b""


def listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


# -- hostile peers among others --------------------------------------------------------------------

HOSTILE = {
    "pings": frame(frames.PING, 0, 0, bytes(8)) * 5000,
    "settings": HELLO * 5000,
    "rapid reset": b"".join(
        raw_export(stream, b"x")[:-6] + frames.reset_frame(stream, ErrorCode.CANCEL)
        for stream in range(1, 6000, 2)
    ),
    "continuation": frame(frames.HEADERS, 0, 1, b"") + frame(frames.CONTINUATION, 0, 1, b"") * 5000,
    "hpack bomb": frame(frames.HEADERS, 4, 1, b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000)
    + frame(frames.HEADERS, 4, 3, b"\xbe" * 16000),
    "oversized frame": (2**24 - 1).to_bytes(3, "big") + bytes(6),
    "garbage": os.urandom(100_000),
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_peer_is_ended_and_others_are_served(door, sent):
    async with connection(door) as (other_reader, other):
        for _ in range(3):
            async with connection(door) as (reader, writer):
                writer.write(PREFACE + HELLO + sent)
                other.write(post(make_payload()))
                assert (await answer(other_reader))[0] == "HTTP/1.1 200 OK"
                received = await read_frames(reader)
                assert next(goaways(received))[1] is not ErrorCode.NO_ERROR
    assert door.intake.spans == 3


async def test_a_peer_with_zero_windows_holds_up_nobody():
    async with started_door(timing=QUICK._replace(stall_s=0.1)) as door:
        setting = frames.settings_frame({frames.Setting.INITIAL_WINDOW_SIZE: 0})
        async with connection(door) as (reader, writer):
            calls = b"".join(raw_export(stream, make_payload()) for stream in range(1, 401, 2))
            writer.write(PREFACE + setting + calls)
            resets = b""
            while resets.count(frames.reset_frame(399, ErrorCode.CANCEL)) == 0:
                resets += await reader.read(65536)
        async with connection(door) as (reader, writer):
            writer.write(post(make_payload()))
            assert (await answer(reader))[0] == "HTTP/1.1 200 OK"
        assert door.intake.spans == 201


async def test_a_message_byte_by_byte_is_counted_as_it_comes():
    async with started_door(max_request_bytes=8 * MIB) as door, connection(door) as (_, writer):
        head = raw_export(1, bytes(2000))
        pieces = b"".join(frames.data_frame(1, b"\0") for _ in range(900))
        writer.write(PREFACE + HELLO + head[: head.index(b"\0\0\0\x07\xd0") - 9])
        writer.write(frames.data_frame(1, (5000).to_bytes(5, "big")) + pieces)
        await eventually(lambda: door.budget.used >= 512)
    await eventually(lambda: door.budget.used == 0)
