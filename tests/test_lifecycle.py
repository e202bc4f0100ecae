from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.lifecycle import Phases, Tasks


async def test_stop_ends_what_still_runs_and_is_safe_twice():
    tasks = Tasks("part")
    ended = asyncio.Event()

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    tasks.spawn(work(), "work")
    await asyncio.sleep(0)
    await tasks.stop()
    await tasks.stop()
    assert ended.is_set()
    assert len(tasks) == 0


async def test_a_task_that_fails_is_logged_with_its_name(caplog):
    tasks = Tasks("part")

    async def work():
        raise RuntimeError("boom")

    with caplog.at_level(logging.ERROR):
        tasks.spawn(work(), "work")
        while len(tasks):
            await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.getMessage() == "task failed"
    assert record.facts == {"task": "part:work"}


async def test_a_task_that_ends_is_forgotten():
    tasks = Tasks("part")
    done = asyncio.Event()

    async def work():
        done.set()

    tasks.spawn(work(), "work")
    await done.wait()
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_who_cannot_do_without_a_task_is_told_of_its_failure():
    faults: list[BaseException] = []
    tasks = Tasks("part", faults.append)

    async def work():
        raise RuntimeError("boom")

    tasks.spawn(work(), "work")
    while len(tasks):
        await asyncio.sleep(0)
    assert [str(fault) for fault in faults] == ["boom"]


@pytest.mark.parametrize("hands_over", [True, False])
def test_the_phases_of_a_stop_end_before_its_time_does(hands_over):
    phases = Phases.of(20.0, hands_over=hands_over)
    assert sum(phases) == pytest.approx(19.0)
    assert (phases.handover_s > 0) is hands_over
    assert min(phases[:3]) > 0
