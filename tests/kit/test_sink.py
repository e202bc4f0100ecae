from __future__ import annotations

import asyncio
import os

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.kit.sink import DIE, EXPORT, HANG, RESET, Reply, Sink, keys, running_sink
from tests.kit.spans import make_request, make_span


@pytest.fixture
async def sink():
    async with running_sink() as sink:
        yield sink


@pytest.fixture
async def export(sink: Sink):
    """Sends spans of these names; returns the response, or raises AioRpcError."""
    options = [
        ("grpc.enable_retries", 0),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 100),
    ]
    async with aio.insecure_channel(sink.address, options=options) as channel:
        call = channel.unary_unary(EXPORT)

        async def export(*names: str, wait: bool = False) -> ExportTraceServiceResponse:
            body = make_request(*map(make_span, names)).SerializeToString()
            metadata = (("x-scope-orgid", "shop"),)
            answer = await call(body, metadata=metadata, timeout=10, wait_for_ready=wait)
            return ExportTraceServiceResponse.FromString(answer)

        yield export


async def test_it_keeps_what_it_said_ok_to(sink, export):
    assert not (await export("a", "b")).HasField("partial_success")
    (request,) = sink.requests
    assert request.tenant == "shop"
    assert request.names == ["a", "b"]
    assert set(sink.spans) == set(keys(request.spans))
    assert sink.names == {"a": 1, "b": 1}


async def test_it_counts_what_comes_twice(sink):
    body = make_request(make_span("a")).SerializeToString()
    async with aio.insecure_channel(sink.address) as channel:
        for _ in range(2):
            await channel.unary_unary(EXPORT)(body)
    assert list(sink.spans.values()) == [2]


async def test_scripted_replies_come_in_turn_and_then_ok(sink, export):
    sink.script(
        Reply(grpc.StatusCode.UNAVAILABLE, "busy", retry_after_s=1.5),
        Reply(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much"),
        Reply(rejected_spans=2, message="two are bad"),
    )
    with pytest.raises(aio.AioRpcError) as busy:
        await export("a")
    assert (busy.value.code(), busy.value.details()) == (grpc.StatusCode.UNAVAILABLE, "busy")
    details = dict(busy.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    info = RetryInfo()
    assert Status.FromString(details).details[0].Unpack(info)
    assert (info.retry_delay.seconds, info.retry_delay.nanos) == (1, 500_000_000)
    with pytest.raises(aio.AioRpcError) as too_much:
        await export("a")
    assert "grpc-status-details-bin" not in dict(too_much.value.trailing_metadata() or ())
    assert (await export("a", "b", "c")).partial_success.rejected_spans == 2
    assert not (await export("a")).HasField("partial_success")


async def test_a_span_can_decide(sink, export):
    sink.answer_span("bad", Reply(grpc.StatusCode.INVALID_ARGUMENT, "bad"))
    with pytest.raises(aio.AioRpcError):
        await export("good", "bad")
    await export("good")
    assert sink.names == {"good": 1}


async def test_what_hangs_is_answered_when_let_go(sink, export):
    sink.script(HANG)
    call = asyncio.get_running_loop().create_task(export("a"))
    async with asyncio.timeout(5):
        while not sink.requests:
            await asyncio.sleep(0.001)
    assert not call.done()
    sink.let_go()
    await call


async def test_at_a_pace_one_request_waits_for_the_other(sink, export):
    sink.set_pace(1e-6)
    tasks = [asyncio.get_running_loop().create_task(export(name)) for name in ("a", "b")]
    async with asyncio.timeout(5):
        while len(sink.requests) < 2:
            await asyncio.sleep(0.001)
    assert not sink.spans
    sink.set_pace(None)
    await asyncio.gather(*tasks)
    assert sink.names == {"a": 1, "b": 1}


async def test_a_reset_breaks_the_connection_in_the_middle_of_the_call(sink, export):
    sink.script(RESET)
    with pytest.raises(aio.AioRpcError) as broken:
        await export("a")
    assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not sink.spans
    await export("b", wait=True)
    assert sink.names == {"b": 1}


async def test_a_death_loses_what_was_not_flushed_and_the_port_refuses_until_it_is_revived(
    sink, export
):
    await export("flushed")
    sink.flush()
    await export("lost")
    sink.answer_span("poison", DIE)
    with pytest.raises(aio.AioRpcError):
        await export("poison")
    assert sink.deaths == 1
    assert len(sink.spans) == 1
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", sink.port)
    await sink.revive()
    await export("again", wait=True)
    assert sink.names == {"flushed": 1, "lost": 1, "again": 1}
    assert len(sink.spans) == 2


async def test_a_durable_one_loses_nothing():
    async with running_sink(durable=True) as sink:
        body = make_request(make_span("a")).SerializeToString()
        async with aio.insecure_channel(sink.address) as channel:
            await channel.unary_unary(EXPORT)(body)
        await sink.die()
        assert not sink.alive
        assert len(sink.spans) == 1


async def test_a_message_beyond_its_limit_is_refused_by_the_library():
    async with (
        running_sink(max_message_bytes=1000) as sink,
        aio.insecure_channel(sink.address) as channel,
    ):
        with pytest.raises(aio.AioRpcError) as refused:
            await channel.unary_unary(EXPORT)(os.urandom(2000))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
