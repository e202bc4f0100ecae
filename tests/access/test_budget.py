from __future__ import annotations

import pytest

from gateway.access.budget import MemoryBudget


def test_what_does_not_fit_is_not_reserved():
    budget = MemoryBudget(100)
    assert budget.try_reserve(60)
    assert not budget.try_reserve(41)
    assert budget.try_reserve(40)
    assert (budget.used, budget.peak) == (100, 100)


def test_what_is_released_can_be_reserved_again_and_the_peak_stays():
    budget = MemoryBudget(100)
    assert budget.try_reserve(100)
    budget.release(100)
    assert budget.try_reserve(1)
    assert budget.peak == 100


def test_the_first_may_be_larger_than_the_limit_where_work_must_go_on():
    budget = MemoryBudget(100)
    assert not budget.try_reserve(101)
    assert budget.try_reserve(101, or_first=True)
    assert not budget.try_reserve(1, or_first=True)


def test_releasing_more_than_was_reserved_is_a_bug():
    budget = MemoryBudget(100)
    with pytest.raises(AssertionError, match="5 bytes more"):
        budget.release(5)
