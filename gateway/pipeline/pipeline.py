"""The way of an envelope from acceptance to certainty; the ``Intake`` of the receivers.

offer -> spool (the client is answered) -> backlog -> batcher -> delivery -> hold -> release
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from gateway.access.budget import MemoryBudget
from gateway.envelope import Envelope
from gateway.errors import Cause, Refused
from gateway.lifecycle import Tasks
from gateway.pipeline.backlog import Backlog, footprint
from gateway.pipeline.batcher import Batch, Batcher
from gateway.pipeline.delivery import Delivery, Exporter, Tally
from gateway.pipeline.hold import Held, Hold
from gateway.pipeline.records import Record
from gateway.pipeline.retry import Rate, hint_s
from gateway.pipeline.spool import Spool
from gateway.telemetry.logs import Throttle, facts
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

DELIVERIES = 4
"""Deliveries under way at once, and as many more that are ready: of several tenants, or of one
after a failure. With the default batch of 3 MiB a fixed share of memory."""

KEEPER_INTERVAL_S = 0.25
READ_BYTES = 4 * 2**20
"""Most that is read back from disk at a time."""

HANDED_OVER = -1
"""In place of the backend's life, where another gateway has taken the spans."""

READ_RETRY_S = 1.0
"""Delay after a read that failed."""


class Backend(Protocol):
    """What delivery needs to know of the backend's life."""

    @property
    def generation(self) -> int:
        """Grows each time the backend died, and with it what it had only in memory."""

    def alive_s(self) -> float:
        """Seconds for which it was seen alive; stands still while it does not answer."""


class Limits(NamedTuple):
    """Bounds of the pipeline."""

    batch_spans: int
    batch_bytes: int
    batch_timeout_s: float
    hold_s: float


