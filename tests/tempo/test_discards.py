"""What Tempo throws away, read back over real HTTP. A real Tempo that does is in tests/e2e."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web

from gateway.tempo import discards
from gateway.tempo.discards import Counters, Discard, ReadBack
from gateway.tempo.states import State

DEADLINE_S = 20.0


def exposition(**reasons: int) -> str:
    """As Tempo writes it, among other metrics."""
    lines = [
        f'tempo_discarded_spans_total{{reason="{reason}",tenant="a"}} {count}'
        for reason, count in reasons.items()
    ]
    return "\n".join(["# TYPE tempo_discarded_spans_total counter", *lines, 'other{a="b"} 7', ""])


class TestCounters:
    def test_each_reading_tells_what_is_new(self):
        counters = Counters()
        assert counters.read(exposition(trace_too_large=3), 1) == [
            Discard("trace_too_large", "a", 3)
        ]
        assert counters.read(exposition(trace_too_large=3), 1) == []
        assert counters.read(exposition(trace_too_large=5, live_traces_exceeded=1), 1) == [
            Discard("trace_too_large", "a", 2),
            Discard("live_traces_exceeded", "a", 1),
        ]
        assert counters.spans == {"trace_too_large": 5, "live_traces_exceeded": 1}

    def test_a_new_life_counts_from_zero_and_the_sums_go_on(self):
        counters = Counters()
        counters.read(exposition(trace_too_large=3), 1)
        assert counters.read(exposition(trace_too_large=4), 2) == [
            Discard("trace_too_large", "a", 4)
        ]
        assert counters.spans == {"trace_too_large": 7}

    @pytest.mark.parametrize("reason", ["rate_limited", "invalid_span_id", "internal_error"])
    def test_what_was_refused_with_an_error_is_no_silent_loss(self, reason):
        counters = Counters()
        assert counters.read(exposition(**{reason: 3}), 1) == []
        assert counters.spans == {}

    def test_tenants_are_summed_up_and_named_as_they_are(self):
        text = (
            'tempo_discarded_spans_total{reason="trace_too_large",tenant="a\\"\\\\}"} 1\n'
            'tempo_discarded_spans_total{reason="trace_too_large",tenant="b"} 2e+06\n'
        )
        counters = Counters()
        assert [discard.tenant for discard in counters.read(text, 1)] == ['a"\\}', "b"]
        assert counters.spans == {"trace_too_large": 2_000_001}

    def test_cut_attributes_are_summed_over_tenants_scopes_and_lives(self):
        name = "tempo_distributor_attributes_truncated_total"
        text = f'{name}{{scope="span",tenant="a"}} 2\n{name}{{tenant="b"}} 1\n'
        counters = Counters()
        counters.read(text, 1)
        counters.read(text, 1)
        assert counters.truncated_attributes == 3
        counters.read(text, 2)
        assert counters.truncated_attributes == 6

    def test_an_exposition_without_them_is_nothing(self):
        counters = Counters()
        assert counters.read("", 1) == []
        assert (counters.spans, counters.truncated_attributes) == ({}, 0)


class Tempo:
    """A ready child whose metrics are what the test says."""

    def __init__(self) -> None:
        self.exposition = ""
        self.scrapes = 0
        self.state, self.generation, self.base_url = State.READY, 1, ""
        self.let_go: asyncio.Event | None = None

    async def metrics(self, _: web.Request) -> web.Response:
        self.scrapes += 1
        if self.let_go is not None:
            await self.let_go.wait()
        return web.Response(text=self.exposition)


@pytest.fixture
async def tempo():
    tempo, app = Tempo(), web.Application()
    app.router.add_get("/metrics", tempo.metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    tempo.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield tempo
    await runner.cleanup()


async def until(found) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not found():
            await asyncio.sleep(0.01)


def said(caplog, message: str) -> list[dict[str, object]]:
    return [record.facts for record in caplog.records if record.getMessage() == message]


async def test_it_is_read_again_and_again_and_told_once(tempo, caplog):
    read_back = ReadBack(interval_s=0.01)
    read_back.start(tempo)
    tempo.exposition = exposition(trace_too_large=3)
    await until(lambda: tempo.scrapes > 3)
    await read_back.stop(tempo)
    assert read_back.discarded.spans == {"trace_too_large": 3}
    assert "max_bytes_per_trace" in str(read_back.discarded.last)
    (line,) = said(caplog, "spans discarded by the backend")
    assert (line["reason"], line["spans"], line["tenants"]) == ("trace_too_large", 3, "a")


async def test_a_flood_of_discards_does_not_flood_the_log(tempo, caplog):
    read_back = ReadBack(interval_s=0.001)
    read_back.start(tempo)
    for count in range(1, 20):
        tempo.exposition = exposition(live_traces_exceeded=count)
        await until(
            lambda count=count: read_back.discarded.spans.get("live_traces_exceeded") == count
        )
    await read_back.stop(tempo)
    assert len(said(caplog, "spans discarded by the backend")) == 1


async def test_cut_attributes_are_told_with_the_limit_to_change(tempo, caplog):
    tempo.exposition = 'tempo_distributor_attributes_truncated_total{tenant="a"} 2\n'
    read_back = ReadBack()
    await read_back.stop(tempo)
    assert read_back.discarded.truncated_attributes == 2
    (line,) = said(caplog, "attributes cut by the backend")
    assert "max_attribute_bytes" in str(line["why"])


async def test_the_end_is_preceded_by_a_last_reading(tempo):
    read_back = ReadBack(interval_s=1000.0)
    read_back.start(tempo)
    tempo.exposition = exposition(trace_too_large=1)
    await read_back.stop(tempo)
    assert read_back.discarded.spans == {"trace_too_large": 1}


async def test_a_tempo_that_hangs_does_not_hold_up_the_end(tempo, monkeypatch):
    monkeypatch.setattr(discards, "LAST_READING_S", 0.05)
    tempo.let_go = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        await ReadBack().stop(tempo)
    tempo.let_go.set()


async def test_nothing_is_asked_of_a_tempo_that_is_not_ready(tempo):
    tempo.state = State.STOPPED
    await ReadBack().stop(tempo)
    assert tempo.scrapes == 0


async def test_a_tempo_that_does_not_answer_is_asked_again_later(tempo, caplog):
    caplog.set_level(logging.DEBUG, logger="gateway.tempo.discards")
    there, tempo.base_url = tempo.base_url, "http://127.0.0.1:9"
    tempo.exposition = exposition(trace_too_large=1)
    read_back = ReadBack(interval_s=0.01)
    read_back.start(tempo)
    await until(lambda: said(caplog, "discarded spans not read"))
    tempo.base_url = there
    await until(lambda: read_back.discarded.spans)
    await read_back.stop(tempo)
