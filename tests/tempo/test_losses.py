"""What counts as the loss of a backend whose life nobody sees."""

from __future__ import annotations

import pytest

from gateway.envelope import Fate, Outcome
from gateway.tempo.losses import WatchedExporter

OK = Outcome(Fate.DELIVERED)
AWAY = Outcome(Fate.RETRY, "UNAVAILABLE", "failed to connect")
BROKEN = Outcome(Fate.RETRY, "HTTP", "connection reset", lost_connection=True)
BUSY = Outcome(Fate.RETRY, "UNAVAILABLE", "later", retry_after_s=1.0)
SLOW = Outcome(Fate.RETRY, "DEADLINE_EXCEEDED", "no answer")
BAD = Outcome(Fate.REFUSED, "INVALID_ARGUMENT", "bad data")


class Scripted:
    """An exporter that answers what it is told to."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.closed = False

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        return self._outcomes.pop(0)

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("outcomes", "losses"),
    [
        ([OK, OK], 0),
        ([OK, AWAY], 1),
        ([OK, BROKEN], 1),
        ([OK, BROKEN, AWAY, AWAY, OK], 1),
        ([OK, AWAY, OK, BROKEN, OK], 2),
        ([AWAY, SLOW, AWAY], 1),
        ([OK, BUSY, SLOW, BAD, OK], 0),
    ],
)
async def test_each_time_it_is_away_counts_once(outcomes, losses):
    watched = WatchedExporter(Scripted(*outcomes))
    assert [await watched.export("", b"", timeout_s=1) for _ in outcomes] == outcomes
    assert watched.losses == losses


async def test_it_tells_for_how_long_no_delivery_has_come_to_its_end():
    now = 100.0
    watched = WatchedExporter(Scripted(OK, BUSY, AWAY, BAD, SLOW, OK), lambda: now)
    seen = []
    for _ in range(6):
        await watched.export("", b"", timeout_s=1)
        now += 5.0
        seen.append((watched.failing_s, watched.failure))
    assert seen == [
        (0.0, ""),
        (5.0, "UNAVAILABLE: later"),
        (10.0, "UNAVAILABLE: failed to connect"),
        (0.0, ""),
        (5.0, "DEADLINE_EXCEEDED: no answer"),
        (0.0, ""),
    ]


async def test_it_closes_what_it_watches():
    scripted = Scripted()
    await WatchedExporter(scripted).close()
    assert scripted.closed
