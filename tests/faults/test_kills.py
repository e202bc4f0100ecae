"""Nothing acknowledged is lost when something dies. A ledger client sends all the while."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest

from gateway.pipeline.pipeline import DELIVERIES
from gateway.tempo.backoff import MOST_BACKOFF_S
from tests.faults.gateways import backend_of, external_env, kill, status_of, wait_until_quiet
from tests.faults.ledger import ledger_client, missing_spans, numbers_at
from tests.faults.sizes import MARKS, SIZE, SOAK
from tests.kit.gateway import eventually
from tests.kit.modes import BACKENDS, backend_env
from tests.kit.sink import running_sink

pytestmark = MARKS


@pytest.fixture(params=BACKENDS)
def fleet(request, gateways):
    """Gateways that each run a backend of their own over the same data."""
    return gateways(backend_env(request.param))


def test_kill_9_of_the_gateway_under_load(fleet, report):
    """What was acknowledged is found after the restarts."""
    gateway = fleet.start()
    with ledger_client(gateway) as client:
        for _ in range(SIZE.gateway_kills):
            client.wait_for_more(random.randrange(200, 3000))
            kill(gateway)
            gateway = fleet.start()
        client.wait_for_more(200)
        ledger = client.finish()
    gateway.wait_until_ready()
    wait_until_quiet(gateway, SIZE.drain_s)
    missing = missing_spans(numbers_at(gateway.url), ledger)
    report(
        kills=SIZE.gateway_kills,
        acknowledged=ledger.counts.acknowledged,
        no_answer=ledger.counts.no_answer,
        missing=missing,
    )
    assert ledger.counts.no_answer > 0
    assert missing == 0


def test_kill_9_of_the_backend_under_load(fleet, report):
    """It is started again, and gets again what it had lost."""
    gateway = fleet.start()
    gateway.wait_until_ready()
    with ledger_client(gateway) as client:
        for number in range(1, SIZE.backend_kills + 1):
            client.wait_for_more(random.randrange(500, 6000))
            os.kill(backend_of(gateway), signal.SIGKILL)
            eventually(
                lambda n=number: status_of(gateway)["backend"]["restarts"] == n,
                timeout_s=MOST_BACKOFF_S + 20,  # so many early ends are called a crash loop
            )
            gateway.wait_until_ready()
        client.wait_for_more(1000)
        ledger = client.finish()
    books = wait_until_quiet(gateway, SIZE.drain_s)
    missing = missing_spans(numbers_at(gateway.url), ledger)
    report(
        kills=SIZE.backend_kills,
        acknowledged=ledger.counts.acknowledged,
        delivered_again=redelivered(gateway),
        missing=missing,
    )
    assert missing == 0
    assert books["dropped"] == 0


@pytest.mark.skipif(not SOAK, reason="only in the long form")
def test_kill_9_of_a_backend_that_was_frozen(fleet, report):
    """While it stood still for longer than the hold time it brought nothing to its disk."""
    gateway = fleet.start()
    gateway.wait_until_ready()
    with ledger_client(gateway) as client:
        client.wait_for_more(4000)
        backend = backend_of(gateway)
        os.kill(backend, signal.SIGSTOP)
        time.sleep(FROZEN_S)
        os.kill(backend, signal.SIGKILL)
        eventually(lambda: status_of(gateway)["backend"]["restarts"] == 1)
        client.wait_for_more(1000)
        ledger = client.finish()
    gateway.wait_until_ready()
    wait_until_quiet(gateway, SIZE.drain_s)
    missing = missing_spans(numbers_at(gateway.url), ledger)
    report(
        frozen_s=FROZEN_S,
        acknowledged=ledger.counts.acknowledged,
        delivered_again=redelivered(gateway),
        missing=missing,
    )
    assert missing == 0


def test_sigterm_under_load(fleet, report):
    """Exit code 0 inside the timeout, and nothing acknowledged is missing after the next start."""
    gateway, slowest_s = fleet.start(), 0.0
    with ledger_client(gateway) as client:
        for _ in range(SIZE.stops):
            client.wait_for_more(random.randrange(500, 4000))
            gateway.get("/api/search?q=%7B%7D")  # a Tempo that has served a query may never stop
            began = time.monotonic()
            assert gateway.stop(timeout_s=DRAIN_TIMEOUT_S) == 0
            slowest_s = max(slowest_s, time.monotonic() - began)
            gateway = fleet.start()
        client.wait_for_more(200)
        ledger = client.finish()
    gateway.wait_until_ready()
    wait_until_quiet(gateway, SIZE.drain_s)
    missing = missing_spans(numbers_at(gateway.url), ledger)
    report(
        stops=SIZE.stops,
        slowest_s=round(slowest_s, 1),
        acknowledged=ledger.counts.acknowledged,
        missing=missing,
    )
    assert missing == 0
    assert ledger.counts.refused_without_hint == 0


async def test_duplicates_after_a_kill(gateways, report):
    """Duplicates are no more than what was on its way when the gateway was killed."""
    async with running_sink(durable=True) as sink:
        fleet = gateways(external_env(sink.address))
        gateway = await asyncio.to_thread(fleet.start)
        with ledger_client(gateway, rate=RATE, spans=SPANS, workers=WORKERS) as client:
            for _ in range(SIZE.gateway_kills):
                await asyncio.to_thread(client.wait_for_more, random.randrange(200, 3000))
                await asyncio.to_thread(kill, gateway)
                gateway = await asyncio.to_thread(fleet.start)
            ledger = await asyncio.to_thread(client.finish)
        await asyncio.to_thread(wait_until_quiet, gateway)
    duplicates = sink.spans.total() - len(sink.spans)
    report(
        kills=SIZE.gateway_kills,
        acknowledged=ledger.counts.acknowledged,
        duplicates=duplicates,
        missing=len(ledger.keys() - sink.spans.keys()),
    )
    assert ledger.keys() <= sink.spans.keys()
    # Batches under way, and requests that were written but not answered: they came again.
    assert duplicates <= SIZE.gateway_kills * (DELIVERIES * BATCH_SPANS + WORKERS * SPANS)


FROZEN_S = 12
"""Twice the hold time of a Tempo that the gateway runs."""
RATE, SPANS, WORKERS = 2000, 20, 8
BATCH_SPANS = 8192
"""The default of GATEWAY_BATCH_SPANS."""
DRAIN_TIMEOUT_S = 20
"""The default of GATEWAY_DRAIN_TIMEOUT."""


def redelivered(gateway) -> int:
    (line,) = (
        line
        for line in gateway.get("/metrics")[1].splitlines()
        if line.startswith("gateway_redelivered_spans_total ")
    )
    return int(float(line.split()[1]))
