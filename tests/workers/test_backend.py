"""The backend as a worker has it: what the parent tells counts, before an OK does."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from gateway.envelope import Fate
from gateway.tempo.children import ChildBackend
from gateway.tempo.window import Window
from gateway.workers.backend import Facts, ParentsBackend, Terms, facts_of, terms_of
from gateway.workers.link import Link
from tests.kit.sink import running_sink
from tests.kit.spans import make_payload

TIMEOUT_S = 10.0
TERMS = Terms("managed", 6.0, 16 * 2**20, "own", 8 * 2**20, 6.0, 0.0)


def facts(port: int, *, alive_s: float = 1.0, generation: int = 1, state: str = "ready") -> Facts:
    return Facts(
        state,
        "",
        generation,
        0,
        alive_s,
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        (port, 1, 2),
    )


@asynccontextmanager
async def worker(now: Facts):
    """The backend at one end, and the parent's end of the link."""
    link, parent = Link("parent"), Link("worker")
    backend = ParentsBackend(link, TERMS, now)
    for end, sock in zip((link, parent), socket.socketpair(), strict=True):
        await end.open(sock)
    runs = [asyncio.create_task(end.run()) for end in (link, parent)]
    try:
        yield backend, parent
    finally:
        await backend.exporter.close()
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)


@pytest.fixture
async def sink():
    async with running_sink() as sink:
        yield sink


def port_of(sink) -> int:
    return int(sink.address.rpartition(":")[2])


async def test_an_ok_counts_when_the_parent_knows_and_brings_the_clock_up_to_date(sink):
    async with worker(facts(port_of(sink))) as (backend, parent):

        async def delivered(_):
            assert sink.requests
            parent.tell("backend", facts(port_of(sink), alive_s=7.5))

        parent.answer("delivered", delivered)
        outcome = await backend.exporter.export("", make_payload(2), timeout_s=TIMEOUT_S)
        assert outcome.fate is Fate.DELIVERED
        assert backend.alive_s() == 7.5


async def test_an_ok_that_the_parent_does_not_know_of_is_to_be_had_again(sink):
    async with worker(facts(port_of(sink))) as (backend, parent):

        async def fail(_):
            raise ZeroDivisionError

        parent.answer("delivered", fail)
        outcome = await backend.exporter.export("", make_payload(2), timeout_s=TIMEOUT_S)
        assert outcome.fate is Fate.RETRY
        assert "parent" in outcome.message


async def test_changes_of_state_are_told_on_and_the_rest_is_just_so():
    async with worker(facts(1)) as (backend, parent):
        changed = asyncio.Event()
        backend.start(changed.set)
        assert changed.is_set()
        changed.clear()
        parent.tell("backend", facts(1, alive_s=2.0))
        parent.tell("backend", facts(1, alive_s=3.0, generation=2, state="backoff"))
        await asyncio.wait_for(changed.wait(), TIMEOUT_S)
        assert (backend.state, backend.generation, backend.alive_s()) == ("backoff", 2, 3.0)
        assert (backend.base_url, backend.streaming_url) == (
            "http://127.0.0.1:1",
            "http://127.0.0.1:2",
        )


@pytest.mark.parametrize("flushed", [True, False])
async def test_its_end_is_the_parents_to_tell_and_asked_for_once(flushed):
    async with worker(facts(1)) as (backend, parent):
        asked = []

        async def drained(_):
            asked.append(1)
            return flushed

        parent.answer("drained", drained)
        assert [await backend.stop(TIMEOUT_S), await backend.stop(TIMEOUT_S)] == [flushed] * 2
        assert len(asked) == 1


def test_what_a_worker_gets_of_a_childs_terms():
    child = ChildBackend(
        "managed",
        "tempo",
        lambda _: None,
        hold_s=6.0,
        window=Window(2**24, 5.0),
        default_tenant="own",
    )
    assert terms_of(child, 2, 20.0) == Terms(
        "managed", 6.0, child.max_message_bytes, "own", 2**23, 5.0, 20.0
    )
    assert facts_of(child).state == "stopped"
    assert facts_of(child).ports == child.ports
