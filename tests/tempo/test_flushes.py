"""Does a Tempo keep up with its memory? With real files and a real HTTP server."""

from __future__ import annotations

from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from gateway.tempo.clock import HOLD_S, LAG_S
from gateway.tempo.flushes import FlushLag
from gateway.tempo.wal import Wal


class Clock:
    def __init__(self) -> None:
        self.now = 100.0


class FakeTempo:
    def __init__(self) -> None:
        self.exposition = ""
        self.scrapes = 0
        self.url = ""

    @asynccontextmanager
    async def running(self):
        async def metrics(_: web.Request) -> web.Response:
            self.scrapes += 1
            return web.Response(text=self.exposition)

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


@pytest.fixture
async def tempo():
    async with FakeTempo().running() as tempo:
        yield tempo


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def block(tmp_path):
    block = tmp_path / "wal" / "id+a+vParquet4"
    block.mkdir(parents=True)
    return block


@pytest.fixture
def lag(tmp_path, clock):
    wal = Wal(tmp_path / "wal", tmp_path / "copies")
    return FlushLag(wal, "tempo_live_traces", lambda: clock.now)


async def test_nothing_is_asked_while_nothing_is_delivered(lag, tempo, clock, session, block):
    assert await lag.keeps_up(session, tempo.url)
    clock.now += 10 * LAG_S
    assert await lag.keeps_up(session, tempo.url)
    assert tempo.scrapes == 0


async def test_a_flush_in_time_needs_no_question(lag, tempo, clock, session, block):
    lag.delivered()
    for page in range(1, 6):
        (block / f"{page:010}").touch()
        assert await lag.keeps_up(session, tempo.url)
        clock.now += 0.9 * LAG_S
    assert tempo.scrapes == 0


@pytest.mark.parametrize(
    ("exposition", "keeps_up"),
    [
        ('tempo_live_traces{tenant="a"} 0\n', True),
        ('# TYPE x gauge\ntempo_live_traces{tenant="a"} 3\n', False),
        ('tempo_live_traces{tenant="a"} 1.2e+06\nother{tenant="a"} 0\n', False),
        ('tempo_live_traces{tenant="a"} 0\ntempo_live_traces{tenant="b"} 1\n', False),
        ('other{tenant="a"} 0\n' * 20_000 + 'tempo_live_traces{tenant="a"} 3\n', False),
        ("", True),
    ],
    ids=["none left", "some left", "many left", "another tenant's", "at the end of it", "absent"],
)
async def test_without_a_flush_the_metrics_decide(
    lag, tempo, clock, session, block, exposition, keeps_up
):
    tempo.exposition = exposition
    await lag.keeps_up(session, tempo.url)
    lag.delivered()
    clock.now += LAG_S + 0.1
    assert await lag.keeps_up(session, tempo.url) is keeps_up


async def test_a_lag_is_watched_to_its_end(lag, tempo, clock, session, block):
    tempo.exposition = 'tempo_live_traces{tenant="a"} 3\n'
    await lag.keeps_up(session, tempo.url)
    lag.delivered()
    for _ in range(10):
        clock.now += HOLD_S - 0.1
        assert not await lag.keeps_up(session, tempo.url)
    (block / "0000000002").touch()
    assert await lag.keeps_up(session, tempo.url)


async def test_a_look_also_keeps_copies(lag, tempo, clock, session, block, tmp_path):
    (block / "meta.json").write_text("{}")
    await lag.keeps_up(session, tempo.url)
    assert (tmp_path / "copies" / block.name).read_text() == "{}"
