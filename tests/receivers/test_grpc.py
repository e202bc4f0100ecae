"""OTLP over gRPC, by real clients over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from gateway.errors import Cause, Refused
from gateway.receivers.grpc import GrpcServer
from gateway.receivers.headers import EXPORT_METHOD
from tests.kit.receivers import HOST, MIB, eventually, started_receivers
from tests.kit.spans import make_payload, make_request, make_span

SUCCESS = ExportTraceServiceResponse()
GZIP = grpc.Compression.Gzip
SLACK = 4 * MIB


@pytest.fixture
async def receivers():
    async with started_receivers() as started:
        yield started


@pytest.fixture
async def channel(receivers):
    async with aio.insecure_channel(receivers.grpc_target) as opened:
        yield opened


async def export(channel, payload, **options):
    call = channel.unary_unary(EXPORT_METHOD)
    return await call(payload, timeout=10, **options)


async def refusal(channel, payload, **options):
    """(code, message, RetryInfo's seconds or None) of a call that is refused."""
    with pytest.raises(aio.AioRpcError) as caught:
        await export(channel, payload, **options)
    return told(caught.value)


def told(error):
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    delay_s = None
    if details is not None:
        status = Status.FromString(details)
        assert (status.code, status.message) == (error.code().value[0], error.details())
        for detail in status.details:
            info = RetryInfo()
            assert detail.Unpack(info)
            delay_s = info.retry_delay.ToTimedelta().total_seconds()
    return error.code(), error.details(), delay_s


# -- success -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, GZIP])
async def test_takes_a_request_as_it_came(receivers, channel, compression):
    payload = make_payload(30)
    answer = await export(channel, payload, compression=compression)
    assert ExportTraceServiceResponse.FromString(answer) == SUCCESS
    (envelope,) = receivers.intake.taken
    assert (envelope.payload, envelope.spans, envelope.tenant) == (payload, 30, "")
    assert receivers.counts() == {"received_spans/grpc/protobuf": 30, "accepted_spans": 30}


@pytest.mark.parametrize("compression", [None, GZIP])
async def test_an_empty_request_succeeds(receivers, channel, compression):
    assert await export(channel, b"", compression=compression) == b""
    assert receivers.counts() == {}


async def test_passes_on_the_tenant(receivers, channel):
    await export(channel, make_payload(), metadata=(("x-scope-orgid", "team-7"),))
    assert receivers.intake.taken[0].tenant == "team-7"


async def test_calls_of_one_channel_run_side_by_side(receivers, channel):
    receivers.intake.holding = True
    calls = [asyncio.ensure_future(export(channel, make_payload())) for _ in range(20)]
    await eventually(lambda: receivers.intake.open == 20)
    receivers.intake.settle()
    assert await asyncio.gather(*calls) == [b""] * 20


# -- partial success -----------------------------------------------------------------------------


async def test_bad_spans_are_told_by_partial_success(receivers, channel):
    bad = make_span(trace_id=bytes(16))
    answer = await export(channel, make_request(make_span(), bad).SerializeToString())
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert partial.rejected_spans == 1
    assert "trace_id_zero" in partial.error_message
    assert receivers.counts() == {
        "received_spans/grpc/protobuf": 2,
        "accepted_spans": 1,
        "rejected_spans/trace_id_zero": 1,
    }


async def test_a_request_of_bad_spans_only_is_a_partial_success(receivers, channel):
    bad = [make_span(span_id=b"short") for _ in range(3)]
    answer = await export(channel, make_request(*bad).SerializeToString())
    assert ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans == 3
    assert receivers.intake.taken == []
    assert receivers.counts() == {
        "received_spans/grpc/protobuf": 3,
        "rejected_spans/span_id_length": 3,
    }


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "compression"),
    [(b"\xff\xff\xff", None), (make_payload()[:-1], GZIP), (gzip.compress(b"")[:-4], None)],
)
async def test_what_cannot_be_decoded_is_invalid_argument(receivers, channel, payload, compression):
    code, message, delay_s = await refusal(channel, payload, compression=compression)
    assert (code, delay_s) == (grpc.StatusCode.INVALID_ARGUMENT, None)
    assert message
    assert receivers.counts() == {"refused_requests/malformed": 1}


