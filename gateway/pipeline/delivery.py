"""Brings one batch to the backend, whatever it takes: attempts, delays, halving, giving up."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from gateway.envelope import Envelope, Fate, Outcome
from gateway.errors import Refused
from gateway.otlp.wire import split, trace_ids
from gateway.pipeline.batcher import Batch
from gateway.pipeline.retry import Backoff
from gateway.pipeline.turns import Turns
from gateway.telemetry.logs import Throttle, facts
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

UNCLEAR_ATTEMPTS = 30
"""Attempts in a row after which a delivery that fails with UNKNOWN is blamed on its data: with the
backoff's ceiling of 5 s about 75 s, more than the 31 s for which a stopping Tempo 2.4.0 answers
UNKNOWN to everything."""

SUSPECT_AFTER = 3
"""Broken connections in mid-delivery after which a payload is delivered alone; as many again
when alone prove that it kills the backend. Its halves are suspects from the start."""


class Exporter(Protocol):
    """One attempt to deliver."""

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        """Never raises for what the backend or the network did."""


class DeadLetters(Protocol):
    """Where payloads go that the backend refuses for good."""

    async def keep(self, tenant: str, payload: bytes, *, spans: int, reason: str) -> None:
        """Store the payload with the reason; never raises for a full or broken disk."""


class Tally:
    """What became of the spans of one batch."""

    __slots__ = ("delivered", "dropped", "generation")

    def __init__(self) -> None:
        self.delivered = 0
        self.dropped: dict[str, int] = {}
        """By reason."""
        self.generation = 0
        """Life of the backend that took what was delivered."""

    def drop(self, reason: str, spans: int) -> None:
        if spans:
            self.dropped[reason] = self.dropped.get(reason, 0) + spans


class Part(NamedTuple):
    """A payload with its number of spans, cut out of a larger one."""

    payload: bytes
    spans: int


Parts = Sequence[Envelope | Part]
"""A batch, or a share of one: its envelopes as they are, or parts of one of them."""


class Taken(NamedTuple):
    """Parts that the backend said OK to, and how many of their spans it refused all the same."""

    parts: Parts
    rejected: int
    generation: int
    """Life of the backend in which it was asked."""


class _Course(NamedTuple):
    """One round of a batch's delivery."""

    tenant: str
    tally: Tally
    taken: list[Taken]
    generation: Callable[[], int]
    stumbled: Callable[[], None]


