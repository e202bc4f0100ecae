from __future__ import annotations

import random

from gateway.pipeline.stalls import SLOW_S, Stalls


def test_quick_writes_need_no_rest():
    stalls = Stalls()
    stalls.wrote(10.0, 10.0 + SLOW_S / 2)
    assert not stalls.resting(10.0 + SLOW_S / 2)


def test_a_slow_write_is_followed_by_a_rest_a_hundred_times_as_long():
    stalls = Stalls()
    stalls.wrote(10.0, 10.5)
    assert stalls.resting(10.5)
    assert stalls.resting(60.4)
    assert not stalls.resting(60.6)


def test_a_disk_that_stalls_every_write_takes_a_hundredth_of_the_time():
    stalls, chance = Stalls(), random.Random(7)
    now = stalled = 0.0
    while now < 10_000:
        if stalls.resting(now):
            now += 0.01
            continue
        took = chance.uniform(SLOW_S, 3.0)
        stalls.wrote(now, now + took)
        stalled += took
        now += took
    assert 0.009 < stalled / now < 0.0101
