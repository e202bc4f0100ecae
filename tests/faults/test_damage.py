"""Segments that were torn, cut or changed between a kill and the next start: what is whole is
delivered, what is not is counted.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.gateways import external_env, kill, wait_until_quiet
from tests.faults.ledger import ledger_client
from tests.faults.sizes import MARKS, SIZE
from tests.kit.gateway import logfmt
from tests.kit.sink import running_sink

pytestmark = MARKS

SPOOL_BYTES = 2 * 2**20
"""Small, so that there are several segments."""
SPANS = 20
"""Of each record."""


def change_bits(segments: list[Path]) -> None:
    """One of each segment."""
    for path in segments:
        data = bytearray(path.read_bytes())
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(data)


def zero_a_block(segments: list[Path]) -> None:
    """In the midst of the first segment."""
    with segments[0].open("rb+") as file:
        file.seek(segments[0].stat().st_size // 2)
        file.write(bytes(4096))


def cut_the_end(segments: list[Path]) -> None:
    """The last record loses its last bytes."""
    size = segments[-1].stat().st_size
    os.truncate(segments[-1], size - random.randrange(1, 1000))


def append_junk(segments: list[Path]) -> None:
    """Bytes behind the last record that are none."""
    with segments[-1].open("ab") as file:
        file.write(os.urandom(random.randrange(100, 1000)))


@pytest.mark.parametrize(
    ("damage", "uncounted"),
    [
        (change_bits, 0),
        (zero_a_block, 0),
        (cut_the_end, 1),  # it looks like a record that was being written when the gateway died
        (append_junk, -1),  # it looks like a damaged record
    ],
    ids=["bits changed", "block of zeros", "end cut off", "junk at the end"],
)
async def test_damage(
    gateways, report, damage: Callable[[list[Path]], None], uncounted: int
) -> None:
    acknowledged = lost = 0
    async with running_sink() as sink:
        fleet = gateways(external_env(sink.address) | {"GATEWAY_SPOOL_BYTES": str(SPOOL_BYTES)})
        for _ in range(SIZE.damaged_starts):
            await sink.die()
            gateway = await asyncio.to_thread(fleet.start)
            with ledger_client(gateway, rate=5000, spans=SPANS) as client:
                await asyncio.to_thread(client.wait_for_more, 3000)
                ledger = await asyncio.to_thread(client.finish)
            await asyncio.to_thread(kill, gateway)
            damage(segments_in(fleet.data_dir / "spool"))

            gateway = await asyncio.to_thread(fleet.start)
            found = logfmt(gateway.wait_for_line('msg="spool open"'))
            await sink.revive()
            books = await asyncio.to_thread(wait_until_quiet, gateway)
            await asyncio.to_thread(kill, gateway)
            sink.flush()
            missing = len(ledger.keys() - sink.spans.keys())
            assert missing == SPANS * (int(found["lost_records"]) + uncounted)
            assert books["recovered"] == ledger.counts.acknowledged - missing
            assert (int(found["torn_bytes"]) > 0) == (damage is cut_the_end)
            acknowledged += ledger.counts.acknowledged
            lost += missing
    report(starts=SIZE.damaged_starts, acknowledged=acknowledged, damaged_spans=lost)


def segments_in(spool: Path) -> list[Path]:
    """Those that hold something, in order; more than one, or the test shows too little."""
    segments = sorted(path for path in spool.glob("*.log") if path.stat().st_size)
    assert len(segments) > 1
    return segments
