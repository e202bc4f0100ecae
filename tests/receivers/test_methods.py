"""Methods that handlers serve, by grpcio's client; on both engines, see test_same_as_grpcio."""

from __future__ import annotations

import asyncio
import gzip

import grpc
import pytest
from grpc import aio

from gateway.errors import GrpcCode
from gateway.receivers.methods import FAILED, MAX_REQUEST_BYTES, Aborted, passed_on, unary
from tests.kit.receivers import MIB, started_receivers

METHOD = "/test.Service/Method"


async def call(handler, request=b"hello", *, compression=None, metadata=(), **options):
    """The messages that a client gets, and what follows them."""
    async with (
        started_receivers(handlers={METHOD: handler}, max_request_bytes=64 * MIB, **options) as it,
        aio.insecure_channel(
            it.grpc_target, options=[("grpc.max_receive_message_length", -1)]
        ) as channel,
    ):
        answer = channel.unary_stream(METHOD)(
            request, timeout=10, compression=compression, metadata=metadata
        )
        return [message async for message in answer], dict(await answer.trailing_metadata())


async def messages(handler, *arguments, **options):
    return (await call(handler, *arguments, **options))[0]


async def failure(handler, request=b"hello", **options):
    with pytest.raises(aio.AioRpcError) as caught:
        await call(handler, request, **options)
    return caught.value.code(), caught.value.details()


async def echo(request, context):
    await context.write(request)


async def test_a_handler_answers_with_messages():
    async def handler(request, context):
        for number in range(3):
            await context.write(request + bytes([number]))

    assert await messages(handler, b"x") == [b"x\0", b"x\1", b"x\2"]


async def test_a_unary_handler_answers_with_one():
    async def method(request, context):
        return request[::-1]

    assert await messages(unary(method), b"abc") == [b"cba"]


async def test_no_message_is_an_answer_too():
    async def handler(request, context):
        context.trailers = (("x-found", "nothing"),)

    assert await call(handler) == ([], {"x-found": "nothing"})


async def test_an_empty_message_is_a_message():
    assert await messages(echo, b"") == [b""]


async def test_a_handler_knows_its_call():
    async def handler(request, context):
        seen = dict(context.metadata)
        assert seen["x-who"] == "me"
        assert context.peer.startswith("127.0.0.1:")
        assert "x-who-bin" not in seen
        assert 9 < context.time_remaining() < 10.1
        await context.write(b"fine")

    metadata = (("x-who", "me"), ("x-who-bin", b"\xff\x00"))
    assert await messages(handler, metadata=metadata) == [b"fine"]


async def test_a_call_without_a_deadline_has_none():
    async def handler(request, context):
        assert context.time_remaining() is None
        await context.write(b"fine")

    async with (
        started_receivers(handlers={METHOD: handler}) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        assert await channel.unary_stream(METHOD)(b"").read() == b"fine"


async def test_a_compressed_request_is_inflated():
    request = b"x" * 1000
    assert await messages(echo, request, compression=grpc.Compression.Gzip) == [request]


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
async def test_a_large_request_is_refused(compression):
    request = bytes(MAX_REQUEST_BYTES + 1)
    assert len(gzip.compress(request)) < MAX_REQUEST_BYTES
    code, message = await failure(echo, request, compression=compression)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_REQUEST_BYTES) in message


@pytest.mark.parametrize("begun", [False, True])
async def test_a_handler_may_end_with_a_status(begun):
    details = (("grpc-status-details-bin", b"\x08\x05"), ("x-why", "gone"))

    async def handler(request, context):
        if begun:
            await context.write(b"first")
        raise Aborted(GrpcCode.NOT_FOUND, "no such thing: ü", details)

    with pytest.raises(aio.AioRpcError) as caught:
        await call(handler)
    error = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing: ü")
    assert set(details) <= set(error.trailing_metadata())


@pytest.mark.parametrize("begun", [False, True])
async def test_a_handler_that_fails_is_internal_and_logged(begun, caplog):
    async def handler(request, context):
        if begun:
            await context.write(b"first")
        raise ZeroDivisionError("a bug")

    assert await failure(handler) == (grpc.StatusCode.INTERNAL, FAILED)
    assert "call failed" in caplog.text


async def test_large_answers_come_through():
    async def handler(request, context):
        for number in range(3):
            await context.write(bytes([number]) * 16 * MIB)

    answers = await messages(handler)
    assert [(len(answer), answer[-1]) for answer in answers] == [(16 * MIB, n) for n in range(3)]


async def test_a_client_that_leaves_ends_its_handler():
    ended = asyncio.Event()

    async def handler(request, context):
        try:
            await context.write(b"first")
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with (
        started_receivers(handlers={METHOD: handler}) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        answers = channel.unary_stream(METHOD)(b"", timeout=10)
        assert await answers.read() == b"first"
        answers.cancel()
        assert await answers.code() is grpc.StatusCode.CANCELLED
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_deadline_ends_a_handler():
    ended = asyncio.Event()

    async def handler(request, context):
        try:
            await context.write(b"first")
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with (
        started_receivers(handlers={METHOD: handler}) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        answers = channel.unary_stream(METHOD)(b"", timeout=1)
        assert await answers.read() == b"first"
        with pytest.raises(aio.AioRpcError) as caught:
            await answers.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_handler_is_not_faster_than_its_client():
    size, sent = 2 * MIB, []

    async def handler(request, context):
        for number in range(20):
            await context.write(bytes(size))
            sent.append(number)

    window = [("grpc.http2.bdp_probe", 0), ("grpc.max_receive_message_length", -1)]
    async with (
        started_receivers(handlers={METHOD: handler}) as receivers,
        aio.insecure_channel(receivers.grpc_target, options=window) as channel,
    ):
        answers = channel.unary_stream(METHOD)(b"", timeout=30)
        for taken in range(1, 21):
            assert len(await answers.read()) == size
            assert len(sent) <= taken + 2
        assert await answers.read() is aio.EOF


class Elsewhere:
    """Answers as a test tells it."""

    def __init__(self, *ended) -> None:
        self.ended = ended
        self.asked = []

    async def answer(self, path, message, *, metadata, peer, timeout_s, write):
        self.asked.append((path, message, dict(metadata).get("x-who"), round(timeout_s)))
        await write(b"one")
        await write(b"two")
        return self.ended


async def test_a_method_that_somebody_else_answers():
    elsewhere = Elsewhere(GrpcCode.OK, "", (("x-last", "word"),))
    handler = passed_on(METHOD, elsewhere)
    assert await call(handler, metadata=(("x-who", "me"),)) == (
        [b"one", b"two"],
        {"x-last": "word"},
    )
    assert elsewhere.asked == [(METHOD, b"hello", "me", 10)]


async def test_somebody_else_may_fail():
    handler = passed_on(METHOD, Elsewhere(GrpcCode.OUT_OF_RANGE, "too far", ()))
    assert await failure(handler) == (grpc.StatusCode.OUT_OF_RANGE, "too far")
