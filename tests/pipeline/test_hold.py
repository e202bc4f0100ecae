from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline.delivery import Tally
from gateway.pipeline.hold import Held, Hold


def held(number: int, *, generation: int = 1, due: float = 0.0) -> Held:
    return Held([number], Tally(), generation, due)


def numbers(entries: list[Held]) -> list[int]:
    return [sequence for entry in entries for sequence in entry.sequences]


def test_what_is_due_on_the_backends_clock_is_certain_once():
    hold = Hold()
    hold.add(held(1, due=10.0))
    hold.add(held(2, due=11.0))
    assert hold.certain(1, 9.9) == []
    assert numbers(hold.certain(1, 10.0)) == [1]
    assert hold.certain(1, 10.0) == []
    assert numbers(hold.certain(1, 99.0)) == [2]
    assert len(hold) == 0


def test_while_the_backends_clock_stands_still_nothing_becomes_certain():
    hold = Hold()
    hold.add(held(1, due=10.0))
    assert [hold.certain(1, 9.9) for _ in range(1000)] == [[]] * 1000
    assert len(hold) == 1


def test_what_an_earlier_life_took_is_lost_and_never_certain():
    hold = Hold()
    hold.add(held(1, due=1.0))
    hold.add(held(2, generation=2, due=1.0))
    assert hold.certain(2, 99.0) == []
    assert numbers(hold.lost(2)) == [1]
    assert hold.lost(2) == []
    assert numbers(hold.certain(2, 99.0)) == [2]


def test_a_delivery_noted_after_the_backend_died_is_lost_too():
    hold = Hold()
    hold.add(held(2, generation=2))
    hold.add(held(1, generation=1))
    assert numbers(hold.lost(2)) == [1]
    assert numbers(hold.certain(2, 0.0)) == [2]


def test_all_empties_it():
    hold = Hold()
    hold.add(held(1))
    hold.add(held(2, generation=2))
    assert numbers(hold.all()) == [1, 2]
    assert len(hold) == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.floats(0, 5)),
        st.tuples(st.just("live"), st.floats(0, 5)),
        st.tuples(st.just("die"), st.just(0.0)),
    ),
    max_size=50,
)


@given(STEPS)
def test_each_delivery_is_either_certain_or_lost_exactly_once(steps):
    """And certain only after the backend has lived for the hold time since."""
    hold, generation, alive_s, delivered, hold_s = Hold(), 1, 0.0, [], 3.0
    certain: dict[int, float] = {}
    lost: list[int] = []
    for kind, seconds in steps:
        if kind == "die":
            generation, alive_s = generation + 1, 0.0
        alive_s += seconds
        lost += numbers(hold.lost(generation))
        for entry in hold.certain(generation, alive_s):
            certain[entry.sequences[0]] = alive_s
        if kind == "deliver":
            delivered.append((alive_s, generation))
            hold.add(held(len(delivered) - 1, generation=generation, due=alive_s + hold_s))
    rest = numbers(hold.all())
    assert sorted([*certain, *lost, *rest]) == list(range(len(delivered)))
    for number, when in certain.items():
        assert when >= delivered[number][0] + hold_s
    assert all(delivered[number][1] == generation for number in rest)
