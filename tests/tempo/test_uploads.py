"""Has Tempo 3 anything left to upload? Over real files and real HTTP."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from gateway.tempo.flushes import FlushLag
from gateway.tempo.uploads import FIRST_S, Uploads, unfinished
from gateway.tempo.wal import Wal


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "wal" / "blocks").mkdir(parents=True)
    return tmp_path / "wal"


def add(folder, path: str):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).touch()


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ([], 0),
        (["a+t+vParquet4/0000000001"], 0),
        (["a+t+vParquet4/0000000002", "a+t+vParquet4/meta.json"], 1),
        (["a+t+vParquet4/0000000002", "a+t+vParquet4/meta.deleted.json"], 0),
        (["blocks/t/a/meta.json", "blocks/t/b/meta.json", "blocks/t/b/flushed"], 1),
        (["a+t+vParquet4/meta.json", "blocks/t/b/meta.json"], 2),
    ],
    ids=["nothing", "empty head", "growing", "finished", "flushed and not", "both"],
)
def test_what_is_left_is_seen_by_its_files(folder, files, left):
    for path in files:
        add(folder, path)
    assert unfinished(folder) == left


def test_a_tempo_that_never_ran_has_nothing_left(tmp_path):
    assert unfinished(tmp_path / "absent") == 0


class Clock:
    now = 100.0


@pytest.fixture
async def asked(folder, tmp_path):
    """Asks at a time of the clock; the exposition can be changed."""
    exposition, clock = {"text": ""}, Clock()

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=exposition["text"])

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    wal = Wal(folder, tmp_path / "copies")
    uploads = Uploads(wal, FlushLag(wal, "live"), lambda: clock.now)
    async with aiohttp.ClientSession() as session:

        async def ask(after_s: float, text: str) -> bool:
            clock.now, exposition["text"] = 100.0 + after_s, text
            return await uploads.done(session, url)

        yield ask
    await runner.cleanup()


async def test_the_first_sweeps_are_waited_for_since_nothing_is_seen_before(asked):
    assert not await asked(0.0, "")
    assert not await asked(FIRST_S / 2, "")
    assert await asked(FIRST_S, "")


async def test_traces_in_memory_are_waited_for(asked):
    await asked(0.0, "")
    assert not await asked(FIRST_S, 'live{tenant="a"} 0\nlive{tenant="b"} 2\n')
    assert await asked(FIRST_S, 'live{tenant="a"} 0\nlive{tenant="b"} 0\n')


async def test_blocks_are_waited_for(asked, folder):
    await asked(0.0, "")
    add(folder, "blocks/t/a/meta.json")
    assert not await asked(FIRST_S, "")
    add(folder, "blocks/t/a/flushed")
    assert await asked(FIRST_S, "")
