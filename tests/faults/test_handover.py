"""A deploy that overlaps: the gateway that stops hands over what its backend has not taken."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from gateway.envelope import Fate
from gateway.tempo.gateways import HandoverExporter
from tests.faults.gateways import (
    backend_of,
    external_env,
    post,
    status_of,
    steady_ports,
    wait_until_quiet,
)
from tests.faults.ledger import ledger_client
from tests.faults.sizes import MARKS
from tests.kit.gateway import eventually, logfmt, running_gateway
from tests.kit.modes import backend_env
from tests.kit.sink import running_sink
from tests.kit.spans import make_payload

pytestmark = MARKS

DRAIN_TIMEOUT_S = 4
GRACE_S = 1
"""For the process to end after the drain timeout, on a busy machine."""
DEAD = "127.0.0.1:9"


@pytest.fixture
async def sink():
    async with running_sink(durable=True) as sink:
        yield sink


def old_env(handover_url: str, backend: str = DEAD) -> dict[str, str]:
    return external_env(backend) | {
        "GATEWAY_DRAIN_TIMEOUT": f"{DRAIN_TIMEOUT_S}s",
        "GATEWAY_HANDOVER_URL": handover_url,
    }


def stop(gateway) -> dict[str, int]:
    """SIGTERM; what its last line says."""
    began = time.monotonic()
    assert gateway.stop(DRAIN_TIMEOUT_S + GRACE_S) == 0
    last = logfmt(gateway.wait_for_line("msg=stopped"))
    names = ("handed_over", "spans_left_in_spool")
    return {name: int(float(last[name])) for name in names} | {"took_s": time.monotonic() - began}


async def test_all_that_was_acknowledged_is_at_the_next_gateways_backend(
    gateways, tmp_path, report, sink
):
    """The old one's backend takes requests and answers none."""
    async with running_sink() as lost:
        lost.set_pace(1e-6)
        new = await asyncio.to_thread(gateways(external_env(sink.address), tmp_path / "new").start)
        fleet = gateways(old_env(new.url, lost.address), tmp_path / "old")
        old = await asyncio.to_thread(fleet.start)
        with ledger_client(old) as client:
            await asyncio.to_thread(client.wait_for_more, 2000)
            last = await asyncio.to_thread(stop, old)
            ledger = await asyncio.to_thread(client.finish)
    books = await asyncio.to_thread(wait_until_quiet, new)
    missing = ledger.keys() - sink.spans.keys()
    report(**last, acknowledged=ledger.counts.acknowledged, missing=len(missing))
    assert not missing
    assert last["spans_left_in_spool"] == 0
    assert last["handed_over"] >= ledger.counts.acknowledged
    assert (books["received"], books["recovered"]) == (0, last["handed_over"])
    assert max(sink.spans.values()) == 1


async def test_a_stopping_gateway_refuses_a_handover_in_the_way_that_is_repeated(
    gateways, tmp_path, sink
):
    """So what is handed over never goes round: it stays where it is until somebody lives."""
    env = old_env("off", sink.address)
    gateway = await asyncio.to_thread(gateways(env).start)
    exporter = HandoverExporter(gateway.url)
    assert (await exporter.export("", make_payload(1), timeout_s=10)).fate is Fate.DELIVERED
    await asyncio.to_thread(gateway.stop)
    assert (await exporter.export("", make_payload(1), timeout_s=10)).fate is Fate.RETRY
    await exporter.close()


@pytest.mark.tempo
@pytest.mark.parametrize("frozen", [True, False])
async def test_what_tempo_cannot_bring_to_its_disk_is_handed_over_too(
    gateways, tmp_path, report, sink, frozen
):
    """A frozen Tempo has said OK to it and flushes nothing; one in good health flushes."""
    new = await asyncio.to_thread(gateways(external_env(sink.address), tmp_path / "new").start)
    env = backend_env("managed") | {
        "GATEWAY_HANDOVER_URL": new.url,
        "GATEWAY_DRAIN_TIMEOUT": "10s",
    }
    old = await asyncio.to_thread(gateways(env, tmp_path / "old").start)
    await asyncio.to_thread(old.wait_until_ready)
    for _ in range(20):
        assert await asyncio.to_thread(post, old, make_payload(50)) == 200
    await asyncio.to_thread(eventually, lambda: status_of(old)["queue"]["held_deliveries"])
    if frozen:
        os.kill(backend_of(old), signal.SIGSTOP)
    assert await asyncio.to_thread(old.stop) == 0
    last = logfmt(old.wait_for_line("msg=stopped"))
    await asyncio.to_thread(wait_until_quiet, new)
    report(frozen=frozen, handed_over=last["handed_over"], left=last["spans_left_in_spool"])
    assert last["spans_left_in_spool"] == "0"
    assert (int(last["handed_over"]) > 0) is frozen
    assert len(sink.spans) == int(last["handed_over"])


async def test_the_last_line_of_several_workers_says_what_they_handed_over(tmp_path, sink):
    env = old_env("off") | {"WEB_CONCURRENCY": "2"}
    with running_gateway(tmp_path / "new", external_env(sink.address)) as new:
        with running_gateway(tmp_path / "old", env | {"GATEWAY_HANDOVER_URL": new.url}) as old:
            for _ in range(8):  # each over a connection of its own, so to either worker
                assert await asyncio.to_thread(post, old, make_payload(5)) == 200
            assert await asyncio.to_thread(old.stop, DRAIN_TIMEOUT_S + GRACE_S) == 0
            last = logfmt(old.wait_for_line("msg=stopped logger=gateway.workers.parent"))
        await asyncio.to_thread(wait_until_quiet, new)
    assert (last["handed_over"], last["spans_left_in_spool"]) == ("40", "0")
    assert sum(sink.spans.values()) == 40


def test_what_cannot_be_handed_over_stays_and_is_counted_in_the_last_line(tmp_path):
    """The URL is its own: nobody listens there any more when it hands over."""
    (port,) = steady_ports(1)
    env = old_env(f"http://127.0.0.1:{port}") | {"GATEWAY_DRAIN_TIMEOUT": "2s", "PORT": str(port)}
    with running_gateway(tmp_path, env) as gateway:
        for _ in range(3):
            assert post(gateway, make_payload(5)) == 200
        last = stop(gateway)
    assert (last["handed_over"], last["spans_left_in_spool"]) == (0, 15)
    with running_gateway(tmp_path, external_env(DEAD)) as gateway:
        eventually(lambda: "gateway_pending_spans 15.0" in gateway.get("/metrics")[1])
