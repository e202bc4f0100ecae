"""Ten times the load that the backend takes: what is acknowledged arrives, the rest is refused with
a hint, and memory stays inside its budget.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.gateways import (
    BASE_BYTES,
    MIB,
    external_env,
    memory_of,
    wait_until_quiet,
)
from tests.faults.ledger import ledger_client
from tests.faults.sizes import MARKS, SIZE
from tests.kit.sink import running_sink

pytestmark = MARKS

BACKEND_SPANS_PER_S = 400
MEMORY_MIB = 16


@pytest.mark.parametrize("spool_bytes", ["8MiB", "0"], ids=["with a spool", "memory only"])
async def test_overload(gateways, report, spool_bytes):
    async with running_sink() as sink:
        sink.set_pace(BACKEND_SPANS_PER_S)
        fleet = gateways(
            external_env(sink.address)
            | {"GATEWAY_MEMORY_BYTES": f"{MEMORY_MIB}MiB", "GATEWAY_SPOOL_BYTES": spool_bytes}
        )
        gateway = await asyncio.to_thread(fleet.start)
        load = {"rate": 10 * BACKEND_SPANS_PER_S, "spans": 50, "workers": 16, "padding": 1000}
        with ledger_client(gateway, **load) as client:
            await asyncio.to_thread(client.wait_until, lambda counts: counts.refused)
            await asyncio.sleep(SIZE.overload_s)
            delivered_under_load = len(sink.spans)
            ledger = await asyncio.to_thread(client.finish)
        sink.set_pace(None)
        await asyncio.to_thread(wait_until_quiet, gateway)
        peak = memory_of(gateway).peak
        missing = ledger.keys() - sink.spans.keys()
    counts = ledger.counts
    report(
        seconds=SIZE.overload_s,
        acknowledged=counts.acknowledged,
        refused_requests=counts.refused,
        without_hint=counts.refused_without_hint,
        delivered_under_load=delivered_under_load,
        missing=len(missing),
        duplicates=sink.spans.total() - len(sink.spans),
        peak_mib=peak // MIB,
        budget_mib=MEMORY_MIB,
    )
    assert not missing
    assert counts.refused_without_hint == 0
    assert peak <= MEMORY_MIB * MIB + BASE_BYTES
