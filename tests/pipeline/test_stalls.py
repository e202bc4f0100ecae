from __future__ import annotations

import random
import time

from gateway.pipeline.stalls import SLOW_S, Stalls, times_waited


class Machine:
    """Time, and how often the writer has waited, as a test tells it."""

    def __init__(self) -> None:
        self.now = 10.0
        self.waits = 0
        self.stalls = Stalls(lambda: self.now, lambda: self.waits)

    def write(self, seconds: float, *, waits: int = 1) -> None:
        self.stalls.write_begins()
        self.now += seconds
        self.waits += waits
        self.stalls.write_ended()


def test_quick_writes_need_no_rest():
    machine = Machine()
    machine.write(SLOW_S / 2)
    assert not machine.stalls.resting


def test_a_slow_write_is_followed_by_a_rest_a_hundred_times_as_long():
    machine = Machine()
    machine.write(0.5)
    machine.now += 49.9
    assert machine.stalls.resting
    machine.now += 0.2
    assert not machine.stalls.resting


def test_a_write_that_only_lacked_a_processor_needs_no_rest():
    machine = Machine()
    machine.write(0.5, waits=0)
    assert not machine.stalls.resting


def test_a_disk_that_stalls_every_write_takes_a_hundredth_of_the_time():
    machine, chance, stalled = Machine(), random.Random(7), 0.0
    began = machine.now
    while machine.now < began + 10_000:
        if machine.stalls.resting:
            machine.now += 0.1
            continue
        took = chance.uniform(SLOW_S, 3.0)
        machine.write(took)
        stalled += took
    assert 0.009 < stalled / (machine.now - began) < 0.0101


def test_waiting_is_seen():
    before = times_waited()
    time.sleep(0.001)
    assert times_waited() > before
