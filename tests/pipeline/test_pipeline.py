from __future__ import annotations

import asyncio
import errno
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from gateway.errors import Cause
from gateway.pipeline.backlog import RECORD_OVERHEAD
from gateway.pipeline.pipeline import DELIVERIES, Limits
from gateway.pipeline.retry import LEAST_HINT_S, MOST_HINT_S
from gateway.pipeline.segments import SegmentLog, SpoolError
from tests.kit.scripted import (
    AWAY,
    BROKEN,
    DEFAULT_LIMITS,
    MIB,
    OK,
    REFUSED,
    TOO_LARGE,
    Asked,
    Attempt,
    Rig,
    ScriptedBackend,
    marks,
    until,
)

NEVER_S = 1000.0
SMALL_BATCHES = Limits(batch_spans=10, batch_bytes=1000, batch_timeout_s=NEVER_S, hold_s=0.0)


@pytest.fixture
def backend():
    return ScriptedBackend()


@pytest.fixture
async def make(backend, tmp_path):
    """Makes rigs over one directory, so that a second one is a restart; stops what still runs."""
    rigs: list[Rig] = []

    def make(*, disk: bool = True, start: bool = True, **options) -> Rig:
        rig = Rig(backend, tmp_path / "spool" if disk else None, **options)
        rigs.append(rig)
        return rig.start() if start else rig

    yield make
    for rig in rigs:
        rig.backend.gate.set()
        await rig.stop()


@pytest.fixture(params=["disk", "memory"])
async def rig(request, make):
    """A started pipeline, once over each spool."""
    return make(disk=request.param == "disk")


async def offer_to_tenants(rig: Rig, numbers: range) -> None:
    """To so many that every lane has something to do."""
    for tenant in range(2 * DELIVERIES):
        await rig.offer_all(numbers[tenant :: 2 * DELIVERIES], tenant=f"tenant-{tenant}")


