"""Streamed queries on both engines, in front of a scripted gRPC server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from aiohttp import web
from grpc import aio

from gateway.access.budget import MemoryBudget
from gateway.access.tokens import Gates
from gateway.credentials import Token
from gateway.errors import GrpcCode
from gateway.query.streams import PATHS, Limits, Streams
from gateway.receivers.address import Address
from gateway.receivers.ingest import Ingest
from gateway.receivers.ingest import Limits as RequestLimits
from gateway.receivers.listeners import FrontDoorListeners, LibraryListeners
from gateway.receivers.methods import passed_on
from gateway.telemetry.metrics import Metrics
from tests.kit.receivers import MIB, ScriptedIntake, eventually
from tests.query.scripted import DEADLINE_S, HOST, Facts, scripted_backend
from tests.query.scripted_grpc import GrpcBackend, Line, grpc_server

SEARCH = PATHS[0]
DOORS = ["front door", "front door on PORT", "grpcio"]
INTERNAL = [
    "/tempopb.Pusher/PushBytesV2",
    "/tempopb.Querier/FindTraceByID",
    "/tempopb.Querier/SearchRecent",
    "/tempopb.Metrics/QueryRange",
    "/tempopb.MetricsGenerator/PushSpans",
    "/tempopb.BackendScheduler/Next",
    "/frontend.Frontend/Process",
    "/frontendv2pb.FrontendForQuerier/QueryResult",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/tempopb.StreamingQuerier/Other",
    "/tempopb.StreamingQuerier/Search/",
    "/tempopb.streamingquerier/Search",
    "//tempopb.StreamingQuerier/Search",
    "/x/../tempopb.StreamingQuerier/Search",
]


class Gateway:
    """Streamed queries served by an engine, and a client of it."""

    def __init__(self, upstream: Facts, budget_bytes: int, **options) -> None:
        self.upstream = upstream
        self.metrics = Metrics()
        self.budget = MemoryBudget(budget_bytes)
        self.streams = Streams(upstream, self.metrics, self.budget, **options)
        self.channel: aio.Channel

    def ask(self, path=SEARCH, message=b"query", *, timeout=DEADLINE_S, metadata=()):
        return self.channel.unary_stream(path)(message, timeout=timeout, metadata=metadata)

    async def messages(self, **call):
        return [message async for message in self.ask(**call)]

    async def failure(self, **call) -> aio.AioRpcError:
        with pytest.raises(aio.AioRpcError) as caught:
            await self.messages(**call)
        return caught.value

    def counted(self, code: str) -> float:
        return self.metrics.query_requests.series(code).value


@contextlib.asynccontextmanager
async def gateway(
    upstream: Facts, door: str = "front door", *, budget_bytes: int = 64 * MIB, **options
) -> AsyncIterator[Gateway]:
    served = Gateway(upstream, budget_bytes, **options)
    ingest = Ingest(
        intake=ScriptedIntake(),
        budget=served.budget,
        metrics=served.metrics,
        limits=RequestLimits(request_bytes=MIB, envelope_spans=8192, envelope_bytes=MIB),
    )
    kind = LibraryListeners if door == "grpcio" else FrontDoorListeners
    methods = {path: passed_on(path, served.streams) for path in PATHS}
    listeners = kind(web.Application(), ingest, lambda: True, methods)
    try:
        bound = await listeners.start(Address(HOST, 0, 0))
        port = bound.http_port if door == "front door on PORT" else bound.grpc_port
        options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
        async with aio.insecure_channel(f"{HOST}:{port}", options=options) as served.channel:
            yield served
        await eventually(lambda: served.budget.used == 0)
    finally:
        await listeners.stop(1.0)
        await served.streams.close()


@pytest.fixture
async def backend():
    return GrpcBackend()


@pytest.fixture
async def line(backend):
    async with grpc_server(backend) as port:
        yield Line(port)


@pytest.fixture
async def url(line):
    async with line.laid() as url:
        yield url


@pytest.fixture(params=DOORS)
async def asked(request, url):
    """A gateway by each door."""
    async with gateway(Facts(url), request.param) as served:
        yield served


@pytest.fixture
async def open_gateway(url):
    """One that nobody needs a token for, by the front door."""
    async with gateway(Facts(url)) as served:
        yield served


def sending(*messages: bytes):
    async def script(request, context):
        for message in messages:
            await context.write(message)

    return script


async def waiting(request, context):
    await context.write(b"first")
    await asyncio.Event().wait()


# -- what passes -----------------------------------------------------------------------------------


async def test_messages_pass_as_they_are_and_in_order(asked, backend):
    many = [b"", b"\x00", bytes(3 * MIB), *(b"%d" % number for number in range(300))]
    backend.script = sending(*many)
    assert await asked.messages(message=b"\xff\x00 not parsed") == many
    assert [call.message for call in backend.calls] == [b"\xff\x00 not parsed"]
    assert asked.counted("OK") == 1


@pytest.mark.parametrize("path", PATHS)
async def test_all_methods_pass(open_gateway, backend, path):
    assert await open_gateway.messages(path=path) == [b"fine"]
    assert [call.path for call in backend.calls] == [path]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_status_passes_with_its_message_and_what_follows_it(asked, backend, begun):
    details = (("grpc-status-details-bin", b"\x08\x03"), ("x-why", "too far"))

    async def script(request, context):
        if begun:
            await context.write(b"first")
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "limit > 10: ü", details)

    backend.script = script
    error = await asked.failure()
    assert (error.code(), error.details()) == (grpc.StatusCode.OUT_OF_RANGE, "limit > 10: ü")
    assert set(details) <= set(error.trailing_metadata())
    assert asked.counted("OUT_OF_RANGE") == 1


async def test_a_method_that_the_backend_lacks_is_unimplemented_in_its_words(open_gateway, backend):
    async def script(request, context):
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method SearchTags")

    backend.script = script
    error = await open_gateway.failure(path=PATHS[1])
    assert (error.code(), error.details()) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "unknown method SearchTags",
    )


async def test_what_follows_a_whole_answer_passes_too(open_gateway, backend):
    async def script(request, context):
        await context.write(b"one")
        context.set_trailing_metadata((("x-took", "7ms"), ("x-large", "x" * 100)))

    backend.script = script
    call = open_gateway.ask()
    assert await call.read() == b"one"
    assert dict(await call.trailing_metadata())["x-took"] == "7ms"


@pytest.mark.parametrize("door", DOORS)
async def test_nothing_else_exists_and_the_backend_does_not_hear_of_it(line, url, door):
    async with gateway(Facts(url), door) as served:
        for path in INTERNAL:
            error = await served.failure(path=path)
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED, path
    assert line.connections == 0


# -- what the backend gets of a call ---------------------------------------------------------------


async def test_metadata_that_is_for_the_backend_passes(open_gateway, backend):
    passed = {
        "authorization": "Basic eDp5",
        "x-scope-orgid": "team-a",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-request-id": "7",
    }
    dropped = {
        "x-forwarded-for": "10.0.0.1",
        "grpc-previous-rpc-attempts": "1",
        "x-any-bin": b"\x00",
    }
    await open_gateway.messages(metadata=[*passed.items(), *dropped.items()])
    metadata = dict(backend.calls[0].metadata)
    assert passed.items() <= metadata.items()
    assert set(metadata) == {*passed, "user-agent"}
    assert metadata["user-agent"].startswith("otlp-gateway/")


@pytest.mark.parametrize("door", DOORS)
async def test_a_tenant_is_told_once(url, backend, door):
    async with gateway(Facts(url), door) as served:
        await served.messages(metadata=[("x-scope-orgid", "a"), ("x-scope-orgid", "")])
        assert backend.calls[0].values("x-scope-orgid") == ["a"]
        error = await served.failure(metadata=[("x-scope-orgid", "a"), ("x-scope-orgid", "b")])
        assert served.counted("INVALID_ARGUMENT") == 1
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "more than once" in error.details()
    assert len(backend.calls) == 1


async def test_a_tenant_that_grpc_cannot_carry_is_refused(line, url):
    async with gateway(Facts(url)) as served:
        ended = await served.streams.answer(
            SEARCH,
            b"",
            metadata=[("x-scope-orgid", "h\xe9")],
            peer="10.0.0.1:4711",
            timeout_s=None,
            write=served.messages,
        )
    assert ended.code == GrpcCode.INVALID_ARGUMENT
    assert line.connections == 0


async def test_credentials_in_the_url_replace_those_of_the_client(url, backend):
    with_user = url.replace("://", "://us%40er:pass%3Aword@")
    async with gateway(Facts(with_user)) as served:
        await served.messages(metadata=[("authorization", "Bearer x")])
    expected = base64.b64encode(b"us@er:pass:word").decode()
    assert backend.calls[0].values("authorization") == [f"Basic {expected}"]


GATE = Gates.of(
    ingest=[Token("may-send-spans")],
    query=[Token("for-team-a", "team-a"), Token("for-all-of-them")],
).query


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("shown", "code"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED),
        ((("authorization", "Bearer other-token"),), grpc.StatusCode.UNAUTHENTICATED),
        ((("authorization", "Bearer may-send-spans"),), grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_without_its_token_a_call_does_not_reach_the_backend(line, url, door, shown, code):
    async with gateway(Facts(url), door, gate=GATE) as served:
        error = await served.failure(metadata=shown)
        reason = {grpc.StatusCode.PERMISSION_DENIED: "forbidden"}.get(code, "unauthenticated")
        assert served.metrics.refused_requests.series(reason).value == 1
        assert served.metrics.query_requests.total() == 0
    assert error.code() is code
    assert "GATEWAY_QUERY_TOKENS" in error.details() or not shown
    assert line.connections == 0


@pytest.mark.parametrize(
    ("token", "tenants"), [("for-team-a", ["team-a"]), ("for-all-of-them", ["team-b"])]
)
async def test_a_token_stays_here_and_its_tenant_is_told(url, backend, token, tenants):
    basic = base64.b64encode(f"grafana:{token}".encode()).decode()
    async with gateway(Facts(url), gate=GATE) as served:
        for credentials in (f"Bearer {token}", f"Basic {basic}"):
            metadata = [("authorization", credentials), ("x-scope-orgid", "team-b")]
            await served.messages(metadata=metadata)
    for call in backend.calls:
        assert call.values("authorization") == []
        assert call.values("x-scope-orgid") == tenants


async def test_a_call_of_no_tenant_is_about_the_default_one(url, backend):
    async with gateway(Facts(url, default_tenant="everybody")) as served:
        await served.messages()
    assert backend.calls[0].values("x-scope-orgid") == ["everybody"]


async def test_the_deadline_of_the_client_travels(asked, backend):
    await asked.messages(timeout=7)
    assert 5 < backend.calls[0].time_remaining < 7.1


async def test_without_a_deadline_there_is_none(open_gateway, backend):
    await open_gateway.messages(timeout=None)
    assert backend.calls[0].time_remaining is None


# -- the ends of a call ----------------------------------------------------------------------------


async def test_a_client_that_leaves_ends_its_call_in_the_backend(asked, backend):
    backend.script = waiting
    call = asked.ask()
    assert await call.read() == b"first"
    call.cancel()
    async with asyncio.timeout(DEADLINE_S):
        await backend.calls[0].over.wait()
    await eventually(lambda: asked.counted("client_left") == 1)


async def test_so_does_one_whose_connection_is_gone(url, backend):
    backend.script = waiting
    async with gateway(Facts(url)) as served:
        assert await served.ask().read() == b"first"
        await served.channel.close()
        async with asyncio.timeout(DEADLINE_S):
            await backend.calls[0].over.wait()


async def test_at_the_deadline_both_ends_are_told(asked, backend):
    backend.script = waiting
    error = await asked.failure(timeout=0.5)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(DEADLINE_S):
        await backend.calls[0].over.wait()


async def test_a_backend_that_dies_half_way_is_unavailable_in_words(asked, backend, line):
    backend.script = waiting
    call = asked.ask()
    assert await call.read() == b"first"
    line.cut()
    with pytest.raises(aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "ended the connection in the middle of its answer" in caught.value.details()
    backend.script = None
    assert await asked.messages() == [b"fine"]


async def test_the_backend_is_not_ahead_of_a_slow_client(asked, backend, line):
    size = MIB
    backend.script = sending(*[bytes(size)] * 40)
    call = asked.ask(timeout=30)
    for taken in range(1, 41):
        assert len(await call.read()) == size
        # one held here, one under way, and what sockets hold
        assert line.received < (taken + 8) * size
    assert await call.read() is aio.EOF


# -- without an answer of the backend's ------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("upstream", "words"),
    [
        (Facts(None, "starting", "it replays its WAL"), "it replays its WAL"),
        (Facts(None, "stopped"), "it is stopped"),
        (Facts(f"http://{HOST}:9", "backoff", "it died: exit status 1"), "exit status 1"),
        (Facts(f"http://{HOST}:9"), "it is starting or has died"),
    ],
)
async def test_a_backend_that_is_away_is_unavailable_in_words(upstream, words, door):
    async with gateway(upstream, door) as served:
        error = await served.failure()
        assert served.counted("UNAVAILABLE") == 1
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details().startswith("the backend is not available: ")
    assert words in error.details()


async def test_a_backend_that_speaks_http_1_only_is_told_of():
    async with scripted_backend() as plain, gateway(Facts(plain.url)) as served:
        error = await served.failure()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "stream_over_http_enabled" in error.details()


async def test_a_backend_that_moved_is_found_again(url, backend):
    moved = GrpcBackend(sending(b"moved"))
    facts = Facts(url)
    async with gateway(facts) as served, grpc_server(moved) as port:
        backend.script = waiting
        held = served.ask()
        assert await held.read() == b"first"
        facts.base_url = f"http://{HOST}:{port}"
        assert await served.messages() == [b"moved"]
        with pytest.raises(aio.AioRpcError) as caught:
            await held.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_message_that_is_too_large_is_not_held(url, backend):
    backend.script = sending(b"small", bytes(MIB + 1))
    async with gateway(Facts(url), limits=Limits(MIB, 4)) as served:
        call = served.ask()
        assert await call.read() == b"small"
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_calls_at_once_are_bounded_and_others_wait_for_their_turn(url, backend):
    backend.script = waiting
    async with gateway(Facts(url), limits=Limits(MIB, 1)) as served:
        first = served.ask()
        assert await first.read() == b"first"
        others = [served.ask(message=b"%d" % number) for number in range(3)]
        backend.script = None
        await eventually(lambda: served.streams._asked == 4)
        assert len(backend.calls) == 1
        first.cancel()
        assert [await other.read() for other in others] == [b"fine"] * 3
    assert [call.message for call in backend.calls] == [b"query", b"0", b"1", b"2"]


async def test_the_time_spent_waiting_is_the_clients(url, backend):
    backend.script = waiting
    async with gateway(Facts(url), limits=Limits(MIB, 1)) as served:
        first = served.ask()
        assert await first.read() == b"first"
        late, patient = served.ask(timeout=0.5), served.ask(timeout=5)
        with pytest.raises(aio.AioRpcError) as caught:
            await late.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        backend.script = None
        first.cancel()
        assert await patient.read() == b"fine"
    assert len(backend.calls) == 2
    assert backend.calls[1].time_remaining < 4.8


@pytest.mark.parametrize("limits", [Limits(MIB, 1, asked=1), Limits(MIB, 1, wait_s=0.1)])
async def test_more_than_can_wait_are_unavailable(url, backend, limits):
    backend.script = waiting
    async with gateway(Facts(url), limits=limits) as served:
        first = served.ask()
        assert await first.read() == b"first"
        error = await served.failure()
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "queries are under way" in error.details()


async def test_memory_is_waited_for_and_given_back(url, backend):
    async with gateway(Facts(url), budget_bytes=4 * MIB, limits=Limits(MIB, 8)) as served:
        assert served.budget.try_reserve(3 * MIB + 1)
        call = served.ask(message=b"")
        await eventually(lambda: served.streams._asked == 1)
        assert not backend.calls
        served.budget.release(3 * MIB + 1)
        assert await call.read() == b"fine"


@pytest.mark.parametrize(
    ("budget_mib", "message_mib", "concurrent"),
    [(4, 4, 1), (24, 4, 1), (96, 4, 6), (192, 8, 6), (768, 16, 12), (4096, 16, 32)],
)
def test_the_limits_are_within_half_of_the_budget(budget_mib, message_mib, concurrent):
    limits = Limits.within(budget_mib * MIB)
    assert (limits.message_bytes, limits.concurrent) == (message_mib * MIB, concurrent)


async def test_a_silent_backend_is_given_up(url, backend):
    backend.script = waiting
    async with gateway(Facts(url), limits=Limits(MIB, 4, idle_timeout_s=0.2)) as served:
        error = await served.failure()
        async with asyncio.timeout(DEADLINE_S):
            await backend.calls[0].over.wait()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no answer within 0.2 s" in error.details()


async def test_a_client_that_leaves_without_reading_frees_what_it_held(asked, backend):
    backend.script = sending(*[bytes(4 * MIB)] * 10)
    call = asked.ask()
    await eventually(lambda: asked.budget.used)
    await eventually(lambda: backend.calls)
    call.cancel()
    await eventually(lambda: asked.budget.used == 0)
    async with asyncio.timeout(DEADLINE_S):
        await backend.calls[0].over.wait()
