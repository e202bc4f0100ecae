"""Several endpoints as one exporter: in turn, round those that are away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gateway.envelope import Fate, Outcome
from gateway.tempo.client import OtlpExporter

FIRST_REST_S, MOST_REST_S = 1.0, 30.0
"""How long an endpoint is left alone after a failure, doubling with each in a row."""

_AWAY = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "UNAUTHENTICATED", "PERMISSION_DENIED"}) | {
    "UNIMPLEMENTED",
    "NOT_FOUND",
}
"""Failures that say more of the endpoint than of the delivery; over HTTP all that are retried."""


class _Endpoint:
    def __init__(self, exporter: OtlpExporter) -> None:
        self.exporter = exporter
        self.rest_s = 0.0
        self.rests_until = 0.0

    def note(self, outcome: Outcome, now: float) -> None:
        away = outcome.fate is Fate.RETRY and (
            outcome.code in _AWAY or outcome.code.startswith("HTTP")
        )
        self.rest_s = min(MOST_REST_S, max(FIRST_REST_S, 2 * self.rest_s)) if away else 0.0
        self.rests_until = now + self.rest_s


class BalancedExporter:
    """Each delivery goes to the next endpoint that does not rest; with all of them resting, to the
    one whose rest ends first. The pipeline's retry of a failed one so finds another endpoint.
    """

    def __init__(
        self, exporters: Sequence[OtlpExporter], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoints = [_Endpoint(exporter) for exporter in exporters]
        self._next = 0
        self._clock = clock

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        endpoint = self._choose(self._clock())
        outcome = await endpoint.exporter.export(tenant, payload, timeout_s=timeout_s)
        endpoint.note(outcome, self._clock())
        if outcome.fate is Fate.RETRY and self._has_other(endpoint):
            return outcome._replace(retry_after_s=None)  # that delay was of this endpoint only
        return outcome

    async def close(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.exporter.close()

    def _choose(self, now: float) -> _Endpoint:
        count = len(self._endpoints)
        turns = [self._endpoints[(self._next + turn) % count] for turn in range(count)]
        self._next = (self._next + 1) % count
        for endpoint in turns:
            if endpoint.rests_until <= now:
                return endpoint
        return min(turns, key=lambda endpoint: endpoint.rests_until)

    def _has_other(self, used: _Endpoint) -> bool:
        now = self._clock()
        return any(e is not used and e.rests_until <= now for e in self._endpoints)
