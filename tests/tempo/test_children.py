"""A child as a backend: deliveries to wherever it is. Real processes are in test_supervisor."""

from __future__ import annotations

import asyncio

import pytest

from gateway.envelope import Fate
from gateway.tempo.child import Program
from gateway.tempo.children import ChildBackend, ChildExporter
from gateway.tempo.ports import Ports
from gateway.tempo.states import State
from gateway.tempo.window import Window
from tests.kit.sink import HANG, Sink, running_sink
from tests.kit.spans import make_payload

PAYLOAD = make_payload()
DEADLINE_S = 20.0


class Life:
    """A child's, as a supervisor tells it."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.state = State.READY
        self.generation = 1
        self.clock_s = 0.0

    @property
    def ports(self) -> Ports:
        return Ports(otlp=self.sink.port, http=0, internal=0)

    def alive_s(self) -> float:
        return self.clock_s


@pytest.fixture
async def sink():
    async with running_sink() as sink:
        yield sink


@pytest.fixture
def life(sink):
    return Life(sink)


@pytest.fixture
async def make(life):
    made = []

    def make(*arguments) -> ChildExporter:
        made.append(ChildExporter(life, *arguments))
        return made[-1]

    yield make
    for exporter in made:
        await exporter.close()


async def deliver(exporter: ChildExporter, timeout_s: float = 10.0):
    return await exporter.export("", PAYLOAD, timeout_s=timeout_s)


async def begin(exporter: ChildExporter, sink: Sink) -> asyncio.Task:
    """A delivery that is under way until the sink is let go."""
    sink.script(HANG)
    before = len(sink.requests)
    task = asyncio.get_running_loop().create_task(deliver(exporter, 60.0))
    async with asyncio.timeout(DEADLINE_S):
        while len(sink.requests) == before:
            await asyncio.sleep(0.01)
    return task


async def test_deliveries_follow_the_child_to_other_ports(sink, life, make):
    async with running_sink() as other:
        exporter = make()
        assert (await deliver(exporter)).fate is Fate.DELIVERED
        life.sink = other
        assert (await deliver(exporter)).fate is Fate.DELIVERED
        assert (len(sink.requests), len(other.requests)) == (1, 1)


async def test_a_delivery_under_way_to_the_old_port_is_to_be_retried(sink, life, make):
    async with running_sink() as other:
        exporter = make()
        hanging = await begin(exporter, sink)
        life.sink = other
        assert (await deliver(exporter)).fate is Fate.DELIVERED
        assert (await hanging).fate is Fate.RETRY


async def test_only_an_ok_is_told_as_delivered(sink, make):
    told = []
    exporter = make(None, lambda: told.append(1))
    await deliver(exporter)
    await sink.die()
    await deliver(exporter)
    assert told == [1]


class TestWindow:
    """Two payloads fit, for ten seconds of the child's life."""

    @pytest.fixture
    def exporter(self, make):
        return make(Window(2 * len(PAYLOAD), 10.0))

    async def test_more_than_fits_waits_until_the_disk_has_it(self, exporter, sink, life):
        for _ in range(2):
            assert (await deliver(exporter)).fate is Fate.DELIVERED
        waiting = asyncio.get_running_loop().create_task(deliver(exporter))
        await asyncio.sleep(0.2)
        assert len(sink.requests) == 2
        life.clock_s = 10.0
        assert (await waiting).fate is Fate.DELIVERED

    async def test_who_waits_too_long_is_to_come_again(self, exporter, sink):
        for _ in range(2):
            await deliver(exporter)
        outcome = await deliver(exporter, timeout_s=0.1)
        assert (outcome.fate, outcome.code) == (Fate.RETRY, "UNAVAILABLE")
        assert "not written" in outcome.message
        assert len(sink.requests) == 2

    async def test_nobody_waits_for_a_child_that_is_not_there(self, exporter, sink, life):
        for _ in range(2):
            await deliver(exporter)
        life.state = State.BACKOFF
        await sink.die()
        outcome = await deliver(exporter, timeout_s=1000.0)
        assert outcome.fate is Fate.RETRY

    async def test_a_new_life_has_an_empty_memory(self, exporter, life):
        for _ in range(2):
            await deliver(exporter)
        life.generation += 1
        assert (await deliver(exporter, timeout_s=0.1)).fate is Fate.DELIVERED

    async def test_failures_and_cancellation_give_the_room_back(self, exporter, sink):
        await sink.die()
        for _ in range(5):
            await deliver(exporter)
        await sink.revive()
        async with asyncio.timeout(DEADLINE_S):
            while (await deliver(exporter, timeout_s=0.1)).fate is not Fate.DELIVERED:
                await asyncio.sleep(0.05)
        for _ in range(3):
            task = await begin(exporter, sink)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await deliver(exporter, timeout_s=0.1)).fate is Fate.DELIVERED


async def test_a_backend_that_was_never_started_has_nothing_to_lose():
    backend = ChildBackend("embedded", "embedded", lambda _: Program(["true"], {}))
    assert (backend.state, backend.base_url, backend.pid) == ("stopped", None, None)
    assert backend.streaming_url is None
    assert (backend.generation, backend.restarts, backend.usage) == (0, 0, None)
    assert await backend.stop(1.0)
