from __future__ import annotations

import asyncio
import contextlib
import logging
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.envelope import Envelope, Outcome
from gateway.lifecycle import Tasks
from gateway.pipeline.batcher import Batch, batch_of
from gateway.pipeline.delivery import SUSPECT_AFTER, UNCLEAR_ATTEMPTS, Delivery, Tally
from gateway.pipeline.records import Record
from gateway.pipeline.retry import Backoff
from gateway.telemetry.metrics import Metrics
from tests.kit.scripted import (
    AWAY,
    BROKEN,
    OK,
    REFUSED,
    TOO_LARGE,
    UNCLEAR,
    Attempt,
    DeadLetterBox,
    ScriptedBackend,
    until,
)
from tests.kit.spans import make_request, make_span


def record(sequence: int, *names: str) -> Record:
    """A real request with a span for each name."""
    payload = make_request(*(make_span(name) for name in names)).SerializeToString()
    return Record(sequence, Envelope("shop", payload, len(names), 0.0))


def batch(*names_of_records: str) -> Batch:
    """A record for each argument, a span for each letter of it."""
    return batch_of([record(n, *names) for n, names in enumerate(names_of_records)])


def names(payload: bytes) -> str:
    return "".join(
        span.name
        for resource in ExportTraceServiceRequest.FromString(payload).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )


class Case:
    """A delivery to a scripted backend whose answers depend on the names of the spans."""

    def __init__(self) -> None:
        self.backend = ScriptedBackend()
        self.metrics = Metrics()
        self.dead_letters = DeadLetterBox()
        self.delivery = Delivery(
            self.backend, self.dead_letters, self.metrics, timeout_s=7.0, backoff=Backoff(0.0, 0.0)
        )

    def script(self, *outcomes: Outcome) -> None:
        """These answers in turn, and the last one from then on."""
        rest = list(outcomes)
        self.backend.answer = lambda _: rest.pop(0) if len(rest) > 1 else rest[0]

    def refuse(self, letters: str, outcome: Outcome = REFUSED) -> None:
        """Answer so to every payload with one of these spans."""

        def answer(attempt: Attempt) -> Outcome:
            return outcome if set(names(attempt.payload)) & set(letters) else OK

        self.backend.answer = answer

    def poison(self, letters: str) -> None:
        """A payload with one of these kills the backend, and with it all that is under way."""

        def answer(attempt: Attempt) -> Outcome:
            if not set(names(attempt.payload)) & set(letters):
                return OK
            self.backend.generation += 1  # what had been answered is kept, for the test to look at
            return BROKEN

        self.backend.answer = answer

    @property
    def taken(self) -> str:
        return "".join(names(attempt.payload) for attempt in self.backend.disk)

    @property
    def given_up(self) -> list[tuple[str, str]]:
        """Names and reason of each dead letter."""
        return [(names(payload), reason) for _, payload, _, reason in self.dead_letters.letters]

    async def settle(self, *names_of_records: str) -> Tally:
        async with asyncio.timeout(20):
            return await self.settle_batch(batch(*names_of_records))

    async def settle_batch(self, what: Batch) -> Tally:
        return await self.delivery.settle(what, lambda: self.backend.generation)


@pytest.fixture
def case():
    return Case()


# -- the answer of one attempt ---------------------------------------------------------------------


async def test_what_the_backend_takes_is_delivered_at_the_first_attempt(case):
    tally = await case.settle("abc", "d")
    assert (tally.delivered, tally.dropped) == (4, {})
    (attempt,) = case.backend.attempts
    assert names(attempt.payload) == "abcd"
    assert (attempt.tenant, attempt.timeout_s) == ("shop", 7.0)


async def test_a_partial_success_is_final_and_counted(case, caplog):
    case.script(OK._replace(rejected_spans=3, message="too old"))
    tally = await case.settle("abc", "de")
    assert (tally.delivered, tally.dropped) == (2, {"backend_rejected": 3})
    assert len(case.backend.attempts) == 1
    (event,) = [r.facts for r in caplog.records if r.getMessage() == "spans dropped"]
    assert (event["reason"], event["spans"], event["error"]) == ("backend_rejected", 3, "too old")


@pytest.mark.parametrize(("told", "counted"), [(10**12, 3), (-5, 0)])
async def test_a_partial_success_that_cannot_be_leaves_the_books_right(case, told, counted):
    case.script(OK._replace(rejected_spans=told))
    tally = await case.settle("abc")
    assert tally.delivered == 3 - counted
    assert sum(tally.dropped.values()) == counted


