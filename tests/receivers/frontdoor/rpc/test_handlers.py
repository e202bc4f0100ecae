"""Methods that asyncio handlers serve, by grpcio's client and by raw peers."""

from __future__ import annotations

import asyncio
import gzip

import grpc
import pytest
from grpc import aio

from gateway.receivers.frontdoor.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    FrameReader,
    window_frame,
)
from gateway.receivers.frontdoor.http2.headers import encode
from gateway.receivers.frontdoor.rpc.handlers import MAX_REQUEST_BYTES, unary
from gateway.receivers.frontdoor.sniff import PREFACE
from tests.kit.receivers import MIB, eventually
from tests.receivers.frontdoor.doors import QUICK, started_door
from tests.receivers.frontdoor.peers import HELLO, data, headers

METHOD = "/test.Service/Method"


async def call(handler, request=b"hello", *, compression=None, **options):
    """The messages that a client gets."""
    async with (
        started_door(handlers={METHOD: handler}, **options) as door,
        aio.insecure_channel(
            door.grpc_target, options=[("grpc.max_receive_message_length", -1)]
        ) as channel,
    ):
        method = channel.unary_stream(METHOD)
        metadata = (("x-who", "me"),)
        answers = method(request, timeout=10, compression=compression, metadata=metadata)
        return [message async for message in answers]


async def failure(handler, request=b"hello", **options):
    with pytest.raises(aio.AioRpcError) as caught:
        await call(handler, request, **options)
    return caught.value.code(), caught.value.details()


async def test_a_handler_answers_with_messages():
    async def handler(request, context):
        for number in range(3):
            yield request + bytes([number])

    assert await call(handler, b"x") == [b"x\0", b"x\1", b"x\2"]


async def test_a_unary_handler_answers_with_one():
    async def method(request, context):
        return request[::-1]

    assert await call(unary(method), b"abc") == [b"cba"]


async def test_no_message_is_an_answer_too():
    async def handler(request, context):
        return
        yield

    assert await call(handler) == []


async def test_a_handler_knows_its_call():
    async def handler(request, context):
        assert dict(context.invocation_metadata())["x-who"] == "me"
        assert context.peer().startswith("127.0.0.1:")
        assert 9 < context.time_remaining() < 10.1
        yield b"fine"

    assert await call(handler) == [b"fine"]


async def test_a_compressed_request_is_inflated():
    async def handler(request, context):
        yield request

    assert await call(handler, b"x" * 1000, compression=grpc.Compression.Gzip) == [b"x" * 1000]


async def test_a_bomb_is_refused():
    async def handler(request, context):
        yield b""

    bomb = bytes(20 * MIB)
    assert len(gzip.compress(bomb)) < MAX_REQUEST_BYTES
    code, _ = await failure(handler, bomb, compression=grpc.Compression.Gzip)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_large_request_is_refused():
    async def handler(request, context):
        yield b""

    code, message = await failure(handler, bytes(MAX_REQUEST_BYTES + 1))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_REQUEST_BYTES) in message


async def test_a_request_that_finds_no_memory_is_refused():
    async def handler(request, context):
        yield b""

    code, _ = await failure(handler, bytes(2000), memory_bytes=1000)
    assert code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("begun", [False, True])
async def test_a_handler_may_end_with_a_status(begun):
    async def handler(request, context):
        if begun:
            yield b"first"
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    assert await failure(handler) == (grpc.StatusCode.NOT_FOUND, "no such thing")


@pytest.mark.parametrize("begun", [False, True])
async def test_a_handler_that_fails_is_internal_and_logged(begun, caplog):
    async def handler(request, context):
        if begun:
            yield b"first"
        raise ZeroDivisionError("a bug")

    code, message = await failure(handler)
    assert code is grpc.StatusCode.INTERNAL
    assert "a bug" not in message
    assert "call failed" in caplog.text


async def test_large_answers_come_through():
    async def handler(request, context):
        for _ in range(20):
            yield bytes(MIB)

    assert sum(map(len, await call(handler))) == 20 * MIB


async def test_a_handler_goes_on_when_the_client_has_taken_what_it_sent():
    sent = 0

    async def handler(request, context):
        nonlocal sent
        for _ in range(3):
            yield bytes(30_000)
            sent += 1

    async with started_door(handlers={METHOD: handler}) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.grpc_port)
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", METHOD),
            ("content-type", "application/grpc"),
        ]
        writer.write(PREFACE + HELLO + headers(1, encode(fields)) + data(1, bytes(5), ended=True))
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


async def test_a_client_that_leaves_ends_its_handler():
    ended = asyncio.Event()

    async def handler(request, context):
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with (
        started_door(handlers={METHOD: handler}) as door,
        aio.insecure_channel(door.grpc_target) as channel,
    ):
        answers = channel.unary_stream(METHOD)(b"", timeout=10)
        assert await answers.read() == b"first"
        answers.cancel()
        assert await answers.code() is grpc.StatusCode.CANCELLED
        async with asyncio.timeout(5):
            await ended.wait()
        await eventually(lambda: door.budget.used == 0)


async def test_a_deadline_ends_a_handler():
    ended = asyncio.Event()

    async def handler(request, context):
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            ended.set()

    async with (
        started_door(handlers={METHOD: handler}, timing=QUICK) as door,
        aio.insecure_channel(door.grpc_target) as channel,
    ):
        with pytest.raises(aio.AioRpcError) as caught:
            await channel.unary_stream(METHOD)(b"", timeout=0.1).read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            await ended.wait()


async def test_the_stop_of_the_door_ends_a_handler():
    ended = asyncio.Event()

    async def handler(request, context):
        try:
            yield b"first"
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
