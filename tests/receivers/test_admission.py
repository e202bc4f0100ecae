"""How a request's memory is held."""

from __future__ import annotations

import pytest

from gateway.access.budget import MemoryBudget
from gateway.errors import Cause, Refused
from gateway.receivers.admission import Reservation


@pytest.fixture
def budget():
    return MemoryBudget(1000)


def test_holds_what_it_grew_to_and_releases_it_once(budget):
    held = Reservation(budget)
    held.grow(100)
    held.grow(60)
    assert budget.used == 100
    held.grow(300)
    assert budget.used == 300
    held.shrink(200)
    held.shrink(250)
    assert budget.used == 200
    held.release()
    held.release()
    assert budget.used == 0


def test_refuses_to_grow_past_the_budget_and_keeps_what_it_held(budget):
    budget.try_reserve(800)
    held = Reservation(budget)
    held.grow(150)
    with pytest.raises(Refused, match="GATEWAY_MEMORY_BYTES") as caught:
        held.grow(201)
    assert caught.value.cause is Cause.MEMORY_FULL
    assert caught.value.retry_after_s is not None
    assert budget.used == 950
    held.release()
    assert budget.used == 800


def test_tells_apart_what_can_never_fit(budget):
    held = Reservation(budget)
    held.check_possible(1000)
    with pytest.raises(Refused, match=r"1001 bytes.*1000.*GATEWAY_MEMORY_BYTES") as caught:
        held.check_possible(1001)
    assert caught.value.cause is Cause.TOO_LARGE
    assert caught.value.retry_after_s is None