class Delivery:
    """Delivers batches one by one or side by side; ``settle`` may run several times at once."""

    def __init__(
        self,
        exporter: Exporter,
        dead_letters: DeadLetters,
        metrics: Metrics,
        *,
        timeout_s: float,
        backoff: Backoff = Backoff(),  # noqa: B008 - an immutable value
    ) -> None:
        self._exporter = exporter
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._backoff = backoff
        self._turns = Turns()
        self._nudge = asyncio.Event()
        self._throttle = Throttle()
        self._drops = Throttle(interval_s=1.0)
        self._attempts: set[asyncio.Timeout] = set()
        self._failing = False
        self.last_error: str | None = None
        """The last failure in words, for the status; None once a delivery has succeeded."""

    def nudge(self) -> None:
        """The backend is back: those who wait for their next attempt need wait no longer."""
        self._nudge.set()
        self._nudge.clear()  # set() has already woken all who wait now

    def turn_to(self, exporter: Exporter) -> None:
        """From now on deliver there: what waits for its next attempt at once, and what is under way
        anew, since the old backend may never answer.
        """
        self._exporter = exporter
        for attempt in self._attempts:
            attempt.reschedule(0.0)
        self.nudge()

    async def settle(
        self,
        batch: Batch,
        generation: Callable[[], int],
        stumbled: Callable[[], None] = lambda: None,
    ) -> Tally:
        """Deliver until each span is given up, or with a backend that has lived on: ``generation``
        counts its lives, and one that died in between may have lost the first of what it took.
        ``stumbled`` is called after each attempt that did not deliver.

        What is given up is logged and kept as a dead letter; counting is left to the caller, who
        may have to deliver the batch again. Only cancellation ends it before; then nothing is
        known of the batch.
        """
        tally = Tally()
        parts: Parts = [record.envelope for record in batch.records]
        taken: list[Taken] = []
        course = _Course(batch.tenant, tally, taken, generation, stumbled)
        while parts:
            await self._settle(course, parts)
            tally.generation = generation()
            # Only what was taken comes again: what was given up may be what the backend died of.
            life = tally.generation
            parts = [part for done in taken if done.generation != life for part in done.parts]
            taken[:] = [done for done in taken if done.generation == life]
        for accepted in taken:
            tally.delivered += sum([part.spans for part in accepted.parts]) - accepted.rejected
            tally.drop("backend_rejected", accepted.rejected)
        return tally

    async def _settle(self, course: _Course, parts: Parts, *, suspect: bool = False) -> None:
        """Deliver these in one payload, or in halves down to the single span that cannot be."""
        spans = sum([part.spans for part in parts])
        payload = parts[0].payload if len(parts) == 1 else b"".join([p.payload for p in parts])
        outcome, life = await self._attempt_until_final(course, payload, spans, suspect=suspect)
        if outcome.fate is Fate.DELIVERED:
            rejected = max(0, min(spans, outcome.rejected_spans))
            course.taken.append(Taken(parts, rejected, life))
            if rejected:
                self._tell_dropped("backend_rejected", payload, rejected, outcome)
            return
        if len(parts) == 1:
            parts = _halves(payload, spans)
        if len(parts) < 2:
            await self._give_up(course, payload, spans, outcome)
            return
        middle = len(parts) // 2
        for half in (parts[:middle], parts[middle:]):
            await self._settle(course, half, suspect=outcome.lost_connection)

    async def _attempt_until_final(
        self, course: _Course, payload: bytes, spans: int, *, suspect: bool
    ) -> tuple[Outcome, int]:
        """Repeat until the answer is not RETRY. With it comes the life of the backend that was
        asked last.
        """
        target = self._exporter
        attempt = unclear = 0
        broken = SUSPECT_AFTER if suspect else 0
        while True:
            attempt += 1
            life = course.generation()
            alone = broken >= SUSPECT_AFTER
            async with self._turns.alone() if alone else self._turns.shared():
                outcome = await self._export(course.tenant, payload, spans)
            if outcome.fate is not Fate.DELIVERED:
                course.stumbled()
            if outcome.fate is not Fate.RETRY:
                return outcome, life
            broken += outcome.lost_connection
            unclear = unclear + 1 if outcome.code == "UNKNOWN" else 0
            if broken >= 2 * SUSPECT_AFTER or unclear >= UNCLEAR_ATTEMPTS:
                why = f"fails each time it is delivered, last: {outcome.message}"
                return outcome._replace(fate=Fate.REFUSED, message=why), life
            delay_s = self._backoff.delay_s(attempt, random.random(), outcome.retry_after_s)  # noqa: S311
            if target is self._exporter:
                await self._wait(delay_s)
            if target is not self._exporter:  # the failures were the other one's
                target, attempt, unclear, broken = self._exporter, 0, 0, 0

    async def _export(self, tenant: str, payload: bytes, spans: int) -> Outcome:
        started = time.monotonic()
        try:
            outcome = await self._export_unless_turned(tenant, payload)
        except (Exception, asyncio.CancelledError) as error:
            if _is_cancelled():
                raise
            outcome = self._broken_promise(error)
        self._metrics.export_duration.series().observe(time.monotonic() - started)
        self._metrics.export_requests.series(outcome.code).value += 1
        self._metrics.batch_spans.series().observe(spans)
        self._tell(outcome, spans)
        return outcome

    async def _export_unless_turned(self, tenant: str, payload: bytes) -> Outcome:
        attempt = asyncio.timeout(None)
        try:
            async with attempt:
                self._attempts.add(attempt)
                return await self._exporter.export(tenant, payload, timeout_s=self._timeout_s)
        except TimeoutError:
            if not attempt.expired():
                raise
            return Outcome(Fate.RETRY, "CANCELLED", "given up here, to be delivered elsewhere")
        finally:
            self._attempts.discard(attempt)

    def _broken_promise(self, error: BaseException) -> Outcome:
        """An exporter does not raise. Where one does, the spans shall not be stranded by it."""
        if self._throttle.ready(repr(type(error))) is not None:
            logger.error("exporter raised", exc_info=error)
        return Outcome(Fate.RETRY, "INTERNAL", f"the exporter raised {type(error).__name__}")

    async def _wait(self, delay_s: float) -> None:
        # Not wait_for: in Python 3.11 it swallows a cancellation that comes with the nudge.
        try:
            async with asyncio.timeout(delay_s):
                await self._nudge.wait()
        except TimeoutError:
            return

    def _tell(self, outcome: Outcome, spans: int) -> None:
        if outcome.fate is Fate.DELIVERED:
            if self._failing:
                logger.info("delivery recovered")
            self._failing, self.last_error = False, None
            return
        self._failing = True
        self.last_error = f"{outcome.code}: {outcome.message}"
        kept_quiet = self._throttle.ready(outcome.code)
        if kept_quiet is not None:
            logger.warning(
                "delivery failed",
                extra=facts(
                    code=outcome.code,
                    error=outcome.message,
                    next=outcome.fate.value,
                    spans=spans,
                    kept_quiet=kept_quiet or None,
                ),
            )

    async def _give_up(self, course: _Course, payload: bytes, spans: int, outcome: Outcome) -> None:
        """The end of the road for a single span (or a payload that cannot be cut)."""
        reason = "too_large" if outcome.fate is Fate.SPLIT else "refused"
        await self._dead_letters.keep(
            course.tenant, payload, spans=spans, reason=f"{outcome.code}: {outcome.message}"
        )
        course.tally.drop(reason, spans)
        self._tell_dropped(reason, payload, spans, outcome)

    def _tell_dropped(self, reason: str, payload: bytes, spans: int, outcome: Outcome) -> None:
        kept_quiet = self._drops.ready(reason)
        if kept_quiet is not None:
            logger.error(
                "spans dropped",
                extra=facts(
                    reason=reason,
                    spans=spans,
                    code=outcome.code,
                    error=outcome.message,
                    trace_ids=",".join(trace_ids(payload, limit=5)),
                    kept_quiet=kept_quiet or None,
                ),
            )


def _is_cancelled() -> bool:
    """Whether it is this task that shall end, and not a call that it awaits on a closed channel."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _halves(payload: bytes, spans: int) -> list[Part]:
    """The payload cut in the middle; fewer than two parts where it cannot be cut."""
    if spans < 2:
        return []
    try:
        return [Part(*piece) for piece in split(payload, max_spans=-(-spans // 2))]
    except Refused:  # it is no request after all
        return []