class Pipeline:
    """Takes envelopes and answers for them until they are delivered.

    Memory: records in the backlog's head, in open batches and on their way count against
    ``budget``, which is for this pipeline alone; a durable spool keeps the rest on disk, without
    one the client is refused. What a spool held at start is delivered before anything new.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        delivery: Delivery,
        backend: Backend,
        budget: MemoryBudget,
        metrics: Metrics,
        limits: Limits,
        failed: Callable[[BaseException], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``failed`` is told of a fault of the pipeline's own after which it delivers no more."""
        self._spool = spool
        self._delivery = delivery
        self._backend = backend
        self._budget = budget
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._backlog = Backlog(budget)
        self._batcher = Batcher(
            max_spans=limits.batch_spans,
            max_bytes=limits.batch_bytes,
            max_age_s=limits.batch_timeout_s,
        )
        self._ready: deque[Batch] = deque()
        self._leading: dict[str, Batch] = {}
        """By tenant, the delivery that all others of it wait for: one at a time while nothing
        fails, so that what a client sent after an OK never overtakes what the OK was for. After a
        failed attempt others go ahead, so that bad data holds up nobody."""
        self._hold = Hold()
        self._again: set[int] = set()
        """Sequences that a dead backend has lost: to be read from disk and delivered again."""
        self._waiting_since = 0.0
        self._work = asyncio.Event()
        self._settled = asyncio.Event()
        self._sends = Tasks("delivery")
        self._sending = 0
        """Deliveries under way. Counted here, since a task that ends wakes the feeder before it is
        gone from ``_sends``."""
        self._loops = Tasks("pipeline", failed)
        self._writing = 0
        """Offers that the spool has not answered yet."""
        self._accepting = True
        self._draining = False
        self._handing_over = False
        self._no_room = False
        """The last read from disk found no room in memory; a delivery that ends makes some."""
        self._read_from = -math.inf
        """When reading from disk may be tried again."""
        self._lost_spans = 0
        self._throttle = Throttle()
        self._pending = 0
        self._rate = Rate(clock())
        metrics.follow(metrics.pending_spans, lambda: self._pending)
        metrics.follow(metrics.spool_bytes, lambda: spool.size_bytes)
        if spool.recovered_spans:
            self._backlog.recovered()
            self._pending = spool.recovered_spans
            metrics.recovered_spans.series().value += spool.recovered_spans

    # -- intake ----------------------------------------------------------------------------------

    def offer(
        self, envelopes: Sequence[Envelope], settled: Callable[[Refused | None], None]
    ) -> None:
        """Take all of them or none; see ``receivers.ingest.Intake``."""
        if not self._accepting:
            settled(self._refusal(Cause.STOPPING, "the gateway is stopping"))
            return
        if not self._spool.durable and (refused := self._no_memory(envelopes)):
            settled(refused)
            return

        def written(result: int | Refused) -> None:
            self._writing -= 1
            if self._draining:
                self._work.set()
            if isinstance(result, Refused):
                settled(self._refusal(result.cause, result.message))
                return
            self._take(envelopes, result)
            settled(None)

        self._writing += 1
        self._spool.append(envelopes, written)

    def _no_memory(self, envelopes: Sequence[Envelope]) -> Refused | None:
        """Why they cannot be taken into memory, where there is no disk for them."""
        need, limit = sum(map(footprint, envelopes)), self._budget.limit
        if need > limit:
            return Refused(
                Cause.TOO_LARGE,
                f"the request takes {need} bytes of memory, and the queue may hold {limit}"
                " (GATEWAY_MEMORY_BYTES); send smaller batches",
            )
        if self._budget.used + need > limit:
            message = "the gateway's queue is full since the backend is behind"
            return self._refusal(Cause.MEMORY_FULL, message)
        return None

    def _refusal(self, cause: Cause, message: str) -> Refused:
        """One for each offer, since each has a delay of its own."""
        return Refused(cause, message, retry_after_s=self._hint() if cause.value.retry else None)

    def _take(self, envelopes: Sequence[Envelope], sequence: int) -> None:
        backlog = self._backlog
        if not backlog.records and backlog.behind is None:
            self._waiting_since = self._clock()
            self._work.set()  # so that the feeder sets its timer
        for envelope in envelopes:
            backlog.add(Record(sequence, envelope))
            sequence += 1
            self._pending += envelope.spans
        if self._batch_waits and self._has_lane:
            self._work.set()

    @property
    def _batch_waits(self) -> bool:
        """Enough waits for a full batch, of one tenant at least."""
        size, spans = self._backlog.size, self._backlog.spans
        return size >= self._limits.batch_bytes or spans >= self._limits.batch_spans

    def _hint(self) -> float:
        """Seconds after which a refused client should come back."""
        queued = max(self._spool.size_bytes, self._budget.used)
        return hint_s(queued, self._rate.per_s(self._clock()), random.random())  # noqa: S311

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        self._loops.spawn(self._feed(), "feed")
        self._loops.spawn(self._keep_hold(), "hold")

    def refuse(self) -> None:
        """From now on every offer is refused with STOPPING."""
        self._accepting = False

    async def drain(self, timeout_s: float) -> bool:
        """Deliver what waits, without waiting for batches to fill. True if all was sent."""
        self.refuse()
        self._draining = True
        self._work.set()
        try:
            async with asyncio.timeout(timeout_s):
                while not self._idle:
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            return False
        return True

    def hand_over(self, exporter: Exporter) -> None:
        """From now on deliver to another gateway, whose OK is certain; ``drain`` waits for it."""
        self._handing_over = True
        self._delivery.turn_to(exporter)

    def backend_ended(self, *, flushed: bool) -> None:
        """``flushed``: the backend has stopped in good order, so what it said OK to is on its disk.
        Else it stays in the spool, and is handed over if anything is.
        """
        life = self._backend.generation
        for held in self._hold.all():
            if flushed and held.generation == life:
                self._release([held])
            elif self._handing_over:
                self._again.update(held.sequences)
        self._work.set()

    async def stop(self) -> None:
        """End all work. What is not released stays in the spool."""
        self.refuse()
        await self._loops.stop()
        await self._sends.stop()
        await self._spool.close()

    def backend_ready(self) -> None:
        """The backend came (back) up: deliver at once instead of after the next delay."""
        self._delivery.nudge()

    @property
    def _idle(self) -> bool:
        return (
            self._backlog.idle
            and not self._writing
            and not self._again
            and not len(self._batcher)
            and not self._ready
            and not self._sending
        )

    # -- feeding ---------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Turn what waits into batches and send them, as many at once as there are lanes."""
        while True:
            await self._wait_for_work()
            if self._wants_to_read:
                await (self._read_again() if self._again else self._read_on())
            now = self._clock()
            while self._sending < DELIVERIES and (batch := self._next(now)) is not None:
                self._sending += 1
                self._leading[batch.tenant] = batch
                self._sends.spawn(self._send(batch), "send")
            if self._idle:
                self._settled.set()

    @property
    def _on_disk(self) -> bool:
        """Something is to be read from disk before it can be delivered."""
        return bool(self._again) or self._backlog.behind is not None

    @property
    def _wants_to_read(self) -> bool:
        """Something is on disk only, memory has room and a lane is free for it."""
        return (
            self._on_disk
            and not self._no_room
            and not self._backlog.records
            and self._has_lane
            and self._read_from <= self._clock()
        )

    async def _wait_for_work(self) -> None:
        """Until ``_work`` is set, or the oldest of what waits has reached the batch timeout."""
        if self._wants_to_read:
            return
        timeout_s = self._next_due() if self._has_lane else None
        try:
            async with asyncio.timeout(timeout_s):
                await self._work.wait()
        except TimeoutError:
            return
        finally:
            self._work.clear()

    def _next_due(self) -> float | None:
        moments = []
        if self._backlog.records:
            moments.append(self._waiting_since + self._limits.batch_timeout_s)
        if (due := self._batcher.next_due(busy=self._leading)) is not None:
            moments.append(due)
        if self._on_disk and not self._no_room:
            moments.append(self._read_from)
        return max(0.0, min(moments) - self._clock()) if moments else None

    @property
    def _has_lane(self) -> bool:
        """Whether one more batch could be sent, or made ready."""
        return self._sending < DELIVERIES and len(self._ready) < DELIVERIES

    def _next(self, now: float) -> Batch | None:
        """The first batch that need not wait for another one of its tenant."""
        while True:
            for place, batch in enumerate(self._ready):
                if batch.tenant not in self._leading:
                    del self._ready[place]
                    return batch
            if not self._has_lane or not self._fill(now):
                return None

    def _fill(self, now: float) -> bool:
        """Make at least one more batch ready, if there is one to be had now."""
        ready = len(self._ready)
        old = self._waiting_since + self._limits.batch_timeout_s <= now
        if old or self._draining or self._batch_waits:
            while self._backlog.records and len(self._ready) == ready:
                self._ready.extend(self._batcher.add(self._backlog.take(), self._waiting_since))
        if len(self._ready) == ready:
            batcher, busy = self._batcher, self._leading
            self._ready.extend(
                batcher.flush(busy=busy) if self._draining else batcher.due(now, busy=busy)
            )
        return len(self._ready) > ready

    async def _read_on(self) -> None:
        """The next of what is on disk only, in order."""
        assert self._backlog.behind is not None  # noqa: S101 - _wants_to_read has just said so
        seen = self._backlog.newest
        records = await self._read(self._backlog.behind)
        if records is None:
            return
        self._backlog.refill(records, seen=seen)
        self._have_read(found_room=bool(self._backlog.records) or not records)

    async def _read_again(self) -> None:
        """The next of what a dead backend has lost."""
        first, seen = min(self._again), self._backlog.newest
        records = await self._read(first)
        if records is None:
            return
        read = {record.sequence for record in records}
        last = records[-1].sequence if records else seen
        # What is not there was damaged on disk since: _read has counted it.
        self._again -= {gone for gone in self._again - read if first <= gone <= last}
        wanted = [record for record in records if record.sequence in self._again]
        for record in wanted:
            if not self._backlog.keep(record):
                break
            self._again.discard(record.sequence)
            self._metrics.redelivered_spans.series().value += record.envelope.spans
        self._have_read(found_room=bool(self._backlog.records) or not wanted)

    async def _read(self, sequence: int) -> list[Record] | None:
        """From disk, about as much as memory has room for; None where that fails, to be tried
        again. Counts what it finds damaged.
        """
        room = max(1, self._budget.limit - self._budget.used)
        try:
            records = await self._spool.read(sequence, min(room, READ_BYTES))
        except OSError as error:
            self._read_from = self._clock() + READ_RETRY_S
            kept_quiet = self._throttle.ready("read")
            if kept_quiet is not None:
                event = facts(error=str(error), kept_quiet=kept_quiet or None)
                logger.error("spool read failed", extra=event)  # noqa: TRY400 - the disk's word
            return None
        lost, self._lost_spans = self._spool.lost_spans - self._lost_spans, self._spool.lost_spans
        self._count_dropped("damaged", lost)
        return records

    def _have_read(self, *, found_room: bool) -> None:
        """What was read has waited long enough; without room, wait until a delivery ends."""
        self._waiting_since = -math.inf
        self._no_room = not found_room

    # -- sending and holding ---------------------------------------------------------------------

    async def _send(self, batch: Batch) -> None:
        """Deliver one batch; hold it, or let it go at once where an OK is certain."""

        def lead_no_more() -> None:
            if self._leading.get(batch.tenant) is batch:
                del self._leading[batch.tenant]
                self._work.set()

        try:
            tally = await self._delivery.settle(batch, self._generation, lead_no_more)
        finally:
            lead_no_more()
            self._sending -= 1
            self._backlog.done(batch.records)
            self._no_room = False
            self._work.set()
        self._rate.add(batch.size, self._clock())
        sequences = [record.sequence for record in batch.records]
        due = self._backend.alive_s() + self._limits.hold_s
        held = Held(sequences, tally, tally.generation, due)
        holds = bool(self._limits.hold_s) and self._spool.durable and not self._handing_over
        if holds and tally.delivered:
            self._hold.add(held)
        else:
            self._release([held])

    def _generation(self) -> int:
        """The backend's, where it matters: without a hold time an OK outlives the backend."""
        if self._handing_over:
            return HANDED_OVER
        return self._backend.generation if self._limits.hold_s else 0

    async def _keep_hold(self) -> None:
        """Release what has become certain; deliver again what a dead backend has lost."""
        while True:
            await asyncio.sleep(KEEPER_INTERVAL_S)
            generation = self._backend.generation
            lost = self._hold.lost(generation)
            if lost:
                spans = sum(held.tally.delivered for held in lost)
                logger.warning("backend died, delivering again", extra=facts(spans=spans))
                for held in lost:
                    self._again.update(held.sequences)
                self._work.set()
            self._release(self._hold.certain(generation, self._backend.alive_s()))

    def _release(self, certain: Sequence[Held]) -> None:
        for held in certain:
            self._spool.release(held.sequences)
            self._count(held.tally)

    def _count(self, tally: Tally) -> None:
        metrics = self._metrics
        handed_over = tally.generation == HANDED_OVER
        column = metrics.handed_over_spans if handed_over else metrics.delivered_spans
        column.series().value += tally.delivered
        self._pending -= tally.delivered
        for reason, spans in tally.dropped.items():
            self._count_dropped(reason, spans)

    def _count_dropped(self, reason: str, spans: int) -> None:
        if spans:
            self._metrics.dropped_spans.series(reason).value += spans
            self._pending -= spans

    # -- voice -----------------------------------------------------------------------------------

    @property
    def pending_spans(self) -> int:
        """Spans that are neither delivered for certain nor given up."""
        return self._pending

    @property
    def is_failing(self) -> bool:
        """The last attempt to deliver that has come to an end has failed."""
        return self._delivery.last_error is not None

    def stats(self) -> dict[str, object]:
        """For the status page."""
        return {
            "pending_spans": self._pending,
            "in_memory_bytes": self._budget.used,
            "memory_limit_bytes": self._budget.limit,
            "backlog_on_disk": self._backlog.behind is not None,
            "deliveries_under_way": self._sending,
            "held_deliveries": len(self._hold),
            "delivered_bytes_per_s": round(self._rate.per_s(self._clock())),
            "last_delivery_error": self._delivery.last_error,
        }