async def turns_of_the_loop(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


class BusyThread:
    """Keeps the spool's thread from its work until told, and all the work for it."""

    def __init__(self, rig: Rig) -> None:
        self._gate = threading.Event()
        rig.spool._stalls._rest_until = math.inf
        rig.spool._thread.submit(self._gate.wait, 10)

    def let_go(self) -> None:
        self._gate.set()


async def test_a_fault_of_its_own_is_told_to_who_can_start_anew(make, backend):
    """Without the loops nothing would ever be delivered, and nobody would know."""

    class Broken(ScriptedBackend):
        def alive_s(self) -> float:
            raise RuntimeError("boom")

    rig = Rig(Broken()).start()
    await until(lambda: rig.faults)
    assert str(rig.faults[0]) == "boom"
    await rig.stop()


# -- delivery --------------------------------------------------------------------------------------


async def test_what_is_accepted_is_delivered_once_and_in_order(rig):
    await rig.offer_all(range(1000))
    await rig.delivered()
    assert [n for attempt in rig.backend.attempts for n in attempt.marks] == list(range(1000))
    assert rig.books()["delivered"] == 1000
    assert rig.budget.used == 0


async def test_while_nothing_fails_a_tenants_deliveries_are_made_one_after_the_other(rig):
    rig.backend.gate.clear()
    await rig.offer_all(range(400), tenant="a")
    await rig.offer_all(range(400, 410), tenant="b")
    await until(lambda: rig.backend.under_way == 2)
    await turns_of_the_loop()
    assert [attempt.tenant for attempt in rig.backend.attempts] == ["a", "b"]
    rig.backend.gate.set()
    await rig.delivered()
    taken = rig.backend.taken
    assert [number for number in taken if number < 400] == list(range(400))


async def test_bad_data_holds_up_nobody_of_its_tenant(make):
    rig = make(limits=SMALL_BATCHES)
    rig.backend.answer = lambda attempt: AWAY if 3 in attempt.marks else OK
    await rig.offer_all(range(100))
    await until(lambda: len(rig.backend.taken) == 90)
    assert rig.backend.taken == list(range(10, 100))
    rig.backend.answer = lambda _: OK
    await rig.delivered()


async def test_a_batch_of_a_busy_tenant_goes_on_filling(make):
    """Nothing is won by closing it before it can be sent."""
    rig = make(limits=DEFAULT_LIMITS._replace(batch_timeout_s=0.001))
    rig.backend.gate.clear()
    for number in range(50):
        await rig.offer_all([number])
    await until(lambda: rig.backend.under_way)
    await turns_of_the_loop()
    first = len(rig.backend.attempts[0].marks)
    rig.backend.gate.set()
    await rig.delivered()
    assert [len(attempt.marks) for attempt in rig.backend.attempts] == [first, 50 - first]


async def test_all_lanes_are_used_and_no_more(rig):
    rig.backend.gate.clear()
    await offer_to_tenants(rig, range(1000))
    await until(lambda: rig.backend.under_way == DELIVERIES)
    await turns_of_the_loop()
    assert rig.backend.most_under_way == DELIVERIES
    rig.backend.gate.set()
    await rig.delivered()


@pytest.mark.parametrize("disk", [True, False], ids=["disk", "memory"])
async def test_batches_are_bounded_by_spans(make, disk):
    rig = make(disk=disk, limits=SMALL_BATCHES)
    await rig.offer_all(range(35))
    await until(lambda: len(rig.backend.taken) == 30)
    await turns_of_the_loop(20)
    assert [len(attempt.marks) for attempt in rig.backend.attempts] == [10, 10, 10]


async def test_batches_are_bounded_by_bytes(make):
    rig = make(limits=SMALL_BATCHES)
    await rig.offer_all(range(70), padding=90)
    await until(lambda: len(rig.backend.attempts) >= 6)
    assert {len(attempt.marks) for attempt in rig.backend.attempts} == {10}
    assert all(len(attempt.payload) <= 1000 for attempt in rig.backend.attempts)


async def test_a_batch_that_does_not_fill_is_sent_when_it_is_old_enough(make):
    rig = make(limits=SMALL_BATCHES._replace(batch_timeout_s=0.02))
    await rig.offer_all([1, 2])
    await rig.delivered()


async def test_a_clock_that_jumps_ahead_sends_at_once(make):
    ahead_s = 0.0
    rig = make(limits=SMALL_BATCHES, clock=lambda: time.monotonic() + ahead_s)
    await rig.offer_all(range(5))
    ahead_s = 2 * NEVER_S
    await rig.offer_all(range(5, 15))
    await rig.delivered()


async def test_a_record_larger_than_batch_and_memory_is_delivered_alone(make):
    rig = make(limits=SMALL_BATCHES._replace(batch_timeout_s=0.01), memory_bytes=10_000)
    await rig.offer_all([1])
    await rig.offer_all([2], padding=100_000, spans=50)
    await rig.offer_all([3])
    await rig.delivered()
    assert [a.marks for a in rig.backend.attempts if 2 in a.marks] == [[2]]


async def test_tenants_are_never_mixed_and_all_are_served(make):
    rig = make(limits=SMALL_BATCHES._replace(batch_timeout_s=0.05))
    for number in range(900):
        rig.offer(number, tenant=f"tenant-{number % 300}")
    await until(lambda: len(rig.accepted) == 900)
    await rig.delivered()
    for attempt in rig.backend.attempts:
        assert {f"tenant-{number % 300}" for number in attempt.marks} == {attempt.tenant}
    assert sorted(rig.backend.taken) == list(range(900))


async def test_an_offer_of_nothing_is_accepted(rig):
    assert (await rig.offer().answered()).accepted
    await rig.offer_all([1])
    await rig.delivered()


async def test_a_backend_that_comes_back_is_used_at_once(make):
    rig = make()
    rig.backend.answer = lambda _: AWAY._replace(retry_after_s=NEVER_S)
    await rig.offer_all(range(3))
    await until(lambda: rig.backend.attempts)
    await turns_of_the_loop(5)
    rig.backend.answer = lambda _: OK
    rig.pipeline.backend_ready()
    await rig.delivered()


async def test_what_is_refused_for_good_is_counted_and_released(make):
    rig = make()
    rig.backend.answer = lambda attempt: REFUSED if 13 in attempt.marks else OK
    await rig.offer_all(range(100))
    await rig.delivered()
    assert rig.books() | {"received": 100, "delivered": 99, "dropped": 1} == rig.books()
    assert [marks(payload) for _, payload, _, _ in rig.dead_letters.letters] == [[13]]
    await until(lambda: not rig.log.pending_records)


async def test_a_delivery_that_fails_in_a_way_nobody_thought_of_stays_in_the_spool(make, caplog):
    rig = make()

    async def keep(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    rig.dead_letters.keep = keep
    rig.backend.answer = lambda _: REFUSED
    for number in range(2 * DELIVERIES):
        await rig.offer_all([number])
        await until(lambda: len(rig.backend.attempts) > number)  # noqa: B023 - waits here
    messages = {record.getMessage() for record in caplog.records}
    assert messages == {"delivery failed", "task failed"}
    assert rig.pending == 2 * DELIVERIES
    await rig.stop()
    rig.backend.answer = lambda _: OK
    await make().delivered()
    assert sorted(rig.backend.taken) == list(range(2 * DELIVERIES))


async def test_the_metrics_and_the_status_tell_what_waits(make):
    rig = make()
    rig.backend.gate.clear()
    await rig.offer_all(range(10), spans=3)
    await until(lambda: rig.backend.under_way)
    assert rig.books()["pending"] == 30
    assert rig.metrics.spool_bytes.total() > 100
    stats = rig.pipeline.stats()
    assert stats["pending_spans"] == rig.pipeline.pending_spans == 30
    assert stats["deliveries_under_way"] >= 1
    assert stats["backlog_on_disk"] is False


# -- overflow to disk ------------------------------------------------------------------------------

TIGHT = 20 * (1000 + RECORD_OVERHEAD)
"""Memory for about twenty records with a padding of 1000."""


async def test_beyond_the_memory_the_rest_waits_on_disk_and_comes_in_order(make):
    rig = make(memory_bytes=TIGHT, limits=SMALL_BATCHES._replace(batch_timeout_s=0.01))
    rig.backend.gate.clear()
    await rig.offer_all(range(3000), padding=1000)
    assert rig.pipeline.stats()["backlog_on_disk"] is True
    rig.backend.gate.set()
    await rig.delivered()
    assert [n for attempt in rig.backend.attempts for n in attempt.marks] == list(range(3000))
    assert rig.budget.peak <= rig.budget.limit
    assert rig.budget.used == 0
    await until(lambda: not rig.log.pending_records)


async def test_what_comes_in_while_it_catches_up_is_delivered_once_and_in_order(make):
    rig = make(memory_bytes=TIGHT, limits=SMALL_BATCHES._replace(batch_timeout_s=0.001))
    rig.backend.gate.clear()
    await rig.offer_all(range(300), padding=1000)
    rig.backend.gate.set()
    for number in range(300, 1500):
        rig.offer(number, padding=random.choice([0, 1000]))
        if number % 7 == 0:
            await asyncio.sleep(0)
    await rig.delivered()
    assert len(rig.accepted) == 1500
    assert [n for attempt in rig.backend.attempts for n in attempt.marks] == list(range(1500))
    assert rig.budget.peak <= rig.budget.limit
    assert rig.pipeline.stats()["backlog_on_disk"] is False


class WatchedLog(SegmentLog):
    """A log that remembers how much each read asked for."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.asked: list[int] = []

    def read(self, sequence: int, max_bytes: int):
        self.asked.append(max_bytes)
        return super().read(sequence, max_bytes)


async def test_no_more_is_read_back_than_memory_has_room_for(make):
    rig = make(memory_bytes=TIGHT, log_type=WatchedLog)
    rig.backend.gate.clear()
    await rig.offer_all(range(300), padding=1000)
    rig.backend.gate.set()
    await rig.delivered()
    assert rig.log.asked
    assert max(rig.log.asked) <= TIGHT
    assert len(rig.log.asked) <= 300 / 5


async def test_what_was_read_back_does_not_wait_for_its_batch_to_fill(make):
    rig = make(limits=SMALL_BATCHES)
    await rig.offer_all(range(3))
    await rig.stop()
    start = time.monotonic()
    await make(limits=SMALL_BATCHES, clock=lambda: time.monotonic() - start).delivered()
    assert rig.backend.taken == [0, 1, 2]


async def test_records_larger_than_the_memory_come_back_from_disk_one_by_one(make):
    rig = make(memory_bytes=1000, limits=SMALL_BATCHES._replace(batch_timeout_s=0.001))
    await rig.offer_all(range(20), padding=5000)
    await rig.delivered()
    assert rig.backend.most_under_way == 1
    assert [n for attempt in rig.backend.attempts for n in attempt.marks] == list(range(20))


@pytest.mark.parametrize(
    ("memory_bytes", "padding"),
    [(TIGHT, 1000), (1000, 5000), (64 * MIB, 1000)],
    ids=["some_in_memory", "one_in_memory", "all_in_memory"],
)
async def test_while_the_backend_is_away_the_feeder_sleeps(make, memory_bytes, padding):
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return time.monotonic()

    rig = make(memory_bytes=memory_bytes, clock=clock, limits=SMALL_BATCHES)
    rig.backend.gate.clear()
    await rig.offer_all(range(200), padding=padding)
    await until(lambda: rig.backend.under_way)
    await turns_of_the_loop(20)
    looks = 0
    await turns_of_the_loop(200)
    assert looks <= 5
    rig.backend.gate.set()
    await rig.pipeline.drain(10)
    await rig.delivered()


class UnreadableLog(SegmentLog):
    """A log whose disk does not give what it has, for a number of reads."""

    failures = 0

    def read(self, sequence: int, max_bytes: int):
        if self.failures:
            self.failures -= 1
            raise SpoolError(errno.EIO, "Input/output error")
        return super().read(sequence, max_bytes)


async def test_a_disk_that_cannot_be_read_for_a_while_delays_and_loses_nothing(make, caplog):
    rig = make(memory_bytes=TIGHT, log_type=UnreadableLog)
    rig.log.failures = 1000
    await rig.offer_all(range(500), padding=1000)
    await until(lambda: rig.log.failures < 1000)
    await turns_of_the_loop(100)
    assert rig.log.failures >= 998, "it reads without a pause"
    rig.log.failures = 0
    await rig.delivered()
    assert sorted(rig.backend.taken) == list(range(500))
    (record,) = [r for r in caplog.records if r.getMessage() == "spool read failed"]
    assert "Input/output error" in record.facts["error"]


def damage(rig: Rig, *numbers: int) -> None:
    """Flip a bit of these records on disk."""
    for path in rig.log.directory.glob("*.log"):
        data = bytearray(path.read_bytes())
        for number in numbers:
            if (at := data.find(b"<%d>" % number)) >= 0:
                data[at + 1] ^= 0x80
        path.write_bytes(data)


async def test_a_record_damaged_on_disk_is_counted_and_the_others_are_delivered(make):
    rig = make(memory_bytes=TIGHT)
    rig.backend.gate.clear()
    await rig.offer_all(range(100), padding=1000, spans=3)
    damage(rig, 50, 99)
    rig.backend.gate.set()
    await rig.delivered()
    assert sorted(rig.backend.taken) == [n for n in range(100) if n not in (50, 99)]
    assert rig.metrics.dropped_spans.series("damaged").value == 6
    assert rig.books()["delivered"] == 294


# -- refusals --------------------------------------------------------------------------------------


def assert_hint(asked: Asked) -> None:
    assert asked.refused.retry_after_s is not None
    assert LEAST_HINT_S <= asked.refused.retry_after_s <= MOST_HINT_S


async def test_memory_only_refuses_at_the_budget_and_takes_again_when_there_is_room(make):
    rig = make(disk=False, memory_bytes=TIGHT)
    rig.backend.gate.clear()
    asked = [rig.offer(number, padding=1000) for number in range(100)]
    assert len(rig.accepted) in (19, 20)
    assert rig.budget.peak <= rig.budget.limit
    assert {one.refused.cause for one in asked if not one.accepted} == {Cause.MEMORY_FULL}
    assert_hint(asked[-1])
    rig.backend.gate.set()
    await rig.delivered()
    assert rig.offer(100, padding=1000).accepted
    await rig.delivered()
    assert sorted(rig.backend.taken) == sorted(rig.accepted)


async def test_memory_only_takes_a_request_whole_or_not_at_all(make):
    rig = make(disk=False, memory_bytes=TIGHT)
    rig.backend.gate.clear()
    assert rig.offer(*range(15), padding=1000).accepted
    assert not rig.offer(*range(15, 30), padding=1000).accepted
    assert rig.offer(30).accepted
    rig.backend.gate.set()
    await rig.delivered()
    assert sorted(rig.backend.taken) == [*range(15), 30]


async def test_memory_only_says_of_a_request_that_can_never_fit_that_a_retry_is_no_use(make):
    rig = make(disk=False, memory_bytes=TIGHT)
    refused = rig.offer(*range(40), padding=1000).refused
    assert refused.cause is Cause.TOO_LARGE
    assert refused.retry_after_s is None
    assert "GATEWAY_MEMORY_BYTES" in refused.message


async def test_a_full_spool_refuses_and_takes_again_when_the_backend_is_back(make):
    rig = make(spool_bytes=MIB, memory_bytes=TIGHT)
    rig.backend.gate.clear()
    asked = [await rig.offer(number, padding=2**14).answered() for number in range(100)]
    assert 40 < len(rig.accepted) < 64
    assert {one.refused.cause for one in asked if not one.accepted} == {Cause.SPOOL_FULL}
    assert_hint(asked[-1])
    rig.backend.gate.set()
    await rig.delivered()
    await rig.offer_all([100], padding=2**14)
    await rig.delivered()
    assert sorted(rig.backend.taken) == sorted(rig.accepted)


async def test_clients_that_are_refused_together_are_told_different_delays(make):
    rig = make(spool_bytes=MIB)
    rig.backend.gate.clear()
    await rig.offer_all([1], padding=900_000)
    thread = BusyThread(rig)
    asked = [rig.offer(number, padding=200_000) for number in range(2, 12)]
    thread.let_go()
    await until(lambda: all(one.answers for one in asked))
    assert len({one.refused.retry_after_s for one in asked}) == 10


async def test_once_told_to_every_offer_is_refused(rig):
    rig.pipeline.refuse()
    asked = rig.offer(1)
    assert asked.refused.cause is Cause.STOPPING
    assert_hint(asked)


# -- hold ------------------------------------------------------------------------------------------

HOLD_S = 10.0
HELD = Limits(batch_spans=10, batch_bytes=MIB, batch_timeout_s=0.005, hold_s=HOLD_S)


@pytest.fixture
def forgetful(backend):
    """The backend has on its disk what it took ten seconds of its life ago."""
    backend._flush_s = HOLD_S
    return backend


async def assert_nothing_is_lost(rig: Rig) -> None:
    """What was accepted is on the backend's disk, or still in the spool."""
    accepted = set(rig.accepted)
    kept = {*await rig.in_spool(), *rig.backend.on_disk}
    assert not accepted - kept


async def test_what_the_backend_took_is_released_when_it_has_lived_for_the_hold_time(
    make, forgetful
):
    rig = make(limits=HELD)
    await rig.offer_all(range(100))
    await until(lambda: len(forgetful.taken) == 100)
    forgetful.live(HOLD_S - 0.1)
    await turns_of_the_loop(400)  # longer than the keeper's interval
    assert rig.books() | {"pending": 100, "delivered": 0} == rig.books()
    assert len(await rig.in_spool()) == 100
    forgetful.live(0.1)
    await rig.delivered()
    await until(lambda: not rig.log.pending_records)
    assert rig.budget.used == 0


async def test_while_the_backends_clock_stands_still_the_spool_keeps_and_then_refuses(
    make, forgetful
):
    rig = make(limits=HELD, spool_bytes=MIB)
    asked = [await rig.offer(number, padding=2**14).answered() for number in range(100)]
    await until(lambda: sorted(forgetful.taken) == sorted(rig.accepted))
    assert asked[-1].refused.cause is Cause.SPOOL_FULL
    assert rig.pending == len(rig.accepted) == len(await rig.in_spool())
    forgetful.live(HOLD_S)
    await rig.delivered()
    await rig.offer_all([100], padding=2**14)
    await until(lambda: 100 in forgetful.taken)
    forgetful.live(HOLD_S)
    await rig.delivered()


async def test_what_a_dead_backend_held_is_delivered_again_and_nothing_else(make, forgetful):
    rig = make(limits=HELD)
    await rig.offer_all(range(100))
    await until(lambda: len(forgetful.taken) == 100)
    forgetful.live(HOLD_S)
    await rig.delivered()
    await rig.offer_all(range(100, 200))
    await until(lambda: len(forgetful.taken) == 200)
    forgetful.die()
    await until(lambda: len(forgetful.taken) == 200)
    forgetful.live(HOLD_S)
    await rig.delivered()
    assert forgetful.on_disk == Counter(range(200))
    assert rig.books()["delivered"] == 200
    assert rig.metrics.redelivered_spans.total() == 100


async def test_a_backend_that_dies_again_and_again_gets_it_again_and_again(make, forgetful):
    rig = make(limits=HELD)
    await rig.offer_all(range(100))
    for _ in range(4):
        await until(lambda: len(forgetful.taken) == 100)
        assert rig.books()["delivered"] == 0
        forgetful.die()
    await until(lambda: len(forgetful.taken) == 100)
    forgetful.live(HOLD_S)
    await rig.delivered()
    assert forgetful.on_disk == Counter(range(100))
    assert rig.books()["delivered"] == 100


async def test_deliveries_under_way_when_the_backend_dies_are_made_again(make, forgetful):
    rig = make(limits=HELD)
    await rig.offer_all(range(10))
    await until(lambda: len(forgetful.taken) == 10)
    forgetful.gate.clear()
    await offer_to_tenants(rig, range(10, 60))
    await until(lambda: forgetful.under_way == DELIVERIES)
    forgetful.die()
    forgetful.gate.set()
    await until(lambda: set(forgetful.taken) == set(range(60)))
    forgetful.live(HOLD_S)
    await rig.delivered()
    assert set(forgetful.on_disk) == set(range(60))
    assert rig.books()["delivered"] == 60


async def test_a_delivery_of_which_a_dead_backend_took_a_part_is_made_again_whole(make, forgetful):
    rig = make(limits=HELD)
    deaths = iter([forgetful.die])

    def answer(attempt: Attempt):
        if len(attempt.marks) > 5:
            return TOO_LARGE
        for die in deaths:
            asyncio.get_running_loop().call_soon(die)
        return OK

    forgetful.answer = answer
    assert (await rig.offer(*range(10)).answered()).accepted
    async with asyncio.timeout(5):
        assert await rig.pipeline.drain(NEVER_S)
    assert sorted(forgetful.taken) in (list(range(10)), sorted([*range(10), *range(5, 10)]))


def poisonous(backend: ScriptedBackend, poison: int) -> list[int]:
    """A payload with this mark kills the backend. Returns the list in which deaths are noted."""
    deaths: list[int] = []

    def answer(attempt: Attempt):
        if poison not in attempt.marks:
            return OK
        deaths.append(len(attempt.marks))
        backend.die()
        return BROKEN

    backend.answer = answer
    return deaths


async def test_what_kills_the_backend_is_given_up_once_and_its_companions_are_delivered(
    make, forgetful
):
    """Each death begins a new life of the backend, and what it held before is lost."""
    deaths = poisonous(forgetful, 13)
    rig = make(limits=HELD)
    await rig.offer_all(range(100))
    await until(lambda: set(forgetful.taken) == {n for n in range(100) if n != 13})
    forgetful.live(HOLD_S)
    await rig.delivered()
    assert rig.books() | {"delivered": 99, "dropped": 1} == rig.books()
    assert set(forgetful.on_disk) == {n for n in range(100) if n != 13}
    assert [marks(payload) for _, payload, _, _ in rig.dead_letters.letters] == [[13]]
    assert deaths[-1] == 1
    await until(lambda: not rig.log.pending_records)


async def test_a_batch_of_which_nothing_is_delivered_is_not_held(make, forgetful):
    poisonous(forgetful, 1)
    rig = make(limits=HELD)
    await rig.offer_all([1])
    await rig.delivered()
    assert len(rig.dead_letters.letters) == 1
    await until(lambda: not rig.log.pending_records)


async def test_a_backend_that_dies_while_the_backlog_is_read_back_gets_everything(make, forgetful):
    """In order: first what it had lost, then the rest."""
    rig = make(limits=HELD, memory_bytes=TIGHT)
    await rig.offer_all(range(100), padding=1000)
    await until(lambda: len(forgetful.taken) == 100)
    forgetful.gate.clear()
    await rig.offer_all(range(100, 400), padding=1000)
    assert rig.pipeline.stats()["backlog_on_disk"] is True
    forgetful.die()
    await until(lambda: rig.pipeline._again)
    forgetful.gate.set()
    await until(lambda: set(forgetful.taken) == set(range(400)))
    assert rig.budget.peak <= rig.budget.limit
    forgetful.live(HOLD_S)
    await rig.delivered()
    assert set(forgetful.on_disk) == set(range(400))
    assert rig.books()["delivered"] == 400
    assert [n for n in forgetful.taken if n >= 120] == list(range(120, 400))


async def test_a_record_that_a_dead_backend_lost_and_the_disk_too_costs_no_other(make, forgetful):
    rig = make(limits=HELD)
    await rig.offer_all(range(50))
    await until(lambda: len(forgetful.taken) == 50)
    damage(rig, 0, 1, 25)
    forgetful.die()
    await until(lambda: len(forgetful.taken) == 47)
    forgetful.live(HOLD_S)
    await rig.delivered()
    assert forgetful.on_disk == Counter(n for n in range(50) if n not in (0, 1, 25))
    async with asyncio.timeout(5):
        assert await rig.pipeline.drain(NEVER_S)
    assert rig.metrics.dropped_spans.series("damaged").value == 3


async def test_without_a_hold_time_an_ok_outlives_the_backend(make):
    rig = make()

    def answer(_: Attempt):
        rig.backend.generation += 1
        return OK

    rig.backend.answer = answer
    await rig.offer_all([1])
    await rig.delivered()
    assert rig.backend.taken == [1]


async def test_memory_only_holds_nothing(make, forgetful):
    rig = make(disk=False, limits=HELD)
    await rig.offer_all(range(10))
    await rig.delivered()
    assert rig.pipeline.stats()["held_deliveries"] == 0


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_dies_and_in_whatever_order_nothing_accepted_is_lost(make, forgetful, seed):
    """Deaths of the backend and of the gateway, outages, a small memory and a small spool."""
    chance = random.Random(seed)
    options = {"limits": HELD, "memory_bytes": TIGHT, "spool_bytes": 2 * MIB}
    rig = make(**options)
    accepted: set[int] = set()
    numbers: Iterator[int] = iter(range(10**6))
    for _ in range(80):
        match chance.choice(["offer", "offer", "offer", "live", "die", "gate", "wait", "restart"]):
            case "offer":
                for _ in range(chance.randrange(1, 40)):
                    envelopes = [next(numbers) for _ in range(chance.randrange(1, 4))]
                    rig.offer(*envelopes, padding=chance.choice([0, 1000, 5000]))
            case "live":
                forgetful.live(chance.uniform(0, HOLD_S))
            case "die":
                forgetful.die()
            case "gate":
                forgetful.gate.clear() if chance.random() < 0.4 else forgetful.gate.set()
            case "wait":
                await turns_of_the_loop(chance.randrange(1, 60))
            case "restart" if chance.random() < 0.3:
                flushed = chance.random() < 0.3
                if flushed:  # it answers nobody any more, and has all on disk
                    forgetful.gate.clear()
                    forgetful.live(2 * HOLD_S)
                await rig.stop(backend_flushed=flushed)
                accepted |= set(rig.accepted)
                rig = make(**options)
        await assert_nothing_is_lost(rig)
        rig.books()
        assert rig.budget.used <= rig.budget.limit
    forgetful.gate.set()

    def done() -> bool:
        forgetful.live(0.1)
        return not rig.pending

    await until(done, timeout_s=30)
    accepted |= set(rig.accepted)
    assert sorted(accepted - set(forgetful.on_disk)) == []
    assert rig.budget.used == 0
    await until(lambda: not rig.log.pending_records)


# -- restart ---------------------------------------------------------------------------------------


async def test_what_was_not_delivered_is_delivered_by_the_next_start_before_anything_new(make):
    rig = make()
    rig.backend.gate.clear()
    await rig.offer_all(range(500))
    await rig.stop()
    rig.backend.attempts.clear()
    rig.backend.gate.set()
    rig = make(start=False)
    await rig.offer_all(range(500, 600))
    assert rig.books() | {"recovered": 500, "pending": 600} == rig.books()
    rig.start()
    await rig.delivered()
    assert [n for attempt in rig.backend.attempts for n in attempt.marks] == list(range(600))


async def test_a_start_on_an_empty_spool_recovers_nothing(make):
    rig = make()
    await rig.offer_all([1])
    await rig.delivered()
    await until(lambda: not rig.log.pending_records)
    await rig.stop()
    rig = make()
    assert rig.books()["recovered"] == 0
    await rig.offer_all([2])
    await rig.delivered()
    assert rig.backend.taken == [1, 2]


async def test_what_was_held_is_delivered_again_by_the_next_start(make, forgetful):
    rig = make(limits=HELD)
    await rig.offer_all(range(10))
    await until(lambda: len(forgetful.taken) == 10)
    await rig.stop(backend_flushed=False)
    rig = make(limits=HELD)
    await until(lambda: len(forgetful.taken) == 20)
    assert rig.books()["recovered"] == 10


async def test_what_was_held_is_released_when_the_backend_has_stopped_in_good_order(
    make, forgetful
):
    rig = make(limits=HELD)
    await rig.offer_all(range(10))
    await until(lambda: len(forgetful.taken) == 10)
    await rig.stop(backend_flushed=True)
    assert rig.books()["delivered"] == 10
    assert make(limits=HELD).books()["recovered"] == 0


async def test_what_an_earlier_life_of_the_backend_held_is_not_released_by_its_good_end(
    make, forgetful
):
    rig = make(limits=HELD)
    await rig.offer_all(range(10))
    await until(lambda: len(forgetful.taken) == 10)
    forgetful.die()
    await rig.stop(backend_flushed=True)
    assert make(limits=HELD).books()["recovered"] == 10


# -- drain and stop --------------------------------------------------------------------------------


@pytest.mark.parametrize("disk", [True, False], ids=["disk", "memory"])
async def test_a_drain_sends_what_waits_without_waiting_for_batches_to_fill(make, disk):
    rig = make(disk=disk, limits=SMALL_BATCHES)
    for tenant in ("a", "b", "c"):
        rig.offer(ord(tenant), tenant=tenant)
    await until(lambda: len(rig.accepted) == 3)
    async with asyncio.timeout(5):
        assert await rig.pipeline.drain(NEVER_S)
    assert len(rig.backend.taken) == 3


async def test_a_drain_ends_as_soon_as_the_last_delivery_has(rig):
    rig.backend.gate.clear()
    await offer_to_tenants(rig, range(1000))
    drain = asyncio.get_running_loop().create_task(rig.pipeline.drain(NEVER_S))
    await until(lambda: rig.backend.under_way == DELIVERIES)
    rig.backend.gate.set()
    async with asyncio.timeout(5):
        assert await drain
    assert rig.pending == 0


async def test_a_drain_of_nothing_ends_at_once_and_twice(rig):
    assert await rig.pipeline.drain(NEVER_S)
    assert await rig.pipeline.drain(NEVER_S)
    assert rig.offer(1).refused.cause is Cause.STOPPING


async def test_a_drain_includes_what_is_on_disk_only(make):
    rig = make(memory_bytes=TIGHT, limits=SMALL_BATCHES)
    rig.backend.gate.clear()
    await rig.offer_all(range(300), padding=1000)
    rig.backend.gate.set()
    async with asyncio.timeout(10):
        assert await rig.pipeline.drain(NEVER_S)
    assert sorted(rig.backend.taken) == list(range(300))


# -- handover --------------------------------------------------------------------------------------


@pytest.fixture
def other():
    """Another gateway."""
    return ScriptedBackend()


@pytest.mark.parametrize("failing", ["hanging", "away"])
async def test_what_a_lost_backend_does_not_take_goes_to_another_gateway(rig, other, failing):
    """Also what is under way, and what waits for its next attempt."""
    if failing == "hanging":
        rig.backend.gate.clear()
    else:
        rig.backend.answer = lambda _: AWAY
    await offer_to_tenants(rig, range(500))
    assert not await rig.pipeline.drain(0.05)
    assert rig.pipeline.is_failing is (failing == "away")
    rig.pipeline.hand_over(other)
    async with asyncio.timeout(5):
        assert await rig.pipeline.drain(NEVER_S)
    assert sorted(other.taken) == list(range(500))
    assert {attempt.tenant for attempt in other.attempts} == {f"tenant-{n}" for n in range(8)}
    assert rig.books() | {"handed_over": 500, "delivered": 0, "pending": 0} == rig.books()
    if rig.spool.durable:
        await until(lambda: not rig.log.pending_records)


async def test_what_is_on_disk_only_is_handed_over_within_memory(make, other):
    rig = make(memory_bytes=TIGHT, limits=SMALL_BATCHES)
    rig.backend.gate.clear()
    await rig.offer_all(range(300), padding=1000)
    rig.pipeline.hand_over(other)
    async with asyncio.timeout(10):
        assert await rig.pipeline.drain(NEVER_S)
    assert sorted(other.taken) == list(range(300))
    assert rig.budget.used == 0


async def test_what_the_other_gateway_does_not_take_stays_in_the_spool(make, other):
    rig = make()
    rig.backend.gate.clear()
    other.answer = lambda attempt: OK if attempt.tenant == "a" else AWAY
    await rig.offer_all(range(10), tenant="a")
    await rig.offer_all(range(10, 20), tenant="b")
    rig.pipeline.hand_over(other)
    assert not await rig.pipeline.drain(0.1)
    await rig.stop()
    assert rig.books() | {"handed_over": 10, "pending": 10} == rig.books()
    assert make(start=False).books()["recovered"] == 10


@pytest.mark.parametrize("flushed", [True, False])
async def test_what_is_held_is_handed_over_unless_the_backend_has_it_on_disk(
    make, forgetful, other, flushed
):
    rig = make(limits=HELD)
    await rig.offer_all(range(10))
    await until(lambda: rig.pipeline.stats()["held_deliveries"])
    rig.pipeline.hand_over(other)
    rig.pipeline.backend_ended(flushed=flushed)
    async with asyncio.timeout(5):
        assert await rig.pipeline.drain(NEVER_S)
    assert sorted(other.taken) == ([] if flushed else list(range(10)))
    assert rig.books()["delivered" if flushed else "handed_over"] == 10


async def test_an_ok_of_the_old_backend_is_not_taken_for_a_receipt(make, other):
    """The first half was taken, the second hangs: with the backend's life over, both go on."""
    rig = make(limits=HELD)

    def answer(attempt: Attempt):
        if len(attempt.marks) > 1:
            return TOO_LARGE
        if attempt.marks == [1]:
            rig.backend.gate.clear()  # from the next attempt on
        return OK

    rig.backend.answer = answer
    rig.offer(1, 2)
    await until(lambda: not rig.backend.gate.is_set())
    await until(lambda: rig.backend.under_way)
    rig.pipeline.hand_over(other)
    async with asyncio.timeout(5):
        assert await rig.pipeline.drain(NEVER_S)
    assert sorted(other.taken) == [1, 2]


async def test_a_drain_includes_what_is_being_written(make):
    rig = make(limits=SMALL_BATCHES)
    thread = BusyThread(rig)
    asked = [rig.offer(1), rig.offer(2)]
    drain = asyncio.get_running_loop().create_task(rig.pipeline.drain(NEVER_S))
    await turns_of_the_loop(5)
    assert not drain.done()
    thread.let_go()
    async with asyncio.timeout(5):
        assert await drain
    assert all(one.accepted for one in asked)
    assert sorted(rig.backend.taken) == [1, 2]


async def test_a_drain_ends_too_when_what_was_being_written_is_refused(make):
    rig = make(spool_bytes=MIB)
    thread = BusyThread(rig)
    asked = rig.offer(1, padding=2 * MIB)
    drain = asyncio.get_running_loop().create_task(rig.pipeline.drain(NEVER_S))
    await turns_of_the_loop(5)
    thread.let_go()
    async with asyncio.timeout(5):
        assert await drain
    assert asked.refused.cause is Cause.TOO_LARGE
    assert asked.refused.retry_after_s is None


async def test_a_drain_includes_what_a_backend_loses_that_dies_meanwhile(make, forgetful):
    rig = make(limits=HELD)
    await rig.offer_all(range(20))
    await until(lambda: len(forgetful.taken) == 20)
    forgetful.gate.clear()
    await offer_to_tenants(rig, range(20, 100))
    await until(lambda: forgetful.under_way == DELIVERIES)
    drain = asyncio.get_running_loop().create_task(rig.pipeline.drain(NEVER_S))
    forgetful.die()
    await until(lambda: rig.pipeline._again)
    forgetful.gate.set()
    async with asyncio.timeout(5):
        assert await drain
    assert set(forgetful.taken) == set(range(100))


async def test_a_drain_without_a_backend_ends_in_time_and_the_spool_keeps_the_rest(make):
    rig = make(memory_bytes=TIGHT)
    rig.backend.answer = lambda _: AWAY
    await rig.offer_all(range(100), padding=1000)
    assert not await rig.pipeline.drain(0.05)
    await rig.stop()
    assert rig.books()["pending"] == 100
    rig.backend.answer = lambda _: OK
    await make().delivered()
    assert sorted(rig.backend.taken) == list(range(100))


@pytest.mark.parametrize("disk", [True, False], ids=["disk", "memory"])
async def test_stop_is_safe_before_start_and_twice(make, disk):
    rig = make(disk=disk, start=False)
    await rig.stop()
    await rig.stop()


async def test_stop_in_the_middle_of_deliveries_leaves_them_to_the_next_start(make):
    rig = make(memory_bytes=TIGHT)
    rig.backend.gate.clear()
    await rig.offer_all(range(100), padding=1000)
    await until(lambda: rig.backend.under_way)
    await rig.stop()
    assert rig.backend.under_way == 0
    assert rig.books()["pending"] == 100
    rig.backend.gate.set()
    await make().delivered()
    assert sorted(rig.backend.taken) == list(range(100))


async def test_stop_in_the_middle_of_a_read_leaves_it_to_the_next_start(make):
    rig = make(memory_bytes=TIGHT)
    rig.backend.gate.clear()
    await rig.offer_all(range(100), padding=1000)
    thread = BusyThread(rig)
    rig.backend.gate.set()
    await until(lambda: rig.pipeline._wants_to_read and not rig.pipeline._sending)
    stop = asyncio.get_running_loop().create_task(rig.stop())
    await turns_of_the_loop(5)
    thread.let_go()
    await stop
    left = rig.books()["pending"]
    assert left > 50
    rig = make()
    assert rig.books()["recovered"] >= left
    await rig.delivered()
    assert set(rig.backend.taken) == set(range(100))


async def test_stop_in_the_middle_of_a_write_answers_and_leaves_it_to_the_next_start(make):
    rig = make()
    thread = BusyThread(rig)
    asked = [rig.offer(number) for number in range(10)]
    stop = asyncio.get_running_loop().create_task(rig.stop())
    await turns_of_the_loop(5)
    assert not any(one.answers for one in asked)
    thread.let_go()
    await stop
    assert all(one.accepted for one in asked)
    assert rig.books()["pending"] == 10
    await make().delivered()
    assert sorted(rig.backend.taken) == list(range(10))
