"""What is the front door's own; what both engines do is in ``tests/receivers/test_methods.py``."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc import aio
from hpack import Decoder

from gateway.lifecycle import Tasks
from gateway.receivers.frontdoor.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    HEADERS,
    RST_STREAM,
    FrameReader,
    window_frame,
)
from gateway.receivers.frontdoor.http2.headers import encode
from gateway.receivers.frontdoor.rpc.calls import Calls
from gateway.receivers.frontdoor.sniff import PREFACE
from gateway.receivers.frontdoor.wire import Timing
from gateway.receivers.methods import unary
from tests.kit.receivers import MIB, Receivers, eventually
from tests.receivers.frontdoor.doors import started_door
from tests.receivers.frontdoor.peers import HELLO, RawPeer, data, headers

METHOD = "/test.Service/Method"


FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", METHOD),
    ("content-type", "application/grpc"),
]
CALL = encode([*FIELDS, ("grpc-timeout", "200m")])
TIMING = Timing()


async def test_a_request_that_finds_no_memory_is_refused():
    async def handler(request, context):
        await context.write(b"")

    async with (
        started_door(handlers={METHOD: handler}, memory_bytes=1000) as door,
        aio.insecure_channel(door.grpc_target) as channel,
    ):
        with pytest.raises(aio.AioRpcError) as caught:
            await channel.unary_stream(METHOD)(bytes(2000), timeout=10).read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("step_s", [TIMING.body_idle_s + 1, TIMING.body_idle_s / 2])
async def test_a_slow_request_ends_and_holds_no_memory(step_s):
    receivers = Receivers(
        memory_bytes=MIB, max_request_bytes=MIB, batch_spans=8192, batch_bytes=MIB
    )
    calls = Calls(receivers.ingest, {METHOD: unary(unreached)}, Tasks("rpc").spawn, TIMING)
    peer, received = RawPeer(calls), []
    peer.send(headers(1, encode(FIELDS)), data(1, bytes(1000)))
    assert receivers.budget.used == 1000
    while not received and peer.now < 1100:
        received = peer.after(step_s)
        peer.send(data(1, b"x"))
    *_, trailers = [payload for kind, _, _, payload in received if kind == HEADERS]
    assert dict(Decoder().decode(trailers))["grpc-status"] == "4"
    assert receivers.budget.used == 0


async def unreached(request, context):
    raise AssertionError("the request is not whole")


async def test_a_message_that_is_not_whole_at_the_deadline_is_no_answer():
    async def handler(request, context):
        await context.write(bytes(100_000))

    async with started_door(handlers={METHOD: handler}) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.grpc_port)
        writer.write(PREFACE + HELLO + headers(1, CALL) + data(1, bytes(5), ended=True))
        framing, received, kinds = FrameReader(), 0, []
        async with asyncio.timeout(10):
            while RST_STREAM not in kinds:
                for kind, _, stream, payload in framing.feed(await reader.read(65536)):
                    kinds += [kind] if stream else []
                    received += len(payload) if kind == DATA else 0
        assert received == DEFAULT_WINDOW
        assert kinds.count(HEADERS) == 1, "no trailers, which would pass for the end of an answer"
        writer.close()


async def test_a_handler_goes_on_when_the_client_has_taken_what_it_sent():
    sent = 0

    async def handler(request, context):
        nonlocal sent
        for _ in range(3):
            await context.write(bytes(30_000))
            sent += 1

    async with started_door(handlers={METHOD: handler}) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.grpc_port)
        writer.write(PREFACE + HELLO + headers(1, encode(FIELDS)) + data(1, bytes(5), ended=True))
        framing, received = FrameReader(), 0
        async with asyncio.timeout(10):
            while received < DEFAULT_WINDOW:
                for kind, _, _, payload in framing.feed(await reader.read(65536)):
                    received += len(payload) if kind == DATA else 0
            assert (received, sent) == (DEFAULT_WINDOW, 2)
            writer.write(window_frame(0, 10**6) + window_frame(1, 10**6))
            while received < 3 * 30_005:
                for kind, _, _, payload in framing.feed(await reader.read(65536)):
                    received += len(payload) if kind == DATA else 0
        await eventually(lambda: sent == 3)
        writer.close()


async def test_the_stop_of_the_door_ends_a_handler():
    ended = asyncio.Event()

    async def handler(request, context):
        try:
            await context.write(b"first")
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with (
        started_door(handlers={METHOD: handler}) as door,
        aio.insecure_channel(door.grpc_target) as channel,
    ):
        answers = channel.unary_stream(METHOD)(b"", timeout=10)
        assert await answers.read() == b"first"
        await door.grpc.stop(0.05)
        assert ended.is_set()
        with pytest.raises(aio.AioRpcError):
            await answers.read()
