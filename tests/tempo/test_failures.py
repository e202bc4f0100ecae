"""For how long deliveries fail."""

from __future__ import annotations

from gateway.envelope import Fate, Outcome
from gateway.tempo.failures import FailureWatch

OK = Outcome(Fate.DELIVERED)
AWAY = Outcome(Fate.RETRY, "UNAVAILABLE", "failed to connect")
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


async def test_it_tells_for_how_long_no_delivery_has_come_to_its_end():
    now = 100.0
    watch = FailureWatch(Scripted(OK, BUSY, AWAY, BAD, SLOW, OK), lambda: now)
    seen = []
    for _ in range(6):
        await watch.export("", b"", timeout_s=1)
        now += 5.0
        seen.append((watch.seconds, watch.last))
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
    await FailureWatch(scripted).close()
    assert scripted.closed
