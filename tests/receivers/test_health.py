"""``grpc.health.v1.Health``, on the wire."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc import aio

from gateway.receivers.health import CHECK_METHOD, MAX_WATCHERS, WATCH_METHOD, request_for
from tests.kit.receivers import eventually, started_receivers

SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"
TRACE_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@pytest.fixture
async def receivers():
    async with started_receivers() as started:
        yield started


@pytest.fixture
async def channel(receivers):
    async with aio.insecure_channel(receivers.grpc_target) as opened:
        yield opened


@pytest.mark.parametrize("request_", [b"", request_for(""), request_for(TRACE_SERVICE)])
async def test_check_says_whether_the_gateway_accepts(receivers, channel, request_):
    check = channel.unary_unary(CHECK_METHOD)
    assert await check(request_, timeout=10) == SERVING
    receivers.serving = False
    assert await check(request_, timeout=10) == NOT_SERVING


@pytest.mark.parametrize("request_", [request_for("no.such.Service"), b"\xff"])
async def test_check_of_an_unknown_service_is_not_found(channel, request_):
    with pytest.raises(aio.AioRpcError) as caught:
        await channel.unary_unary(CHECK_METHOD)(request_, timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_tells_the_status_and_each_change(receivers, channel):
    watch = channel.unary_stream(WATCH_METHOD)(b"", timeout=10)
    assert await watch.read() == SERVING
    receivers.serving = False
    assert await watch.read() == NOT_SERVING
    watch.cancel()


async def test_watch_of_an_unknown_service_says_so_and_stays(receivers, channel):
    watch = channel.unary_stream(WATCH_METHOD)(request_for("no.such.Service"), timeout=10)
    assert await watch.read() == SERVICE_UNKNOWN
    assert not watch.done()
    watch.cancel()


async def test_a_watch_does_not_hold_up_the_stop(receivers, channel):
    watch = channel.unary_stream(WATCH_METHOD)(b"", timeout=10)
    assert await watch.read() == SERVING
    async with asyncio.timeout(5):
        await receivers.stop_grpc(60)
    with pytest.raises(aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    # grpcio's stop may return a moment before its task for the call does
    await eventually(lambda: all(task.get_name() != "rpc_task" for task in asyncio.all_tasks()))


async def test_watches_are_bounded_and_their_places_free_again(receivers, channel):
    async with AsyncExitStack() as stack:
        watches = []
        for _ in range(MAX_WATCHERS):
            watches.append(channel.unary_stream(WATCH_METHOD)(b"", timeout=10))
            stack.callback(watches[-1].cancel)
        assert {await watch.read() for watch in watches} == {SERVING}
        with pytest.raises(aio.AioRpcError) as caught:
            await channel.unary_stream(WATCH_METHOD)(b"", timeout=10).read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await eventually(lambda: receivers.health.watchers == 0)
    again = channel.unary_stream(WATCH_METHOD)(b"", timeout=10)
    assert await again.read() == SERVING
    again.cancel()
