"""How much a Tempo may have in memory at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.tempo.window import Window

LIFE = {"generation": 1, "alive_s": 0.0}


def test_an_empty_memory_takes_whatever_comes():
    assert Window(10, 1.0).has_room(1000, **LIFE)


def test_what_is_under_way_counts():
    window = Window(10, 1.0)
    assert window.has_room(6, **LIFE)
    window.take(6)
    assert window.has_room(4, **LIFE)
    assert not window.has_room(5, **LIFE)


def test_what_is_delivered_counts_until_it_is_on_disk():
    window = Window(10, 5.0)
    window.has_room(10, **LIFE)
    window.settle(10, window.take(10), alive_s=2.0, delivered=True)
    assert not window.has_room(1, generation=1, alive_s=6.9)
    assert window.has_room(10, generation=1, alive_s=7.0)


def test_what_failed_is_forgotten():
    window = Window(10, 5.0)
    window.has_room(10, **LIFE)
    window.settle(10, window.take(10), alive_s=0.0, delivered=False)
    assert window.has_room(10, **LIFE)


def test_a_delivery_of_an_earlier_life_does_not_count_in_this_one():
    window = Window(10, 5.0)
    window.has_room(10, **LIFE)
    old = window.take(10)
    assert window.has_room(10, generation=2, alive_s=1.0)
    window.settle(10, old, alive_s=1.0, delivered=True)
    assert window.used == 0


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.floats(0, 3)), max_size=60))
def test_the_books_balance(deliveries):
    window, now = Window(50, 4.0), 0.0
    for size, delivered, pause_s in deliveries:
        if window.has_room(size, generation=1, alive_s=now):
            generation = window.take(size)
            assert window.used <= max(50, size)
            window.settle(size, generation, alive_s=now, delivered=delivered)
        now += pause_s
    assert window.has_room(1, generation=1, alive_s=now + 4.0)
    assert window.used == 0