async def test_what_may_succeed_later_is_tried_until_it_does(case):
    case.script(*[AWAY] * 200, OK)
    tally = await case.settle("abc")
    assert (tally.delivered, tally.dropped) == (3, {})
    assert len({attempt.payload for attempt in case.backend.attempts}) == 1
    assert case.metrics.export_requests.series("UNAVAILABLE").value == 200
    assert case.metrics.export_requests.series("OK").value == 1
    assert sum(case.metrics.batch_spans.series().counts) == 201


@pytest.mark.parametrize("error", [RuntimeError("boom"), asyncio.CancelledError()], ids=repr)
async def test_an_exporter_that_raises_is_tried_again(case, error, caplog):
    """It promised not to; a channel of grpcio that is closed under a call cancels its caller."""
    errors = iter([error] * 3)

    def answer(_: Attempt) -> Outcome:
        for once in errors:
            raise once
        return OK

    case.backend.answer = answer
    tally = await case.settle("abc")
    assert (tally.delivered, tally.dropped) == (3, {})
    assert len(case.backend.attempts) == 4
    (event,) = [r for r in caplog.records if r.exc_info]
    assert event.exc_info[1] is error


async def test_the_last_error_is_told_until_a_delivery_succeeds(case):
    case.script(AWAY._replace(retry_after_s=3600), OK)
    tasks = Tasks("test")
    tasks.spawn(case.settle("a"), "settle")
    await until(lambda: case.delivery.last_error)
    assert case.delivery.last_error == "UNAVAILABLE: connection refused"
    case.delivery.nudge()
    await until(lambda: not len(tasks))
    assert case.delivery.last_error is None


async def test_failures_are_logged_once_in_a_while_and_recovery_is_told(case, caplog):
    caplog.set_level(logging.INFO)
    case.script(*[AWAY] * 50, OK)
    await case.settle("abc")
    assert [r.getMessage() for r in caplog.records] == ["delivery failed", "delivery recovered"]
    assert caplog.records[0].facts["code"] == "UNAVAILABLE"


# -- delays ----------------------------------------------------------------------------------------


