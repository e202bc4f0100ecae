from __future__ import annotations

import asyncio

import pytest

from gateway.lifecycle import Tasks
from gateway.pipeline.turns import Turns


class Lane:
    """One holder of a turn: says when it has it and gives it back when told."""

    def __init__(self, tasks: Tasks, turn) -> None:
        self.has_it = asyncio.Event()
        self.give_back = asyncio.Event()
        self.gone = asyncio.Event()
        tasks.spawn(self._hold(turn), "lane")

    async def _hold(self, turn) -> None:
        try:
            async with turn:
                self.has_it.set()
                await self.give_back.wait()
        finally:
            self.gone.set()


@pytest.fixture
async def tasks():
    tasks = Tasks("test")
    yield tasks
    await tasks.stop()


async def let_all_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_shared_turns_run_together(tasks):
    turns = Turns()
    lanes = [Lane(tasks, turns.shared()) for _ in range(4)]
    async with asyncio.timeout(2):
        for lane in lanes:
            await lane.has_it.wait()


async def test_a_turn_alone_waits_for_shared_ones_and_keeps_new_ones_out(tasks):
    turns = Turns()
    before = Lane(tasks, turns.shared())
    await before.has_it.wait()
    alone = Lane(tasks, turns.alone())
    after = Lane(tasks, turns.shared())
    await let_all_run()
    assert not alone.has_it.is_set()
    assert not after.has_it.is_set()
    before.give_back.set()
    async with asyncio.timeout(2):
        await alone.has_it.wait()
    await let_all_run()
    assert not after.has_it.is_set()
    alone.give_back.set()
    async with asyncio.timeout(2):
        await after.has_it.wait()


async def test_a_turn_alone_waits_for_the_last_of_the_shared_ones(tasks):
    turns = Turns()
    first, second = Lane(tasks, turns.shared()), Lane(tasks, turns.shared())
    await second.has_it.wait()
    first.give_back.set()
    await first.gone.wait()
    alone = Lane(tasks, turns.alone())
    await let_all_run()
    assert not alone.has_it.is_set()
    second.give_back.set()
    async with asyncio.timeout(2):
        await alone.has_it.wait()


async def test_two_alone_take_turns(tasks):
    turns = Turns()
    first, second = Lane(tasks, turns.alone()), Lane(tasks, turns.alone())
    await first.has_it.wait()
    await let_all_run()
    assert not second.has_it.is_set()
    first.give_back.set()
    async with asyncio.timeout(2):
        await second.has_it.wait()


@pytest.mark.parametrize("waiting", [False, True], ids=["has_it", "waits_for_it"])
@pytest.mark.parametrize("kind", ["shared", "alone"])
async def test_a_turn_that_is_cancelled_is_given_back(kind, waiting):
    turns, others, cancelled = Turns(), Tasks("others"), Tasks("cancelled")
    in_the_way = Lane(others, turns.alone()) if waiting else None
    await let_all_run()
    Lane(cancelled, getattr(turns, kind)())
    await let_all_run()
    await cancelled.stop()
    if in_the_way:
        in_the_way.give_back.set()
    async with asyncio.timeout(2):
        async with turns.alone():
            pass
        async with turns.shared(), turns.shared():
            pass
    await others.stop()


async def test_an_exception_gives_the_turn_back():
    turns = Turns()
    for turn in (turns.shared, turns.alone):
        with pytest.raises(ValueError, match="boom"):
            async with turn():
                raise ValueError("boom")
    async with asyncio.timeout(2):
        async with turns.alone():
            pass
