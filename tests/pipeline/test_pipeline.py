from __future__ import annotations

import asyncio

import pytest

from gateway.pipeline.pipeline import DELIVERIES
from tests.kit.scripted import Rig, ScriptedBackend, until

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def backend():
    return ScriptedBackend()


@pytest.fixture(params=["disk", "memory"])
async def rig(request, backend, tmp_path):
    """A started pipeline, once over each spool."""
    rig = Rig(backend, tmp_path / "spool" if request.param == "disk" else None).start()
    yield rig
    await rig.stop()


async def test_what_is_accepted_is_delivered_in_order(rig):
    await rig.offer_all(range(1000))
    await rig.delivered()
    assert sorted(rig.backend.taken) == list(range(1000))
    assert rig.books()["delivered"] == 1000


async def test_all_lanes_are_used_and_no_more(rig):
    rig.backend.gate.clear()
    await rig.offer_all(range(1000))
    await until(lambda: rig.backend.under_way == DELIVERIES)
    for _ in range(100):
        await asyncio.sleep(0)
    assert rig.backend.most_under_way == DELIVERIES
    rig.backend.gate.set()
    await rig.delivered()


async def test_drain_ends_as_soon_as_the_last_delivery_has(rig):
    rig.backend.gate.clear()
    await rig.offer_all(range(1000))
    drain = asyncio.get_running_loop().create_task(rig.pipeline.drain(30))
    await until(lambda: rig.backend.under_way == DELIVERIES)
    rig.backend.gate.set()
    async with asyncio.timeout(3):
        assert await drain
    assert rig.pending == 0
