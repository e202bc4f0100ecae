"""Spools whose processes are no more, on a real disk."""

from __future__ import annotations

import asyncio

import pytest

from gateway.access.budget import MemoryBudget
from gateway.envelope import Envelope, Fate, Outcome
from gateway.lifecycle import StartError
from gateway.pipeline.adoption import Adoptions
from gateway.pipeline.data_directory import DataDirectory
from gateway.pipeline.dead_letters import DeadLetterFolder
from gateway.pipeline.delivery import Delivery
from gateway.pipeline.pipeline import Limits, Pipeline
from gateway.pipeline.segments import SegmentLog
from gateway.telemetry.metrics import Metrics
from tests.kit.ledger import assert_books_balance
from tests.kit.spans import make_payload

MIB = 2**20
TIMEOUT_S = 20


class Backend:
    generation = 1

    def __init__(self) -> None:
        self.spans = 0
        self.open = asyncio.Event()

    def alive_s(self) -> float:
        return 0.0

    async def export(self, tenant, payload, *, timeout_s):
        await self.open.wait()
        self.spans += payload.count(b"span-")
        return Outcome(Fate.DELIVERED, "OK", "")


async def leave_behind(path, name: str, records: int) -> None:
    await asyncio.to_thread(_leave_behind, path, name, records)


def _leave_behind(path, name: str, records: int) -> None:
    log = SegmentLog(path / name, max_bytes=MIB, fsync=False)
    log.open()
    for _ in range(records):
        log.append([Envelope(tenant="", payload=make_payload(2), spans=2, received_at=1.0)])
    log.close()


async def reopened(data):
    return await asyncio.to_thread(data.open_spool, "spool-1", max_bytes=MIB)


@pytest.fixture
def data(tmp_path):
    return DataDirectory(tmp_path)


@pytest.fixture
def metrics():
    return Metrics()


def adoptions(names, data, metrics, backend, done=lambda: None) -> Adoptions:
    def make_pipeline(spool):
        letters = DeadLetterFolder(data.path / "dead-letters", max_bytes=MIB)
        return Pipeline(
            spool=spool,
            delivery=Delivery(backend, letters, metrics, timeout_s=TIMEOUT_S),
            backend=backend,
            budget=MemoryBudget(MIB),
            metrics=metrics,
            limits=Limits(batch_spans=4, batch_bytes=MIB, batch_timeout_s=0.01, hold_s=0.0),
        )

    return Adoptions(names, data, make_pipeline, done=done)


async def test_all_is_delivered_and_the_directories_are_gone(data, metrics):
    for number in (1, 2):
        await leave_behind(data.path, f"spool-{number}", 5)
    backend, done = Backend(), asyncio.Event()
    backend.open.set()
    adopted = adoptions(["spool-1", "spool-2"], data, metrics, backend, done.set)
    await asyncio.wait_for(adopted.run(), TIMEOUT_S)
    assert done.is_set()
    assert await asyncio.to_thread(data.names) == []
    books = assert_books_balance(metrics)
    assert (books["recovered"], books["delivered"], books["pending"]) == (20, 20, 0)
    await adopted.stop(backend_flushed=False)


async def test_what_is_not_delivered_stays_for_the_next_start(data, metrics):
    await leave_behind(data.path, "spool-1", 5)
    adopted = adoptions(["spool-1"], data, metrics, Backend())
    run = asyncio.create_task(adopted.run())
    while not adopted.pending_spans:
        await asyncio.sleep(0)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await adopted.stop(backend_flushed=False)
    assert adopted.pending_spans == 10
    assert (await reopened(data)).recovered_spans == 10


async def test_one_that_cannot_be_had_is_told_and_the_others_go_on(data, metrics, caplog):
    await leave_behind(data.path, "spool-1", 1)
    await leave_behind(data.path, "spool-2", 1)
    taken = await reopened(data)
    backend = Backend()
    backend.open.set()
    adopted = adoptions(["spool-1", "spool-2"], data, metrics, backend)
    await asyncio.wait_for(adopted.run(), TIMEOUT_S)
    assert await asyncio.to_thread(data.names) == ["spool-1"]
    assert "spool not adopted" in caplog.text
    await taken.close()


async def test_files_of_somebody_elses_are_left_where_they_are(data, metrics, caplog):
    await leave_behind(data.path, "spool-1", 1)
    (data.path / "spool-1" / "notes.txt").write_text("mine")
    backend = Backend()
    backend.open.set()
    await asyncio.wait_for(adoptions(["spool-1"], data, metrics, backend).run(), TIMEOUT_S)
    assert (data.path / "spool-1" / "notes.txt").exists()
    assert "spool not empty" in caplog.text


def test_a_data_directory_is_one_gateways(data):
    data.lock()
    with pytest.raises(StartError, match="is in use by process"):
        DataDirectory(data.path).lock()
    data.unlock()
    data.unlock()
    other = DataDirectory(data.path)
    other.lock()
    other.unlock()


def test_one_that_cannot_be_made_is_told_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="GATEWAY_DATA_DIR must be writable"):
        DataDirectory(tmp_path / "file" / "data").lock()