async def turns_of_the_loop(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


async def test_the_delay_that_the_backend_asks_for_is_kept_and_a_nudge_ends_it(case):
    case.script(AWAY._replace(retry_after_s=3600), OK)
    tasks = Tasks("test")
    tasks.spawn(case.settle("abc"), "settle")
    await until(lambda: case.backend.attempts)
    await turns_of_the_loop()
    assert len(case.backend.attempts) == 1
    case.delivery.nudge()
    await until(lambda: not len(tasks))
    assert len(case.backend.attempts) == 2


async def test_a_nudge_reaches_all_who_wait_and_nobody_who_comes_later(case):
    case.script(AWAY._replace(retry_after_s=3600))
    tasks = Tasks("test")
    for _ in range(3):
        tasks.spawn(case.settle("abc"), "settle")
    await until(lambda: len(case.backend.attempts) == 3)
    await turns_of_the_loop()
    case.delivery.nudge()
    await until(lambda: len(case.backend.attempts) == 6)
    await turns_of_the_loop()
    assert len(case.backend.attempts) == 6
    await tasks.stop()


async def test_a_nudge_does_not_swallow_a_cancellation(case):
    case.script(AWAY._replace(retry_after_s=3600))
    task = asyncio.get_running_loop().create_task(case.settle_batch(batch("abc")))
    await until(lambda: case.backend.attempts)
    await turns_of_the_loop()
    case.delivery.nudge()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        async with asyncio.timeout(2):
            await asyncio.wait([task])
    ended = task.cancelled()
    task.cancel()
    await asyncio.wait([task])
    assert ended


# -- refused for good: halving ---------------------------------------------------------------------


async def test_one_bad_record_among_many_is_found_and_the_others_are_delivered(case, caplog):
    good = "abcdefghijklmnopqrstuvwxyz012345"
    case.refuse("!")
    tally = await case.settle(*good, "!", *good[:31])
    assert (tally.delivered, tally.dropped) == (63, {"refused": 1})
    assert case.taken == good + good[:31]
    assert case.given_up == [("!", "INVALID_ARGUMENT: bad data")]
    assert len(case.backend.attempts) == 1 + 2 * math.log2(64)
    (event,) = [r.facts for r in caplog.records if r.getMessage() == "spans dropped"]
    assert len(event["trace_ids"]) == 32


async def test_one_bad_span_within_a_record_is_found_and_the_others_are_delivered(case):
    case.refuse("!")
    tally = await case.settle("ab", "cdefg!hijk", "lm")
    assert (tally.delivered, tally.dropped) == (13, {"refused": 1})
    assert case.taken == "abcdefghijklm"
    assert case.given_up == [("!", "INVALID_ARGUMENT: bad data")]


async def test_when_all_are_bad_each_is_given_up_once_and_the_log_is_not_flooded(case, caplog):
    case.refuse("abcdefgh")
    tally = await case.settle("ab", "cdef", "g", "h")
    assert (tally.delivered, tally.dropped) == (0, {"refused": 8})
    assert "".join(letter for letter, _ in case.given_up) == "abcdefgh"
    assert len([r for r in caplog.records if r.getMessage() == "spans dropped"]) == 1


@pytest.mark.parametrize(
    "payload",
    [record(1, "a").envelope.payload, b"\xff\xff", b""],
    ids=["one_span_only", "no_request", "nothing"],
)
async def test_a_payload_that_cannot_be_cut_is_given_up_whole(case, payload):
    """Whatever an envelope says of the spans in it."""
    case.script(REFUSED)
    tally = await case.settle_batch(batch_of([Record(1, Envelope("shop", payload, 5, 0.0))]))
    assert tally.dropped == {"refused": 5}
    assert len(case.backend.attempts) == 1


async def test_what_is_too_large_is_cut_until_it_fits(case):
    case.backend.answer = lambda a: OK if len(names(a.payload)) <= 3 else TOO_LARGE
    tally = await case.settle("abcdefghijklmnop", "qrs", "t")
    assert (tally.delivered, tally.dropped) == (20, {})
    assert case.taken == "abcdefghijklmnopqrst"


async def test_a_single_span_that_is_too_large_is_given_up_and_no_other(case):
    case.refuse("!", TOO_LARGE)
    tally = await case.settle("abc!", "d")
    assert (tally.delivered, tally.dropped) == (4, {"too_large": 1})
    assert case.given_up == [("!", "RESOURCE_EXHAUSTED: too large")]


async def test_halves_are_retried_too_when_the_backend_goes_away_meanwhile(case):
    answers = iter([REFUSED, *[AWAY] * 10, OK, *[AWAY] * 10, OK])
    case.backend.answer = lambda _: next(answers)
    tally = await case.settle("a", "b")
    assert (tally.delivered, tally.dropped) == (2, {})


# -- what breaks the backend -----------------------------------------------------------------------


async def test_a_payload_that_kills_the_backend_is_isolated_and_the_innocent_survive(case):
    """Four at once, as the pipeline delivers; the poison breaks the connections of all."""
    case.poison("!")
    async with asyncio.timeout(20):
        tallies = await asyncio.gather(
            *(case.settle_batch(batch(*records)) for records in ("ab!c", "defg", "hijk", "lmno"))
        )
    assert set(case.taken) == set("abcdefghijklmno")
    assert [name for name, _ in case.given_up] == ["!"]
    assert [tally.delivered for tally in tallies] == [3, 4, 4, 4]
    assert tallies[0].dropped == {"refused": 1}


async def test_what_killed_the_backend_comes_no_more_when_its_companions_are_sent_again(case):
    """And its halves are suspects at once, so that it costs as few lives as can be."""
    deaths = []

    def answer(attempt: Attempt) -> Outcome:
        if "!" not in names(attempt.payload):
            return OK
        deaths.append(names(attempt.payload))
        case.backend.die()
        return BROKEN

    case.backend.answer = answer
    tally = await case.settle("abc!", "def")
    assert (tally.delivered, tally.dropped) == (6, {"refused": 1})
    assert tally.generation == case.backend.generation
    assert [name for name, _ in case.given_up] == ["!"]
    assert deaths == ["abc!def"] * 2 * SUSPECT_AFTER + [
        there for there in ("abc!", "c!", "!") for _ in range(SUSPECT_AFTER)
    ]


async def test_what_a_backend_took_that_died_meanwhile_is_sent_again_and_counted_once(case):
    deaths = iter([case.backend.die])

    def answer(attempt: Attempt) -> Outcome:
        there = names(attempt.payload)
        if len(there) > 2:
            return TOO_LARGE
        if there == "b#":
            for die in deaths:
                die()
                return BROKEN
        return OK._replace(rejected_spans=there.count("#"))

    case.backend._flush_s = 1.0
    case.backend.answer = answer
    tally = await case.settle("a#", "b#", "!")
    assert (tally.delivered, tally.dropped) == (3, {"backend_rejected": 2})
    case.backend.live(1.0)
    assert set(case.taken) == set("ab#!")


async def test_a_suspect_is_delivered_alone(case):
    """So that a connection that breaks then proves something."""
    beside: list[int] = []

    def answer(attempt: Attempt) -> Outcome:
        if "!" not in names(attempt.payload):
            return OK
        beside.append(case.backend.under_way)  # less itself
        return BROKEN

    case.backend.answer = answer
    tasks = Tasks("test")
    tasks.spawn(case.settle("!"), "suspect")

    async def traffic() -> None:
        while True:
            await case.settle("a")

    for _ in range(3):
        tasks.spawn(traffic(), "traffic")
    await until(lambda: case.dead_letters.letters)
    await tasks.stop()
    assert len(beside) == 2 * SUSPECT_AFTER
    assert any(beside[:SUSPECT_AFTER])
    assert not any(beside[SUSPECT_AFTER:])


async def test_a_backend_that_dies_now_and_then_costs_nothing(case):
    script = [BROKEN, *[AWAY] * 20] * (2 * SUSPECT_AFTER - 1)
    case.script(*script, OK)
    tally = await case.settle("abc")
    assert (tally.delivered, tally.dropped) == (3, {})
    assert len({attempt.payload for attempt in case.backend.attempts}) == 1


async def test_unknown_for_ever_is_blamed_on_the_data(case):
    case.refuse("!", UNCLEAR)
    tally = await case.settle("a", "!")
    assert (tally.delivered, tally.dropped) == (1, {"refused": 1})
    assert case.metrics.export_requests.series("UNKNOWN").value == 2 * UNCLEAR_ATTEMPTS
    ((_, reason),) = case.given_up
    assert reason == "UNKNOWN: fails each time it is delivered, last: something is wrong"


async def test_unknown_for_a_while_is_not(case):
    case.script(*[UNCLEAR] * (UNCLEAR_ATTEMPTS - 1), OK)
    assert (await case.settle("abc")).delivered == 3


async def test_unknown_between_other_answers_is_not_blamed_on_the_data(case):
    """A backend that is stopped and started many times says UNKNOWN each time it stops."""
    case.script(*[*[UNCLEAR] * (UNCLEAR_ATTEMPTS - 1), AWAY] * 5, OK)
    assert (await case.settle("abc")).delivered == 3


# -- cancellation ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def in_export(case: Case):
    case.backend.gate.clear()
    await until(lambda: case.backend.under_way)
    yield


@contextlib.asynccontextmanager
async def in_a_delay(case: Case):
    case.script(AWAY._replace(retry_after_s=3600))
    await until(lambda: case.backend.attempts)
    await turns_of_the_loop(5)
    yield


@contextlib.asynccontextmanager
async def while_it_waits_to_be_alone(case: Case):
    case.script(BROKEN)
    async with case.delivery._turns.shared():
        await until(lambda: len(case.backend.attempts) == SUSPECT_AFTER)
        await turns_of_the_loop(5)
        yield


@contextlib.asynccontextmanager
async def while_it_gives_up(case: Case):
    case.script(REFUSED)
    case.dead_letters.gate.clear()
    await until(lambda: case.backend.attempts)
    await turns_of_the_loop(5)
    yield


@pytest.mark.parametrize(
    "phase", [in_export, in_a_delay, while_it_waits_to_be_alone, while_it_gives_up]
)
async def test_a_cancelled_delivery_leaves_nothing_behind(case, phase):
    task = asyncio.get_running_loop().create_task(case.settle_batch(batch("a")))
    async with phase(case):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert case.dead_letters.letters == []
    assert case.backend.under_way == 0
    case.backend.gate.set()
    case.script(OK)
    async with case.delivery._turns.alone():
        pass
    assert (await case.settle("abc")).delivered == 3


# -- the sum ---------------------------------------------------------------------------------------

LETTERS = st.text("abcdef!?#", min_size=1, max_size=7)


@settings(max_examples=60)
@given(
    st.lists(LETTERS, min_size=1, max_size=8),
    st.integers(1, 20),
    st.lists(st.sampled_from([AWAY, UNCLEAR, BROKEN]), max_size=5),
)
def test_whatever_happens_each_span_is_delivered_or_given_up_once(records, most, hiccups):
    """``!`` is refused, ``?`` kills, ``#`` is refused in a partial success, and more than ``most``
    spans are too large.
    """
    case = Case()
    rest = list(hiccups)

    def answer(attempt: Attempt) -> Outcome:
        there = names(attempt.payload)
        if rest:
            return rest.pop()
        if "?" in there:
            return BROKEN
        if "!" in there:
            return REFUSED
        if len(there) > most:
            return TOO_LARGE
        return OK._replace(rejected_spans=there.count("#"))

    case.backend.answer = answer
    tally = asyncio.run(case.settle(*records))
    everything = "".join(records)
    assert tally.delivered + sum(tally.dropped.values()) == len(everything)
    assert tally.dropped.get("refused", 0) == everything.count("!") + everything.count("?")
    assert tally.dropped.get("backend_rejected", 0) == everything.count("#")
    assert "too_large" not in tally.dropped
    good = [letter for letter in everything if letter not in "!?"]
    assert list(case.taken) == good
    dead = "".join(name for name, _ in case.given_up)
    assert dead == "".join(letter for letter in everything if letter in "!?")
