"""Several workers: whichever process dies, and however their number changes, nothing that was
acknowledged is missing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal

import pytest

from tests.faults.gateways import (
    children_of,
    external_env,
    kill,
    post,
    status_of,
    wait_until_quiet,
)
from tests.faults.ledger import ledger_client, missing_spans, numbers_at
from tests.faults.sizes import MARKS
from tests.kit.gateway import eventually
from tests.kit.modes import BACKENDS, backend_env
from tests.kit.sink import running_sink
from tests.kit.spans import make_payload

pytestmark = MARKS


@pytest.mark.parametrize("mode", BACKENDS)
def test_kill_9_of_each_kind_of_process_under_load(gateways, report, mode):
    """A worker, the backend, the parent; then a stop in order, and one worker where two were."""
    fleet = gateways(backend_env(mode) | {"WEB_CONCURRENCY": "2"})
    gateway = fleet.start()
    gateway.wait_until_ready()
    with ledger_client(gateway) as client:
        client.wait_for_more(1000)
        workers = status_of(gateway)["workers"]["pids"]
        os.kill(workers[0], signal.SIGKILL)
        client.wait_for_more(1000)
        (backend,) = set(children_of(gateway)) - set(status_of(gateway)["workers"]["pids"])
        os.kill(backend, signal.SIGKILL)
        eventually(lambda: status_of(gateway)["backend"]["restarts"] == 1)
        client.wait_for_more(1000)
        restarts = status_of(gateway)["workers"]["restarts"]
        kill(gateway)
        gateway = fleet.start()
        client.wait_for_more(1000)
        assert gateway.stop() == 0
        fleet.env["WEB_CONCURRENCY"] = "1"
        gateway = fleet.start()
        client.wait_for_more(200)
        ledger = client.finish()
    gateway.wait_until_ready()
    missing = missing_spans(numbers_at(gateway.url), ledger)
    report(
        acknowledged=ledger.counts.acknowledged,
        no_answer=ledger.counts.no_answer,
        missing=missing,
    )
    assert restarts == 1
    assert missing == 0
    assert ledger.counts.refused_without_hint == 0
    wait_until_quiet(gateway)


async def test_one_process_takes_over_the_backlog_of_three(gateways):
    async with running_sink(durable=True) as sink:
        await sink.die()
        fleet = gateways(external_env(sink.address) | {"WEB_CONCURRENCY": "3"})
        gateway = await asyncio.to_thread(fleet.start)
        body = make_payload(2)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            statuses = pool.map(lambda _: post(gateway, body), range(100))
            assert await asyncio.to_thread(set, statuses) == {200}
        await asyncio.to_thread(kill, gateway)
        spools = sorted(path.name for path in fleet.data_dir.glob("spool*"))
        assert spools == ["spool", "spool-1", "spool-2"]
        assert all(any((fleet.data_dir / name).glob("*.log")) for name in spools)
        await sink.revive()
        fleet.env["WEB_CONCURRENCY"] = "1"
        gateway = await asyncio.to_thread(fleet.start)
        await asyncio.to_thread(
            eventually, lambda: [path.name for path in fleet.data_dir.glob("spool*")] == ["spool"]
        )
        books = await asyncio.to_thread(wait_until_quiet, gateway)
    assert books["recovered"] == books["delivered"] == 200
    assert sink.spans.total() == 200
