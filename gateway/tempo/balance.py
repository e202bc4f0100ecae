"""Several endpoints as one exporter: in turn, round those that are away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping

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
        self.failed_at = -math.inf
        self.in_hand = 0
        self.retired = False

    async def export(self, tenant: str, payload: bytes, timeout_s: float) -> Outcome:
        self.in_hand += 1
        try:
            return await self.exporter.export(tenant, payload, timeout_s=timeout_s)
        finally:
            self.in_hand -= 1
            if self.retired and not self.in_hand:
                await self.exporter.close()

    def note(self, outcome: Outcome, *, began: float, now: float) -> None:
        away = outcome.fate is Fate.RETRY and (
            outcome.code in _AWAY or outcome.code.startswith("HTTP")
        )
        if not away:
            self.rest_s = self.rests_until = 0.0
        elif began > self.failed_at:  # else it tells no more than the failure before did
            self.rest_s = min(MOST_REST_S, max(FIRST_REST_S, 2 * self.rest_s))
            self.rests_until = now + self.rest_s
            self.failed_at = now

    async def retire(self) -> None:
        """What is in hand is answered first."""
        self.retired = True
        if not self.in_hand:
            await self.exporter.close()


class BalancedExporter:
    """Each delivery goes to the next endpoint that does not rest; with all of them resting, to the
    one whose rest ends first. One that has not even connected, or says that it takes nothing now,
    has not got the delivery, so the next one is tried at once; after other failures the pipeline's
    retry finds another endpoint.
    """

    def __init__(
        self,
        exporters: Mapping[str, OtlpExporter],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """By name, which may be anything."""
        self._endpoints = {name: _Endpoint(exporter) for name, exporter in exporters.items()}
        self._next = 0
        self._clock = clock

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._endpoints))

    def __len__(self) -> int:
        return len(self._endpoints)

    def add(self, name: str, exporter: OtlpExporter) -> None:
        self._endpoints[name] = _Endpoint(exporter)

    async def remove(self, name: str) -> None:
        await self._endpoints.pop(name).retire()

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        deadline = self._clock() + timeout_s
        turns = self._turns()
        while True:
            endpoint = turns.pop(0)
            began = self._clock()
            outcome = await endpoint.export(tenant, payload, max(0.0, deadline - began))
            endpoint.note(outcome, began=began, now=self._clock())
            if not turns or not _is_untouched(outcome) or self._clock() >= deadline:
                break
        if outcome.fate is Fate.RETRY and self._has_other(endpoint):
            return outcome._replace(retry_after_s=None)  # that delay was of this endpoint only
        return outcome

    async def close(self) -> None:
        for endpoint in self._endpoints.values():
            await endpoint.exporter.close()

    def _turns(self) -> list[_Endpoint]:
        """Those to be asked, one after the other; at least one."""
        now, endpoints = self._clock(), self._endpoints.values()
        awake = [endpoint for endpoint in endpoints if endpoint.rests_until <= now]
        if not awake:
            return [min(endpoints, key=lambda endpoint: endpoint.rests_until)]
        self._next = (self._next + 1) % len(awake)
        return awake[self._next - 1 :] + awake[: self._next - 1]

    def _has_other(self, used: _Endpoint) -> bool:
        now = self._clock()
        return any(e is not used and e.rests_until <= now for e in self._endpoints.values())


def _is_untouched(outcome: Outcome) -> bool:
    return (
        outcome.fate is Fate.RETRY
        and outcome.code in {"UNAVAILABLE", "HTTP 503"}
        and not outcome.lost_connection
    )
