"""A disk without space: refusals with a hint, no crash, and all is well when space returns."""

from __future__ import annotations

import asyncio
import re
import resource

import pytest

from tests.faults.gateways import external_env, kill, status_of, wait_until_quiet
from tests.faults.ledger import ledger_client, missing_spans, numbers_at
from tests.faults.sizes import MARKS
from tests.kit.disks import SmallDisk
from tests.kit.gateway import RunningGateway, eventually
from tests.kit.modes import BACKENDS, backend_env
from tests.kit.sink import running_sink

pytestmark = MARKS

DISK_BYTES = 64 * 2**20


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    disk = SmallDisk(path, DISK_BYTES)
    if not disk.mount():
        pytest.skip("only root can mount a small disk")
    yield disk
    disk.unmount()


@pytest.mark.parametrize("mode", BACKENDS)
def test_full_disk(small_disk, gateways, report, mode):
    """Gateway and backend share the disk. Under load it fills up, and then space returns."""
    fleet = gateways(backend_env(mode), small_disk.path / "data")
    gateway = fleet.start()
    gateway.wait_until_ready()
    try:
        with ledger_client(gateway) as client:
            client.wait_for_more(1000)
            ballast = small_disk.fill()
            client.wait_until(lambda counts: counts.refused > 50)
            assert_it_says_so(gateway)
            ballast.unlink()
            client.wait_for_more(2000)
            ledger = client.finish()
        missing = missing_spans(numbers_at(gateway.url), ledger)
        report(
            acknowledged=ledger.counts.acknowledged,
            refused_requests=ledger.counts.refused,
            without_hint=ledger.counts.refused_without_hint,
            missing=missing,
        )
        wait_until_quiet(gateway)
        assert missing == 0
        assert ledger.counts.refused_without_hint == 0
        assert status_of(gateway)["spool"]["last_error"] is None
        assert gateway.stop() == 0
    finally:
        fleet.kill_all()  # nothing may have the disk in use when it goes


async def test_full_disk_at_the_start(small_disk, gateways):
    """What was acknowledged is delivered, and new spans are taken as soon as there is space."""
    async with running_sink() as sink:
        fleet = gateways(external_env(sink.address), small_disk.path / "data")
        await sink.die()
        gateway = await asyncio.to_thread(fleet.start)
        try:
            with ledger_client(gateway) as client:
                await asyncio.to_thread(client.wait_for_more, 1000)
                await asyncio.to_thread(kill, gateway)
                ballast = small_disk.fill()
                gateway = await asyncio.to_thread(fleet.start)
                await asyncio.to_thread(client.wait_until, lambda counts: counts.refused > 50)
                await sink.revive()
                await asyncio.to_thread(eventually, lambda: len(sink.spans) >= 1000)
                ballast.unlink()
                await asyncio.to_thread(client.wait_for_more, 2000)
                ledger = await asyncio.to_thread(client.finish)
            await asyncio.to_thread(wait_until_quiet, gateway)
            assert ledger.counts.refused_without_hint == 0
            assert not ledger.keys() - sink.spans.keys()
            assert await asyncio.to_thread(gateway.stop) == 0
        finally:
            fleet.kill_all()


async def test_files_may_grow_no_more(gateways, report):
    """The same for the spool alone: the system lets none of its files grow."""
    async with running_sink() as sink:
        fleet = gateways(external_env(sink.address))
        gateway = await asyncio.to_thread(fleet.start)
        with ledger_client(gateway) as client:
            await asyncio.to_thread(client.wait_for_more, 1000)
            let_files_grow_to(gateway, 0)
            await asyncio.to_thread(client.wait_until, lambda counts: counts.refused > 50)
            await asyncio.to_thread(assert_it_says_so, gateway)
            let_files_grow_to(gateway, resource.RLIM_INFINITY)
            await asyncio.to_thread(client.wait_for_more, 2000)
            ledger = await asyncio.to_thread(client.finish)
        await asyncio.to_thread(wait_until_quiet, gateway)
        missing = ledger.keys() - sink.spans.keys()
    report(
        acknowledged=ledger.counts.acknowledged,
        refused_requests=ledger.counts.refused,
        without_hint=ledger.counts.refused_without_hint,
        missing=len(missing),
    )
    assert not missing
    assert ledger.counts.refused_without_hint == 0
    assert status_of(gateway)["spool"]["last_error"] is None


def assert_it_says_so(gateway: RunningGateway) -> None:
    gateway.wait_for_line("spool write failed")
    assert gateway.process.poll() is None
    assert re.search("no space|too large", status_of(gateway)["spool"]["last_error"].lower())
    metrics = gateway.get("/metrics")[1]
    assert 'gateway_refused_requests_total{reason="spool_failed"}' in metrics


def let_files_grow_to(gateway: RunningGateway, size_bytes: int) -> None:
    pid = gateway.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))
