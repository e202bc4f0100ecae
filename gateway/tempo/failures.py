"""For how long deliveries fail: what shows of a backend that nobody else watches."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.envelope import Fate, Outcome
from gateway.tempo.client import OtlpExporter


class FailureWatch:
    """Passes deliveries on, and remembers since when none has come to its end."""

    def __init__(self, exporter: OtlpExporter, clock: Callable[[], float] = time.monotonic) -> None:
        self._exporter = exporter
        self._clock = clock
        self._since: float | None = None
        self.last = ""
        """The last failure in words; empty once a delivery has come to its end."""

    @property
    def seconds(self) -> float:
        """For how long no delivery has come to its end, though some were tried."""
        return 0.0 if self._since is None else self._clock() - self._since

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        began = self._clock()
        outcome = await self._exporter.export(tenant, payload, timeout_s=timeout_s)
        if outcome.fate is not Fate.RETRY:
            self.last, self._since = "", None
            return outcome
        self.last = f"{outcome.code}: {outcome.message}"
        if self._since is None:
            self._since = began
        return outcome

    async def close(self) -> None:
        await self._exporter.close()
