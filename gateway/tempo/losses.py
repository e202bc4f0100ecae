"""What deliveries tell of the life of a backend that nobody else watches."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.envelope import Fate, Outcome
from gateway.tempo.client import OtlpExporter


class WatchedExporter:
    """Passes deliveries on, and counts how often the backend was lost.

    Of an external backend's life only this is known: it cannot be reached any more, or a connection
    broke. So it may have died, and what it said OK to lately has to be delivered again. A restart
    between two deliveries, which neither of them meets, is not noticed.
    """

    def __init__(self, exporter: OtlpExporter, clock: Callable[[], float] = time.monotonic) -> None:
        self._exporter = exporter
        self._clock = clock
        self._lost = False
        self._failing_since: float | None = None
        self.losses = 0
        self.failure = ""
        """The last failure in words; empty once a delivery has come to its end."""

    @property
    def failing_s(self) -> float:
        """For how long no delivery has come to its end, though some were tried; seconds."""
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        began = self._clock()
        outcome = await self._exporter.export(tenant, payload, timeout_s=timeout_s)
        if outcome.fate is Fate.RETRY:
            self.failure = f"{outcome.code}: {outcome.message}"
            if self._failing_since is None:
                self._failing_since = began
        else:
            self.failure, self._failing_since = "", None
        if outcome.fate is Fate.DELIVERED:
            self._lost = False
        elif _may_have_died(outcome) and not self._lost:
            self._lost = True
            self.losses += 1
        return outcome

    async def close(self) -> None:
        await self._exporter.close()


def _may_have_died(outcome: Outcome) -> bool:
    # Who names a delay is alive and busy.
    return outcome.lost_connection or (
        outcome.code == "UNAVAILABLE" and outcome.retry_after_s is None
    )
