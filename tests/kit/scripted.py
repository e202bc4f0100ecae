"""A backend at the pipeline's seams, with a memory, a disk and a will of its own; and its client.

Payloads are marks: ``mark(7)`` is one record that a test can tell from all others, and ``marks``
reads them back out of a joined payload.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from gateway.access.budget import MemoryBudget
from gateway.envelope import Envelope, Fate, Outcome
from gateway.errors import Refused
from gateway.pipeline.delivery import Delivery, Exporter
from gateway.pipeline.pipeline import Limits, Pipeline
from gateway.pipeline.retry import Backoff
from gateway.pipeline.segments import SegmentLog
from gateway.pipeline.spool import DiskSpool, MemorySpool, Spool
from gateway.telemetry.metrics import Metrics
from tests.kit.ledger import assert_books_balance

MIB = 2**20
OK = Outcome(Fate.DELIVERED)
AWAY = Outcome(Fate.RETRY, "UNAVAILABLE", "connection refused")
BROKEN = Outcome(Fate.RETRY, "UNAVAILABLE", "connection reset", lost_connection=True)
REFUSED = Outcome(Fate.REFUSED, "INVALID_ARGUMENT", "bad data")
TOO_LARGE = Outcome(Fate.SPLIT, "RESOURCE_EXHAUSTED", "too large")
UNCLEAR = Outcome(Fate.RETRY, "UNKNOWN", "something is wrong")

_MARK = re.compile(rb"<(\d+)>")


def mark(number: int, *, padding: int = 0) -> bytes:
    """A payload that stands for one record; *padding* bytes make it larger."""
    return b"<%d>" % number + b"." * padding


def marks(payload: bytes) -> list[int]:
    """The records in a payload, in order."""
    return [int(number) for number in _MARK.findall(payload)]


class Attempt(NamedTuple):
    """One call of the exporter."""

    tenant: str
    payload: bytes
    timeout_s: float

    @property
    def marks(self) -> list[int]:
        return marks(self.payload)


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until the condition holds; fails when it does not in time."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)


class ScriptedBackend:
    """An ``Exporter`` and the ``Backend`` whose life it shares.

    ``answer`` decides what each attempt gets. What was answered OK is in ``memory`` until the
    backend has lived on for ``flush_s`` (``live`` moves its clock), then on ``disk``; ``die``
    loses the memory and breaks what is under way. While ``gate`` is clear, attempts hang.
    """

    def __init__(self, *, flush_s: float = 0.0) -> None:
        self.answer: Callable[[Attempt], Outcome] = lambda _: OK
        self.gate = asyncio.Event()
        self.gate.set()
        self.attempts: list[Attempt] = []
        self.under_way = 0
        self.most_under_way = 0
        self.memory: list[tuple[float, Attempt]] = []
        self.disk: list[Attempt] = []
        self.generation = 1
        self._flush_s = flush_s
        self._alive_s = 0.0

    def alive_s(self) -> float:
        return self._alive_s

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        attempt, generation = Attempt(tenant, payload, timeout_s), self.generation
        self.attempts.append(attempt)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)  # as any call over a network
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if generation != self.generation:
            return BROKEN
        outcome = self.answer(attempt)
        if outcome.fate is Fate.DELIVERED:
            self.memory.append((self._alive_s, attempt))
            self.live()
        return outcome

    def live(self, seconds: float = 0.0) -> None:
        """Time passes in which the backend is seen alive; what is old enough reaches its disk."""
        self._alive_s += seconds
        while self.memory and self.memory[0][0] + self._flush_s <= self._alive_s:
            self.disk.append(self.memory.pop(0)[1])

    def die(self) -> None:
        self.memory.clear()
        self.generation += 1
        self._alive_s = 0.0

    @property
    def taken(self) -> list[int]:
        """What it has, in the order in which it took it; more than once what came again."""
        everything = [*self.disk, *(attempt for _, attempt in self.memory)]
        return [number for attempt in everything for number in attempt.marks]

    @property
    def on_disk(self) -> Counter[int]:
        return Counter(number for attempt in self.disk for number in attempt.marks)


class DeadLetterBox:
    """Keeps what it is given in memory. While ``gate`` is clear, it takes its time."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, bytes, int, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def keep(self, tenant: str, payload: bytes, *, spans: int, reason: str) -> None:
        await asyncio.sleep(0)  # as any file
        await self.gate.wait()
        self.letters.append((tenant, payload, spans, reason))


