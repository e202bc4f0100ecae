from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.access.budget import MemoryBudget
from gateway.envelope import Envelope
from gateway.pipeline.backlog import RECORD_OVERHEAD, Backlog, footprint
from gateway.pipeline.records import Record


def record(sequence: int, size: int = 100, spans: int = 1) -> Record:
    return Record(sequence, Envelope("", b"x" * size, spans, 0.0))


def room_for(records: int, size: int = 100) -> MemoryBudget:
    return MemoryBudget(records * (size + RECORD_OVERHEAD))


def sequences(backlog: Backlog) -> list[int]:
    return [r.sequence for r in backlog.records]


def test_what_is_added_is_taken_in_order_and_its_memory_is_held_until_done():
    budget = room_for(3)
    backlog = Backlog(budget)
    for sequence in (1, 2, 3):
        backlog.add(record(sequence, spans=2))
    assert (backlog.size, backlog.spans) == (300, 6)
    taken = [backlog.take(), backlog.take()]
    assert [r.sequence for r in taken] == [1, 2]
    assert (backlog.size, backlog.spans) == (100, 2)
    assert budget.used == budget.limit
    backlog.done(taken)
    assert budget.used == footprint(record(3).envelope)


def test_from_the_first_that_finds_no_room_all_are_on_disk_only():
    backlog = Backlog(room_for(2))
    for sequence in (1, 2, 3):
        backlog.add(record(sequence))
    backlog.add(record(4, size=0))
    assert sequences(backlog) == [1, 2]
    assert backlog.behind == 3
    assert not backlog.idle


def test_room_that_comes_free_is_not_for_records_newer_than_those_on_disk():
    backlog = Backlog(room_for(1))
    for sequence in (1, 2):
        backlog.add(record(sequence))
    backlog.done([backlog.take()])
    backlog.add(record(3))
    assert sequences(backlog) == []
    backlog.refill([record(2)], seen=3)
    assert sequences(backlog) == [2]


def test_a_record_larger_than_the_budget_goes_alone():
    budget = MemoryBudget(1000)
    backlog = Backlog(budget)
    backlog.add(record(1, size=5000))
    backlog.add(record(2, size=1))
    assert sequences(backlog) == [1]
    backlog.done([backlog.take()])
    backlog.refill([record(2, size=5000)], seen=2)
    assert sequences(backlog) == [2]


def test_reading_back_ends_with_the_newest():
    backlog = Backlog(room_for(2))
    for sequence in range(1, 6):
        backlog.add(record(sequence))
    for _ in (1, 2):
        backlog.done([backlog.take()])
    backlog.refill([record(3), record(4), record(5)], seen=5)
    assert (sequences(backlog), backlog.behind) == ([3, 4], 5)
    backlog.done([backlog.take(), backlog.take()])
    backlog.refill([record(5)], seen=5)
    assert (sequences(backlog), backlog.behind) == ([5], None)
    backlog.add(record(6))
    assert sequences(backlog) == [5, 6]


def test_what_is_added_while_a_read_is_under_way_is_read_next():
    backlog = Backlog(room_for(1))
    for sequence in (1, 2):
        backlog.add(record(sequence))
    backlog.done([backlog.take()])
    backlog.add(record(3))  # the read was begun when 2 was the newest
    backlog.refill([record(2)], seen=2)
    assert backlog.behind == 3


def test_an_empty_read_means_that_nothing_up_to_the_newest_of_then_is_left():
    backlog = Backlog(room_for(1))
    for sequence in (1, 2, 3):
        backlog.add(record(sequence))
    backlog.done([backlog.take()])
    backlog.add(record(4))
    backlog.refill([], seen=3)
    assert backlog.behind == 4
    backlog.refill([], seen=4)
    assert backlog.idle


