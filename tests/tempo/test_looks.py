"""One look at a child, over real HTTP."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from gateway.tempo import looks
from gateway.tempo.looks import Look, look_at, open_session
from gateway.tempo.ports import free_ports


class Site:
    def __init__(self) -> None:
        self.status, self.text = 200, "ready\n"
        self.let_go: asyncio.Event | None = None
        self.url = ""

    async def ready(self, _: web.Request) -> web.Response:
        if self.let_go is not None:
            await self.let_go.wait()
        return web.Response(status=self.status, text=self.text)


@pytest.fixture
async def site():
    site, app = Site(), web.Application()
    app.router.add_get("/ready", site.ready)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield site
    await runner.cleanup()


async def look(url: str, keeps_up=None) -> Look:
    async with open_session() as session:
        return await look_at(session, url, keeps_up)


async def test_ready(site):
    assert await look(site.url) == Look(answered=True, fault=None, flushing=True)


async def test_not_ready_yet_with_its_own_words(site):
    site.status, site.text = 503, "Ingester not ready: waiting for 15s\n"
    assert await look(site.url) == Look(answered=True, fault="Ingester not ready: waiting for 15s")


async def test_not_ready_without_a_word(site):
    site.status, site.text = 500, ""
    assert (await look(site.url)).fault == "it answers 500"


async def test_nobody_there():
    seen = await look(f"http://127.0.0.1:{free_ports().http}")
    assert (seen.answered, seen.flushing) == (False, False)
    assert "does not answer" in (seen.fault or "")


async def test_no_answer_in_time(site, monkeypatch):
    monkeypatch.setattr(looks, "TIMEOUT_S", 0.05)
    site.let_go = asyncio.Event()
    seen = await look(site.url)
    site.let_go.set()
    assert not seen.answered


async def test_flushing_is_asked_of_a_ready_child_only(site):
    asked = []

    async def keeps_up(session, url):
        asked.append(url)
        return False

    assert await look(site.url, keeps_up) == Look(answered=True, fault=None, flushing=False)
    site.status = 503
    await look(site.url, keeps_up)
    assert asked == [site.url]


@pytest.mark.parametrize("error", [aiohttp.ClientError(), TimeoutError(), PermissionError()])
async def test_a_child_whose_flushes_cannot_be_seen_is_ready_and_not_flushing(site, error):
    async def keeps_up(session, url):
        raise error

    assert await look(site.url, keeps_up) == Look(answered=True, fault=None, flushing=False)
