"""A payload that kills the backend each time: the others are delivered, it becomes a dead letter,
and the replay sends it again once the backend can take it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.gateways import external_env, post, wait_until_quiet
from tests.faults.ledger import ledger_client
from tests.faults.sizes import MARKS
from tests.kit.gateway import ROOT, RunningGateway, eventually
from tests.kit.sink import DIE, OK, Sink, running_sink
from tests.kit.spans import make_request, make_span

pytestmark = MARKS


@pytest.fixture
async def sink():
    """It is started again each time it has died, as a supervisor would."""
    async with running_sink(durable=True) as sink:
        revival = asyncio.get_running_loop().create_task(revive_for_ever(sink))
        yield sink
        revival.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await revival


async def revive_for_ever(sink: Sink) -> None:
    while True:
        await asyncio.sleep(0.05)
        if not sink.alive:
            await sink.revive()


async def test_poison(gateways, report, sink):
    sink.answer_span("poison", DIE)
    fleet = gateways(external_env(sink.address))
    gateway = await asyncio.to_thread(fleet.start)
    letters = fleet.data_dir / "dead-letters"
    with ledger_client(gateway, rate=50, spans=5, workers=2) as client:
        await asyncio.to_thread(client.wait_for_more, 50)
        body = make_request(make_span("neighbour"), make_span("poison")).SerializeToString()
        assert await asyncio.to_thread(post, gateway, body) == 200
        await asyncio.to_thread(eventually, lambda: letter_in(letters), timeout_s=60)
        await asyncio.to_thread(client.wait_for_more, 50)
        ledger = await asyncio.to_thread(client.finish)
    books = await asyncio.to_thread(wait_until_quiet, gateway)
    missing = ledger.keys() - sink.spans.keys()
    report(
        acknowledged=ledger.counts.acknowledged,
        deaths_of_the_backend=sink.deaths,
        dropped=books["dropped"],
        missing=len(missing),
    )
    assert not missing
    assert sink.names["neighbour"]
    assert books["dropped"] == 1
    assert letter_in(letters)["spans"] == 1

    sink.answer_span("poison", OK)
    done = await asyncio.to_thread(replay, gateway, letters)
    assert done.returncode == 0, done.stderr
    await asyncio.to_thread(eventually, lambda: sink.names["poison"])
    assert letter_in(letters) is None
    await asyncio.to_thread(wait_until_quiet, gateway)


def letter_in(folder: Path) -> dict[str, Any] | None:
    """What is said of the one dead letter, as soon as there is one."""
    if not list(folder.glob("*.otlp")):
        return None
    (reason,) = folder.glob("*.json")
    return json.loads(reason.read_text())


def replay(gateway: RunningGateway, letters: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "replay", str(letters), "--to", gateway.url]
    return subprocess.run(
        command, cwd=ROOT, env=gateway.env, capture_output=True, text=True, timeout=60
    )