def test_what_was_recovered_is_read_to_its_end_though_that_is_not_known():
    backlog = Backlog(room_for(10))
    backlog.recovered()
    assert not backlog.idle
    backlog.refill([record(7), record(8)], seen=0)
    assert backlog.behind == 9
    backlog.refill([], seen=0)
    assert (sequences(backlog), backlog.behind) == ([7, 8], None)


def test_what_comes_in_while_the_recovered_is_read_waits_its_turn():
    backlog = Backlog(room_for(10))
    backlog.recovered()
    backlog.add(record(9))
    backlog.refill([record(7), record(8)], seen=9)
    backlog.refill([record(9)], seen=9)
    backlog.add(record(10))
    assert (sequences(backlog), backlog.behind) == ([7, 8, 9, 10], None)


def test_what_comes_in_during_the_last_read_of_the_recovered_does_not_begin_it_anew():
    backlog = Backlog(room_for(10))
    backlog.recovered()
    backlog.refill([record(7), record(8)], seen=0)
    backlog.add(record(9))  # the read was begun when there was no newest
    backlog.refill([], seen=0)
    assert backlog.behind == 9


class BacklogMachine(RuleBasedStateMachine):
    """Against a disk that holds all records: whatever is added, taken and read back in whatever
    steps, each comes out once, in order, and memory stays within the budget.
    """

    def __init__(self) -> None:
        super().__init__()
        self.budget = MemoryBudget(4 * (100 + RECORD_OVERHEAD))
        self.backlog = Backlog(self.budget)
        self.sequence = count(1)
        self.disk: list[Record] = []
        self.lost: set[int] = set()
        self.taken: list[Record] = []
        self.out: list[int] = []
        self.read: tuple[int, list[Record]] | None = None

    @rule(size=st.integers(0, 3000))
    def add(self, size: int) -> None:
        new = record(next(self.sequence), size)
        self.disk.append(new)
        self.backlog.add(new)

    @precondition(lambda self: self.backlog.records)
    @rule(most=st.integers(1, 5))
    def take(self, most: int) -> None:
        for _ in range(min(most, len(self.backlog.records))):
            taken = self.backlog.take()
            self.taken.append(taken)
            self.out.append(taken.sequence)

    @precondition(lambda self: self.taken)
    @rule()
    def done(self) -> None:
        self.backlog.done(self.taken)
        self.taken = []

    @precondition(lambda self: self.backlog.behind is not None and not self.read)
    @rule(most=st.integers(1, 4))
    def begin_read(self, most: int) -> None:
        behind = self.backlog.behind or 0
        left = [r for r in self.disk if r.sequence >= behind and r.sequence not in self.lost]
        self.read = self.backlog.newest, left[:most]

    @precondition(lambda self: self.read)
    @rule()
    def end_read(self) -> None:
        assert self.read is not None
        seen, records = self.read
        self.backlog.refill(records, seen=seen)
        self.read = None

    @precondition(lambda self: self.backlog.behind is not None and not self.read)
    @rule(ahead=st.integers(0, 3))
    def damage(self, ahead: int) -> None:
        """A record that is on disk only is lost there."""
        self.lost.add((self.backlog.behind or 0) + ahead)

    @invariant()
    def memory_is_within_the_budget(self) -> None:
        held = [*self.taken, *self.backlog.records]
        assert self.budget.used == sum(footprint(r.envelope) for r in held)
        assert self.budget.used <= self.budget.limit or len(held) == 1
        assert self.backlog.size == sum(len(r.envelope.payload) for r in self.backlog.records)
        assert self.backlog.spans == len(self.backlog.records)

    def teardown(self) -> None:
        while not self.backlog.idle:
            if self.read:
                self.end_read()
            self.done()
            if self.backlog.records:
                self.take(5)
            else:
                self.begin_read(2)
        gone = {s for s in self.lost if s not in self.out}
        assert self.out == [r.sequence for r in self.disk if r.sequence not in gone]


TestBacklogMachine = BacklogMachine.TestCase
TestBacklogMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