class Asked:
    """One offer and how it was answered."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers = tuple(numbers)
        self.answers: list[Refused | None] = []

    @property
    def accepted(self) -> bool:
        return self.answers == [None]

    @property
    def refused(self) -> Refused:
        (answer,) = self.answers
        assert isinstance(answer, Refused), "it was accepted"
        return answer

    async def answered(self) -> Asked:
        await until(lambda: self.answers)
        return self


QUICK = Backoff(first_s=0.001, most_s=0.02)
DEFAULT_LIMITS = Limits(batch_spans=100, batch_bytes=MIB, batch_timeout_s=0.01, hold_s=0.0)


class Rig:
    """A pipeline between a client that keeps a ledger and a ``ScriptedBackend``.

    With a directory it has a disk spool there, and ``stop`` and a new rig on the same directory
    are a restart; without one it is memory only.
    """

    def __init__(
        self,
        backend: ScriptedBackend,
        directory: Path | None = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        memory_bytes: int = 64 * MIB,
        spool_bytes: int = 64 * MIB,
        segment_bytes: int = MIB,
        backoff: Backoff = QUICK,
        log_type: type[SegmentLog] = SegmentLog,
        exporter: Exporter | None = None,
        timeout_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend = backend
        self.metrics = Metrics()
        self.budget = MemoryBudget(memory_bytes)
        self.dead_letters = DeadLetterBox()
        self.asked: list[Asked] = []
        self.faults: list[BaseException] = []
        self.spool: Spool = MemorySpool()
        if directory is not None:
            self.log = log_type(
                directory, max_bytes=spool_bytes, segment_bytes=segment_bytes, fsync=False
            )
            with ThreadPoolExecutor(1) as thread:  # not on the event loop
                self.spool = DiskSpool(self.log, thread.submit(self.log.open).result())
        self.delivery = Delivery(
            exporter or backend,
            self.dead_letters,
            self.metrics,
            timeout_s=timeout_s,
            backoff=backoff,
        )
        self.pipeline = Pipeline(
            spool=self.spool,
            delivery=self.delivery,
            backend=backend,
            budget=self.budget,
            metrics=self.metrics,
            limits=limits,
            failed=self.faults.append,
            clock=clock,
        )

    def start(self) -> Rig:
        self.pipeline.start()
        return self

    def offer(self, *numbers: int, tenant: str = "", padding: int = 0, spans: int = 1) -> Asked:
        """One request with an envelope for each number."""
        payloads = [mark(number, padding=padding) for number in numbers]
        return self.offer_payloads(payloads, numbers, tenant=tenant, spans=spans)

    def offer_payloads(
        self, payloads: Sequence[bytes], numbers: Iterable[int] = (), *, tenant: str, spans: int
    ) -> Asked:
        """One request of these payloads, each with so many spans."""
        asked = Asked(numbers)
        self.asked.append(asked)

        def settled(refused: Refused | None) -> None:
            asked.answers.append(refused)
            if refused is None:
                count = spans * len(payloads)
                self.metrics.accepted_spans.series().value += count
                self.metrics.received_spans.series("grpc", "protobuf").value += count

        self.pipeline.offer([Envelope(tenant, p, spans, 0.0) for p in payloads], settled)
        return asked

    async def offer_all(self, numbers: Iterable[int], **options: int | str) -> None:
        """One request for each number, each accepted."""
        asked = [self.offer(number, **options) for number in numbers]  # type: ignore[arg-type]
        await until(lambda: all(one.answers for one in asked))
        assert all(one.accepted for one in asked)

    @property
    def accepted(self) -> list[int]:
        return [number for asked in self.asked if asked.accepted for number in asked.numbers]

    async def in_spool(self) -> list[int]:
        """What the disk still has, as a start would find it."""
        records = await asyncio.to_thread(self.log.read, 1, 2**40)
        return [number for record in records for number in marks(record.envelope.payload)]

    @property
    def pending(self) -> int:
        return self.books()["pending"]

    def books(self) -> dict[str, int]:
        """The books, which balance at any moment between two turns of the event loop."""
        return assert_books_balance(self.metrics)

    async def delivered(self) -> None:
        """Until nothing is pending."""
        await until(lambda: not self.pending)

    async def stop(self, *, backend_flushed: bool = False) -> None:
        self.pipeline.backend_ended(flushed=backend_flushed)
        await self.pipeline.stop()
        assert all(len(asked.answers) == 1 for asked in self.asked), "an offer without one answer"
        self.books()
