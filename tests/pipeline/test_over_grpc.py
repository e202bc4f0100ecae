"""The pipeline with the real exporter and a real gRPC server that misbehaves."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

import grpc
import pytest

from gateway.lifecycle import Tasks
from gateway.pipeline.pipeline import Limits
from gateway.tempo.client import OtlpGrpcExporter
from tests.kit.scripted import Asked, Rig, ScriptedBackend, until
from tests.kit.sink import DIE, HANG, OK, RESET, Reply, Sink, running_sink
from tests.kit.spans import make_request, make_span

LIMITS = Limits(batch_spans=50, batch_bytes=2**20, batch_timeout_s=0.01, hold_s=0.0)
NEVER_S = 1000.0


class SinkLife(ScriptedBackend):
    """What a supervisor knows of the sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self._since = time.monotonic()

    @property
    def generation(self) -> int:
        return self._sink.deaths

    @generation.setter
    def generation(self, _: int) -> None:
        """The sink counts its deaths itself."""

    def alive_s(self) -> float:
        return time.monotonic() - self._since


@pytest.fixture
async def sink():
    async with running_sink() as sink:
        yield sink


@pytest.fixture
async def make(sink, tmp_path):
    exporters: list[OtlpGrpcExporter] = []
    rigs: list[Rig] = []
    directories = (tmp_path / f"spool-{number}" for number in itertools.count())

    def make(**options) -> Rig:
        exporters.append(OtlpGrpcExporter(options.pop("address", sink.address)))
        options = {"limits": LIMITS} | options
        rig = Rig(SinkLife(sink), next(directories), exporter=exporters[-1], **options)
        rigs.append(rig)
        return rig.start()

    yield make
    for rig in rigs:
        await rig.stop()
    for exporter in exporters:
        await exporter.close()


@pytest.fixture
async def rig(make):
    return make()


async def offer(rig: Rig, *names: str, tenant: str = "shop") -> Asked:
    """A request with a span for each name, accepted."""
    payload = make_request(*map(make_span, names)).SerializeToString()
    asked = rig.offer_payloads([payload], tenant=tenant, spans=len(names))
    await asked.answered()
    assert asked.accepted
    return asked


def numbered(count: int) -> list[str]:
    return [f"span-{number}" for number in range(count)]


async def offer_each(rig: Rig, names: Sequence[str]) -> None:
    for name in names:
        await offer(rig, name)


async def test_spans_arrive_with_their_tenant(rig, sink):
    await offer(rig, "a", "b", tenant="shop")
    await offer(rig, "c", tenant="bank")
    await rig.delivered()
    assert {request.tenant: request.names for request in sink.requests} == {
        "shop": ["a", "b"],
        "bank": ["c"],
    }


REFUSED_FOR_GOOD = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
}
TOO_MUCH = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("asked", [None, 0.01], ids=["no_retry_info", "retry_info"])
@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
async def test_each_status_has_its_outcome(rig, sink, code, asked):
    sink.answer_span("odd", Reply(code, "for a reason", retry_after_s=asked))
    await offer(rig, "odd")
    if code in REFUSED_FOR_GOOD or (code is TOO_MUCH and asked is None):
        await rig.delivered()
        assert rig.books()["dropped"] == 1
        ((_, _, _, reason),) = rig.dead_letters.letters
        assert reason == f"{code.name}: for a reason"
        return
    await until(lambda: sink.requests and rig.delivery.last_error)
    assert rig.pending == 1
    sink.answer_span("odd", OK)
    for _ in range(50):
        rig.pipeline.backend_ready()
        await asyncio.sleep(0.001)
    await rig.delivered()
    assert rig.books() | {"delivered": 1, "dropped": 0} == rig.books()
    assert rig.metrics.export_requests.series(code.name).value >= 1


async def test_the_delay_in_retry_info_is_kept(rig, sink):
    sink.script(Reply(grpc.StatusCode.UNAVAILABLE, "busy", retry_after_s=NEVER_S))
    await offer(rig, "a")
    await until(lambda: rig.delivery.last_error)
    await asyncio.sleep(0.05)
    assert len(sink.requests) == 1
    rig.pipeline.backend_ready()
    await rig.delivered()