async def test_a_refusal_is_logged_with_who_sent_it(receivers, channel, caplog):
    await refusal(channel, b"\xff", metadata=(("x-request-id", "router-7"),))
    (record,) = [record for record in caplog.records if record.msg == "otlp rejected"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", record.facts["peer"])
    assert (record.facts["transport"], record.facts["request_id"]) == ("grpc", "router-7")


@pytest.mark.parametrize("tenants", [["a/b"], [".."], ["a", "b"], ["x" * 151]])
async def test_a_bad_tenant_is_invalid_argument_and_told_the_rule(receivers, channel, tenants):
    metadata = tuple(("x-scope-orgid", tenant) for tenant in tenants)
    code, message, _ = await refusal(channel, make_payload(), metadata=metadata)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "X-Scope-OrgID" in message


@pytest.mark.parametrize(
    "method",
    [
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/v1/traces",
    ],
)
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_stream"])
async def test_all_else_is_unimplemented_and_told_what_is_served(receivers, channel, method, kind):
    call = getattr(channel, kind)(method)
    with pytest.raises(aio.AioRpcError) as caught:
        match kind:
            case "unary_unary":
                await call(b"x", timeout=10)
            case "unary_stream":
                await anext(aiter(call(b"x", timeout=10)))
            case _:
                await anext(aiter(call(iter([b"x"]), timeout=10)))
    code, message, _ = told(caught.value)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert EXPORT_METHOD in message
    assert receivers.counts() == {"refused_requests/not_found": 1}


async def test_a_call_without_a_message_is_invalid_argument(receivers, channel):
    async def nothing():
        return
        yield

    with pytest.raises(aio.AioRpcError) as caught:
        await channel.stream_unary(EXPORT_METHOD)(nothing(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("cause", Cause)
async def test_each_cause_is_told(receivers, channel, cause):
    delay_s = 2.5 if cause.value.retry else None
    receivers.intake.refusals.append(Refused(cause, "do something else", retry_after_s=delay_s))
    code, message, told_delay_s = await refusal(channel, make_payload())
    assert code.value[0] == cause.value.grpc
    assert (message, told_delay_s) == ("do something else", delay_s)
    assert receivers.counts() == {f"refused_requests/{cause.value.reason}": 1}


async def test_ok_then_retryable_then_permanent_then_ok(receivers, channel):
    later = Refused(Cause.SPOOL_FULL, "come back", retry_after_s=0.2)
    never = Refused(Cause.FORBIDDEN, "go away")
    payload = make_payload(2)
    seen = []
    for refusal_now in (None, later, never, None):
        if refusal_now is None:
            await export(channel, payload)
            answer = None
        else:
            receivers.intake.refusals.append(refusal_now)
            answer = await refusal(channel, payload)
        seen.append((answer, receivers.counts()))
    ok = {"received_spans/grpc/protobuf": 2, "accepted_spans": 2}
    full = ok | {"refused_requests/spool_full": 1}
    gone = full | {"refused_requests/forbidden": 1}
    again = gone | {"received_spans/grpc/protobuf": 4, "accepted_spans": 4}
    assert seen == [
        (None, ok),
        ((grpc.StatusCode.UNAVAILABLE, "come back", 0.2), full),
        ((grpc.StatusCode.PERMISSION_DENIED, "go away", None), gone),
        (None, again),
    ]


async def test_a_message_in_any_script_arrives(receivers, channel):
    receivers.intake.refusals.append(Refused(Cause.MALFORMED, "über 100 % ✓\n"))
    _, message, _ = await refusal(channel, make_payload())
    assert message == "über 100 % ✓\n"


async def test_a_fault_of_the_gateway_is_internal_and_logged(receivers, channel, caplog):
    receivers.intake.refusals.append(ZeroDivisionError("a bug"))
    code, message, _ = await refusal(channel, make_payload())
    assert code is grpc.StatusCode.INTERNAL
    assert "a bug" not in message
    assert "ingest failed" in caplog.text


# -- limits --------------------------------------------------------------------------------------

LIMIT = 64 * 1024


def payload_of(size):
    """A valid request of one span with exactly ``size`` bytes."""
    padding = size
    while True:
        body = make_request(make_span("x" * padding)).SerializeToString()
        if len(body) == size:
            return body
        padding -= len(body) - size


@pytest.mark.parametrize("compression", [None, GZIP])
async def test_a_request_of_just_the_limit_is_taken(compression):
    async with (
        started_receivers(max_request_bytes=LIMIT) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        await export(channel, payload_of(LIMIT), compression=compression)
        assert receivers.intake.spans == 1


@pytest.mark.parametrize(
    ("size", "compression"),
    [(LIMIT + 1, None), (LIMIT + 1, GZIP), (LIMIT + SLACK, None), (30 * MIB, GZIP)],
)
async def test_a_request_over_the_limit_is_resource_exhausted_and_told_the_setting(
    size, compression
):
    async with (
        started_receivers(max_request_bytes=LIMIT) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        code, message, delay_s = await refusal(channel, bytes(size), compression=compression)
        assert (code, delay_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
        assert f"{LIMIT} bytes (GATEWAY_MAX_REQUEST_BYTES)" in message
        assert receivers.counts() == {"refused_requests/too_large": 1}
        assert receivers.budget.peak < 4 * LIMIT


async def test_a_request_far_over_the_limit_is_refused_by_grpcio_and_logged(caplog):
    async with (
        started_receivers(max_request_bytes=LIMIT) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        code, message, delay_s = await refusal(channel, bytes(LIMIT + SLACK + 1))
        assert (code, delay_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
        assert f"{LIMIT + SLACK + 1} vs. {LIMIT + SLACK}" in message
        await export(channel, make_payload())
    lost = [record for record in caplog.records if record.msg == "otlp call without a message"]
    assert "GATEWAY_MAX_REQUEST_BYTES" in lost[0].facts["message"]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_full_budget_is_unavailable_with_a_delay_and_passes(receivers, channel):
    filler = receivers.budget.limit - 1000
    assert receivers.budget.try_reserve(filler)
    code, message, delay_s = await refusal(channel, make_payload(20))
    assert (code, delay_s) == (grpc.StatusCode.UNAVAILABLE, 1.0)
    assert "GATEWAY_MEMORY_BYTES" in message
    receivers.budget.release(filler)
    await export(channel, make_payload(20))
    assert receivers.counts()["refused_requests/memory_full"] == 1


async def test_a_request_that_never_fits_the_budget_is_told_the_setting():
    async with (
        started_receivers(memory_bytes=MIB, max_request_bytes=8 * MIB) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        code, message, delay_s = await refusal(channel, payload_of(MIB))
        assert (code, delay_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
        assert "GATEWAY_MEMORY_BYTES" in message


async def test_calls_beyond_the_bound_are_unavailable_with_a_delay():
    async with (
        started_receivers(max_calls=2) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        receivers.intake.holding = True
        calls = [asyncio.ensure_future(export(channel, make_payload())) for _ in range(2)]
        await eventually(lambda: receivers.intake.open == 2)
        code, message, delay_s = await refusal(channel, make_payload())
        assert (code, delay_s) == (grpc.StatusCode.UNAVAILABLE, 1.0)
        assert "2 calls" in message
        receivers.intake.settle()
        await asyncio.gather(*calls)
        receivers.intake.holding = False
        await export(channel, make_payload())


# -- slow and leaving clients, stop ----------------------------------------------------------------


async def test_a_message_that_does_not_come_is_refused_and_frees_its_place():
    async with (
        started_receivers(max_calls=1, message_timeout_s=0.05) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        _, writer = await asyncio.open_connection(HOST, receivers.grpc_port)
        writer.write(PREFACE + call_headers() + frame(DATA, stream=1, payload=b"\0\0\0\0\x64abc"))
        await eventually(lambda: bool(receivers.counts()))
        assert receivers.counts() == {"refused_requests/slow_client": 1}
        await export(channel, make_payload())
        writer.close()


async def test_spans_of_a_cancelled_call_stay_accepted(receivers, channel):
    receivers.intake.holding = True
    call = channel.unary_unary(EXPORT_METHOD)(make_payload(2))
    await eventually(lambda: receivers.intake.open == 1)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    receivers.intake.settle()
    assert receivers.ingest.in_hand == 0
    assert receivers.counts() == {"received_spans/grpc/protobuf": 2, "accepted_spans": 2}


async def test_a_call_that_is_cancelled_inside_its_message_leaves_nothing_behind(caplog):
    async with (
        started_receivers(max_request_bytes=64 * MIB, max_calls=1) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        call = channel.unary_unary(EXPORT_METHOD)(bytes(60 * MIB))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # its place is free again

        async def free():
            try:
                await export(channel, make_payload())
            except aio.AioRpcError:
                return False
            return True

        async with asyncio.timeout(5):
            while not await free():
                pass
        assert receivers.intake.spans == 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_stop_answers_what_is_in_hand_and_refuses_what_is_new(receivers, channel):
    receivers.intake.holding = True
    first = asyncio.ensure_future(export(channel, make_payload()))
    await eventually(lambda: receivers.intake.open == 1)
    stop = asyncio.ensure_future(receivers.ingest.stop(5))
    await eventually(lambda: receivers.ingest.stopping)
    code, _, delay_s = await refusal(channel, make_payload())
    assert (code, delay_s) == (grpc.StatusCode.UNAVAILABLE, 1.0)
    receivers.intake.settle()
    assert (await stop, await first) == (0, b"")
    assert receivers.counts()["refused_requests/stopping"] == 1


async def test_the_server_stops_when_its_calls_are_answered(receivers, channel):
    receivers.intake.holding = True
    call = asyncio.ensure_future(export(channel, make_payload()))
    await eventually(lambda: receivers.intake.open == 1)
    stop = asyncio.ensure_future(receivers.grpc.stop(5))
    await eventually(lambda: not listens(receivers.grpc_port))
    assert not stop.done()
    receivers.intake.settle()
    assert await call == b""
    await stop
    await receivers.grpc.stop(5)


async def test_the_server_cancels_calls_at_its_deadline(receivers, channel):
    receivers.intake.holding = True
    call = asyncio.ensure_future(export(channel, make_payload()))
    await eventually(lambda: receivers.intake.open == 1)
    await receivers.grpc.stop(0.05)
    with pytest.raises(aio.AioRpcError):
        await call
    receivers.intake.settle()
    assert receivers.counts()["accepted_spans"] == 1


async def test_what_was_told_ok_while_stopping_is_taken_and_nothing_after(receivers):
    """Clients keep sending through the stop; each answer says the truth."""
    told_ok = 0
    codes = set()

    async def keep_sending():
        nonlocal told_ok
        async with aio.insecure_channel(receivers.grpc_target) as channel:
            while not codes or stopping:
                try:
                    await export(channel, make_payload())
                    told_ok += 1
                except aio.AioRpcError as error:
                    codes.add(error.code())

    stopping = True
    senders = [asyncio.ensure_future(keep_sending()) for _ in range(4)]
    await eventually(lambda: told_ok > 50)
    await asyncio.gather(receivers.ingest.stop(5), receivers.grpc.stop(5))
    taken = receivers.intake.spans
    await eventually(lambda: bool(codes))
    stopping = False
    await asyncio.gather(*senders)
    # grpcio itself cancels what comes in just then; OTLP clients send both again
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert told_ok == taken == receivers.intake.spans


async def test_stop_is_safe_before_start():
    async with started_receivers() as receivers:
        server = GrpcServer(receivers.ingest, host=HOST, port=0, max_request_bytes=MIB, handlers={})
        await server.stop(1)
        await server.stop(1)


@pytest.mark.parametrize("taken_by", ["grpc", "other"])
async def test_a_port_that_is_taken_is_an_error(receivers, taken_by):
    with socket.create_server((HOST, 0)) as other:
        port = receivers.grpc_port if taken_by == "grpc" else other.getsockname()[1]
        server = GrpcServer(
            receivers.ingest, host=HOST, port=port, max_request_bytes=MIB, handlers={}
        )
        with pytest.raises(OSError, match=f"{HOST}:{port}"):
            await server.start()
        await server.stop(1)


async def test_listens_on_ipv6_too(receivers):
    server = GrpcServer(receivers.ingest, host="::1", port=0, max_request_bytes=MIB, handlers={})
    port = await server.start()
    try:
        async with aio.insecure_channel(f"[::1]:{port}") as channel:
            await export(channel, make_payload())
    finally:
        await server.stop(1)


async def test_a_client_that_pings_often_without_a_call_is_not_hung_up_on(receivers):
    reader, writer = await asyncio.open_connection(HOST, receivers.grpc_port)
    writer.write(PREFACE)
    for number in range(20):
        writer.write(frame(PING, payload=number.to_bytes(8, "big")))
    answered = 0
    async with asyncio.timeout(10):
        while answered < 20:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            assert head[3] != GOAWAY
            answered += (head[3], head[4]) == (PING, ACK)
    writer.close()


# -- raw HTTP/2 (RFC 9113) -----------------------------------------------------------------------

DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
ACK, END_HEADERS = 1, 4


def frame(kind, flags=0, payload=b"", stream=0):
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS)


def call_headers():
    """The start of an export, on stream 1; each field a literal that is not indexed."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": EXPORT_METHOD,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(
        bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in fields.items()
    )
    return frame(HEADERS, END_HEADERS, block, stream=1)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
