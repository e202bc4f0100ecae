"""Two ends of a link, over a real socket."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from gateway.workers import link as link_module
from gateway.workers.link import Link, Unanswered

TIMEOUT_S = 10


@asynccontextmanager
async def linked(prepare=lambda link: None):
    """One end, and the other, which ``prepare`` has told what to hear and answer."""
    ours, theirs = Link("other"), Link("one")
    prepare(theirs)
    for link, sock in zip((ours, theirs), socket.socketpair(), strict=True):
        await link.open(sock)
    runs = [asyncio.create_task(link.run()) for link in (ours, theirs)]
    try:
        yield ours, theirs, runs
    finally:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)


async def test_what_is_asked_is_answered():
    async def double(value):
        return value * 2

    async with linked(lambda link: link.answer("double", double)) as (ours, _, _):
        answers = [ours.ask("double", number, timeout_s=TIMEOUT_S) for number in (3, 4)]
        assert await asyncio.gather(*answers) == [6, 8]


async def test_what_is_told_before_an_answer_is_heard_before_it():
    heard = []

    async with linked() as (ours, theirs, _):

        async def answer(_):
            theirs.tell("news", "first")
            return "then this"

        ours.hear("news", heard.append)
        theirs.answer("question", answer)
        assert await ours.ask("question", timeout_s=TIMEOUT_S) == "then this"
        assert heard == ["first"]


async def test_an_answer_that_does_not_come_in_time_is_none():
    async def never(_):
        await asyncio.Event().wait()

    async with linked(lambda link: link.answer("never", never)) as (ours, _, _):
        with pytest.raises(Unanswered, match=r"did not answer in 0\.05 s"):
            await ours.ask("never", timeout_s=0.05)


async def test_one_that_fails_says_so_and_goes_on(caplog):
    async def fail(_):
        raise ZeroDivisionError

    async def work(_):
        return "fine"

    def prepare(link):
        link.answer("fail", fail)
        link.answer("work", work)

    async with linked(prepare) as (ours, _, _):
        with pytest.raises(Unanswered, match="failed at fail"):
            await ours.ask("fail", timeout_s=TIMEOUT_S)
        assert await ours.ask("work", timeout_s=TIMEOUT_S) == "fine"
    assert "ZeroDivisionError" in caplog.text


async def test_an_end_that_goes_leaves_nobody_waiting():
    asked = asyncio.Event()

    async def never(_):
        asked.set()
        await asyncio.Event().wait()

    async with linked(lambda link: link.answer("never", never)) as (ours, _, runs):
        waiting = asyncio.create_task(ours.ask("never", timeout_s=TIMEOUT_S))
        await asked.wait()
        runs[1].cancel()
        with pytest.raises(Unanswered, match="gone"):
            await waiting
        await asyncio.wait_for(runs[0], TIMEOUT_S)
        assert not ours.tell("anything")
        with pytest.raises(Unanswered, match="cannot be asked"):
            await ours.ask("anything", timeout_s=TIMEOUT_S)


async def test_what_nobody_is_there_for_is_passed_over():
    async with linked() as (ours, _, _):
        ours.tell("news")
        with pytest.raises(Unanswered, match="failed at question"):
            await ours.ask("question", timeout_s=TIMEOUT_S)


async def test_what_the_other_end_does_not_read_is_bounded(monkeypatch):
    monkeypatch.setattr(link_module, "MOST_UNREAD_BYTES", 2**16)
    ours = Link("other")
    one, other = socket.socketpair()
    with other:
        await ours.open(one)
        run = asyncio.create_task(ours.run())
        told = 0
        while ours.tell("news", "x" * 1000):
            told += 1
            assert told < 10_000
        assert told > 10
    await asyncio.wait_for(run, TIMEOUT_S)
