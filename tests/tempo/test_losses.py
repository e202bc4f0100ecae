"""What counts as the loss of a backend whose life nobody sees."""

from __future__ import annotations

import pytest

from gateway.envelope import Fate, Outcome
from gateway.tempo.losses import Losses

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
    watch = Losses()
    watched = watch.watch(Scripted(*outcomes))
    assert [await watched.export("", b"", timeout_s=1) for _ in outcomes] == outcomes
    assert watch.count == losses


async def test_each_address_is_lost_for_itself():
    losses = Losses()
    one, two = losses.watch(Scripted(OK, AWAY)), losses.watch(Scripted(OK, AWAY))
    for exporter in (one, two, one, two):
        await exporter.export("", b"", timeout_s=1)
    assert losses.count == 2


async def test_an_address_that_goes_is_lost_and_closed():
    losses, scripted = Losses(), Scripted()
    await losses.watch(scripted).close()
    assert (losses.count, scripted.closed) == (1, True)
