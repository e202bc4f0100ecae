"""Several endpoints as one exporter."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from gateway.envelope import Fate, Outcome
from gateway.tempo.balance import FIRST_REST_S, MOST_REST_S, BalancedExporter

OK = Outcome(Fate.DELIVERED)
AWAY = Outcome(Fate.RETRY, "UNAVAILABLE", "refused", 30.0)
SLOW = Outcome(Fate.RETRY, "DEADLINE_EXCEEDED", "no answer", 30.0)


class Endpoint:
    def __init__(self) -> None:
        self.outcome = OK
        self.calls = 0
        self.closed = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        self.calls += 1
        await self.gate.wait()
        return self.outcome

    async def close(self) -> None:
        self.closed = True


class Bench:
    def __init__(self, count: int) -> None:
        self.now = 0.0
        self.endpoints = [Endpoint() for _ in range(count)]
        named = {str(place): endpoint for place, endpoint in enumerate(self.endpoints)}
        self.exporter = BalancedExporter(named, lambda: self.now)

    async def export(self, times: int = 1) -> list[Outcome]:
        return [await self.exporter.export("a", b"x", timeout_s=1.0) for _ in range(times)]

    @property
    def calls(self) -> list[int]:
        return [endpoint.calls for endpoint in self.endpoints]


@pytest.fixture
def bench():
    return Bench(3)


async def test_each_has_its_turn(bench):
    assert await bench.export(9) == [OK] * 9
    assert bench.calls == [3, 3, 3]


async def test_the_share_of_one_that_rests_is_spread_evenly(bench):
    bench.endpoints[0].outcome = AWAY
    await bench.export(9)
    assert bench.calls[0] == 1
    assert abs(bench.calls[1] - bench.calls[2]) <= 1


async def test_one_that_is_away_rests_and_comes_back(bench):
    bench.endpoints[1].outcome = AWAY
    await bench.export(9)
    assert bench.calls[1] == 1
    bench.endpoints[1].outcome = OK
    bench.now = FIRST_REST_S
    await bench.export(9)
    assert bench.calls[1] == 4


async def test_what_one_has_not_got_the_next_gets_at_once(bench):
    bench.endpoints[0].outcome = bench.endpoints[1].outcome = AWAY
    assert await bench.export() == [OK]
    assert bench.calls == [1, 1, 1]


async def test_not_what_it_may_have_got(bench):
    bench.endpoints[0].outcome = AWAY._replace(lost_connection=True)
    assert (await bench.export())[0].lost_connection
    assert bench.calls == [1, 0, 0]


async def test_an_endpoint_that_goes_answers_first_what_is_in_hand(bench):
    leaving = bench.endpoints[0]
    leaving.gate.clear()
    task = asyncio.get_running_loop().create_task(bench.export())
    await asyncio.sleep(0)
    await bench.exporter.remove("0")
    assert not leaving.closed
    leaving.gate.set()
    assert await task == [OK]
    assert leaving.closed
    await bench.export(4)
    assert bench.calls == [1, 2, 2]


async def test_one_that_comes_gets_its_share(bench):
    await bench.exporter.remove("0")
    assert bench.endpoints[0].closed
    bench.exporter.add("3", extra := Endpoint())
    await bench.export(9)
    assert (bench.calls, extra.calls) == ([0, 3, 3], 3)


async def test_a_failure_with_others_left_is_retried_at_once(bench):
    bench.endpoints[0].outcome = SLOW
    (first, second) = await bench.export(2)
    assert (first.fate, first.retry_after_s) == (Fate.RETRY, None)
    assert second is OK


async def test_with_all_away_the_one_that_rests_shortest_is_asked_and_its_delay_counts(bench):
    for endpoint in bench.endpoints:
        endpoint.outcome = AWAY
    assert (await bench.export())[0].retry_after_s == AWAY.retry_after_s
    assert bench.calls == [1, 1, 1]
    bench.endpoints[2].outcome = OK
    outcomes = []
    for _ in range(3):
        bench.now += 0.01
        outcomes += await bench.export()
    assert outcomes[-1] is OK
    assert bench.calls == [2, 2, 2]


async def test_rests_double_up_to_the_longest(bench):
    bench = Bench(2)
    bench.endpoints[0].outcome = AWAY
    calls_by_time = Counter()
    for second in range(200):
        bench.now = float(second)
        before = bench.calls[0]
        await bench.export(2)
        calls_by_time[second // 100] += bench.calls[0] - before
    assert 4 <= calls_by_time[0] <= 8
    assert 2 <= calls_by_time[1] <= 100 / MOST_REST_S + 1


async def test_failures_of_one_moment_count_as_one(bench):
    failing = bench.endpoints[0]
    failing.outcome = SLOW
    failing.gate.clear()
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(bench.export()) for _ in range(9)]
    await asyncio.sleep(0)
    failing.gate.set()
    await asyncio.gather(*tasks)
    assert failing.calls == 3
    bench.now = FIRST_REST_S
    await bench.export(3)
    assert failing.calls == 4


@pytest.mark.parametrize(
    ("outcome", "rests"),
    [
        (AWAY, True),
        (Outcome(Fate.RETRY, "DEADLINE_EXCEEDED"), True),
        (Outcome(Fate.RETRY, "UNAUTHENTICATED"), True),
        (Outcome(Fate.RETRY, "HTTP 503"), True),
        (Outcome(Fate.RETRY, "RESOURCE_EXHAUSTED"), False),
        (Outcome(Fate.REFUSED, "INVALID_ARGUMENT"), False),
        (Outcome(Fate.SPLIT, "RESOURCE_EXHAUSTED"), False),
    ],
)
async def test_only_what_speaks_of_the_endpoint_makes_it_rest(outcome, rests):
    bench = Bench(2)
    bench.endpoints[0].outcome = outcome
    await bench.export()
    rested = bench.endpoints[1].calls
    await bench.export(3)
    assert (bench.calls[0] == 1) is rests
    assert bench.calls[1] - rested == (3 if rests else 2)


async def test_close_closes_all(bench):
    await bench.exporter.close()
    assert all(endpoint.closed for endpoint in bench.endpoints)
