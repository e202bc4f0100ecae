from __future__ import annotations

from gateway.receivers.frontdoor.http2.patience import Patience


def chores_until_over(patience, limit, *, now=0.0, answers=0):
    return next((count for count in range(limit) if patience.is_over(now, answers)), None)


def test_a_burst_is_fine_and_a_flood_is_not():
    assert chores_until_over(Patience(0.0), 5000) == 1000


def test_time_earns_patience():
    patience = Patience(0.0)
    assert all(not patience.is_over(tick / 100, 0) for tick in range(20_000))


def test_answers_earn_patience():
    """A client that measures its bandwidth pings once an answer."""
    patience = Patience(0.0)
    for answers in range(20_000):
        assert not any(patience.is_over(0.0, answers) for _ in range(3))


def test_idle_time_is_not_saved_up():
    patience = Patience(0.0)
    assert chores_until_over(patience, 1000) is None
    assert not patience.is_over(1e6, 10**6)
    assert chores_until_over(patience, 5000, now=1e6, answers=10**6) < 1001
