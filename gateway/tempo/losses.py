"""When somebody else's Tempo may have lost what it had only in memory."""

from __future__ import annotations

from gateway.envelope import Fate, Outcome
from gateway.tempo.client import OtlpExporter


class Losses:
    """How often one of the addresses of a backend was lost.

    Of an external backend's life only this is known: an address cannot be reached any more or has
    gone from its name, or a connection broke. So what was there may have died, and what it said OK
    to lately has to be delivered again. A restart between two deliveries, which neither of them
    meets, is not noticed.
    """

    def __init__(self) -> None:
        self.count = 0

    def watch(self, exporter: OtlpExporter) -> WatchedExporter:
        """The exporter to one address, from now on counted."""
        return WatchedExporter(exporter, self)


class WatchedExporter:
    """Passes deliveries on, and tells of each time that its address is lost."""

    def __init__(self, exporter: OtlpExporter, losses: Losses) -> None:
        self._exporter = exporter
        self._losses = losses
        self._lost = False

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        outcome = await self._exporter.export(tenant, payload, timeout_s=timeout_s)
        if outcome.fate is Fate.DELIVERED:
            self._lost = False
        elif _may_have_died(outcome):
            self._lose()
        return outcome

    async def close(self) -> None:
        self._lose()
        await self._exporter.close()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._losses.count += 1


def _may_have_died(outcome: Outcome) -> bool:
    # Who names a delay is alive and busy.
    return outcome.lost_connection or (
        outcome.code == "UNAVAILABLE" and outcome.retry_after_s is None
    )
