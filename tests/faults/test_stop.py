"""Stopping while the backend does not take what waits: the gateway exits in time, and the next one
delivers the rest.
"""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.faults.gateways import external_env, wait_until_quiet
from tests.faults.ledger import ledger_client
from tests.faults.sizes import MARKS
from tests.kit.gateway import logfmt
from tests.kit.sink import running_sink

pytestmark = MARKS

DRAIN_TIMEOUT_S = 2


@pytest.fixture
async def sink():
    async with running_sink(durable=True) as sink:
        yield sink


async def refuse(sink):
    """Nobody listens on its port."""
    await sink.die()


async def hang(sink):
    """It takes requests and answers none."""
    sink.set_pace(1e-6)


@pytest.mark.parametrize("leave", [refuse, hang])
async def test_the_rest_stays_for_the_next_start(gateways, report, sink, leave):
    await leave(sink)
    env = external_env(sink.address) | {"GATEWAY_DRAIN_TIMEOUT": f"{DRAIN_TIMEOUT_S}s"}
    fleet = gateways(env)
    gateway = await asyncio.to_thread(fleet.start)
    with ledger_client(gateway) as client:
        await asyncio.to_thread(client.wait_for_more, 2000)
        began = time.monotonic()
        assert await asyncio.to_thread(gateway.stop, DRAIN_TIMEOUT_S + GRACE_S) == 0
        took_s = time.monotonic() - began
        left = int(logfmt(gateway.wait_for_line("msg=stopped"))["spans_left_in_spool"])
        ledger = await asyncio.to_thread(client.finish)
    assert not sink.spans
    sink.set_pace(None)
    if not sink.alive:
        await sink.revive()
    gateway = await asyncio.to_thread(fleet.start)
    books = await asyncio.to_thread(wait_until_quiet, gateway)
    missing = ledger.keys() - sink.spans.keys()
    report(
        drain_timeout_s=DRAIN_TIMEOUT_S,
        took_s=round(took_s, 1),
        acknowledged=ledger.counts.acknowledged,
        left_in_spool=left,
        missing=len(missing),
    )
    assert books["recovered"] == left >= ledger.counts.acknowledged
    assert not missing
    assert ledger.counts.refused_without_hint == 0


GRACE_S = 1
"""For the process to end after the drain timeout, on a busy machine."""


async def test_a_second_signal_ends_it_at_once(gateways, sink):
    """Also while it answers and drains; what was acknowledged is there at the next start."""
    await sink.die()
    fleet = gateways(external_env(sink.address) | {"GATEWAY_DRAIN_TIMEOUT": "60s"})
    gateway = await asyncio.to_thread(fleet.start)
    with ledger_client(gateway) as client:
        await asyncio.to_thread(client.wait_for_more, 500)
        gateway.signal(signal.SIGTERM)
        await asyncio.to_thread(gateway.wait_for_line, "msg=stopping")
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.process.wait, 5) != 0
        ledger = await asyncio.to_thread(client.finish)
    await sink.revive()
    gateway = await asyncio.to_thread(fleet.start)
    await asyncio.to_thread(wait_until_quiet, gateway)
    assert not ledger.keys() - sink.spans.keys()
