"""When somebody else's Tempo may have lost what it had only in memory."""

from __future__ import annotations

from gateway.envelope import Fate, Outcome
from gateway.tempo.client import OtlpExporter


class WatchedExporter:
    """Passes deliveries on, and counts how often the backend was lost.

    Of an external backend's life only this is known: it cannot be reached any more, or a connection
    broke. So it may have died, and what it said OK to lately has to be delivered again. A restart
    between two deliveries, which neither of them meets, is not noticed.
    """

    def __init__(self, exporter: OtlpExporter) -> None:
        self._exporter = exporter
        self._lost = False
        self.losses = 0

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        outcome = await self._exporter.export(tenant, payload, timeout_s=timeout_s)
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