async def test_one_refused_span_costs_no_other(rig, sink):
    sink.answer_span("bad", Reply(grpc.StatusCode.INVALID_ARGUMENT, "bad span"))
    names = numbered(100)
    await offer(rig, *names[:40], "bad", *names[40:])
    await rig.delivered()
    assert sink.names == dict.fromkeys(names, 1)
    assert rig.books() | {"delivered": 100, "dropped": 1} == rig.books()


async def test_a_partial_success_is_counted(rig, sink):
    sink.script(Reply(rejected_spans=2, message="two are bad"))
    await offer(rig, "a", "b", "c")
    await rig.delivered()
    assert rig.metrics.dropped_spans.series("backend_rejected").value == 2


async def test_what_is_above_the_receivers_limit_is_split(make):
    async with running_sink(max_message_bytes=4000) as small:
        rig = make(address=small.address)
        names = numbered(100)
        await offer(rig, *names)
        await rig.delivered()
        assert small.names == dict.fromkeys(names, 1)
        assert max(request.size for request in small.requests) <= 4000
        await rig.stop()


async def test_connections_that_break_in_mid_call_cost_nothing(rig, sink):
    sink.script(RESET, OK, RESET, RESET, OK, RESET)
    names = numbered(300)
    await offer_each(rig, names)
    await rig.delivered()
    assert set(sink.names) == set(names)
    assert rig.books()["dropped"] == 0


async def test_a_backend_that_does_not_answer_in_time_gets_it_again(make, sink):
    rig = make(timeout_s=0.1)
    sink.script(HANG, HANG)
    await offer(rig, "a")
    await until(lambda: len(sink.requests) >= 3)
    await rig.delivered()
    assert rig.metrics.export_requests.series("DEADLINE_EXCEEDED").value == 2


async def test_a_backend_that_was_away_gets_everything(make, sink):
    """And a refused connection is nobody's fault, however often."""
    rig = make(memory_bytes=20_000)
    await sink.die()
    names = numbered(300)
    await offer_each(rig, names)
    refused = rig.metrics.export_requests.series("UNAVAILABLE")
    await until(lambda: refused.value > 50)
    await sink.revive()
    await rig.delivered()
    assert sink.names == dict.fromkeys(names, 1)
    assert rig.books()["dropped"] == 0


async def test_a_backend_that_dies_gets_again_what_it_had_not_on_disk(make, sink):
    rig = make(limits=LIMITS._replace(hold_s=0.5))
    names = numbered(100)
    await offer_each(rig, names[:50])
    await until(lambda: len(sink.spans) == 50)
    sink.flush()
    await offer_each(rig, names[50:])
    await until(lambda: len(sink.spans) == 100)
    await sink.die()
    await sink.revive()
    rig.pipeline.backend_ready()
    await rig.delivered()
    assert len(sink.spans) == 100
    assert rig.books()["delivered"] == 100


async def test_a_span_that_kills_the_backend_is_given_up_and_no_other(make, sink):
    """With a supervisor that starts it again each time."""
    rig = make(limits=LIMITS._replace(hold_s=0.3))
    sink.answer_span("poison", DIE)

    async def supervise() -> None:
        deaths = 0
        while True:
            await until(lambda: sink.deaths > deaths, timeout_s=NEVER_S)  # noqa: B023
            deaths = sink.deaths
            await sink.revive()
            rig.pipeline.backend_ready()

    supervisor = Tasks("test")
    supervisor.spawn(supervise(), "supervisor")
    names = numbered(120)
    await offer(rig, *names[:20], "poison", *names[20:40])
    await offer_each(rig, names[40:])
    await until(lambda: not rig.pending, timeout_s=60)
    await supervisor.stop()
    assert len(sink.spans) == 120
    assert rig.books() | {"delivered": 120, "dropped": 1} == rig.books()
    ((_, _, _, reason),) = rig.dead_letters.letters
    assert reason.startswith("UNAVAILABLE: fails each time")
