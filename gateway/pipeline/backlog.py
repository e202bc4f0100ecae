"""What waits for delivery: its head in memory, the rest on disk only. Bookkeeping without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gateway.access.budget import MemoryBudget
from gateway.envelope import Envelope
from gateway.pipeline.records import Record

RECORD_OVERHEAD = 400
"""Bytes of Python objects that one record in memory costs beside its payload."""


def footprint(envelope: Envelope) -> int:
    """Bytes that its record costs in memory."""
    return len(envelope.payload) + RECORD_OVERHEAD


class Backlog:
    """Records in order of their sequence.

    A new record stays in memory while the budget has room. From the first that finds none, all
    are on disk only (``behind`` says from where), until reading them back has caught up.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        """``budget`` is for this backlog alone: what others hold of it could stop delivery."""
        self._budget = budget
        self.records: deque[Record] = deque()
        """The head."""
        self.newest = 0
        self.size = 0
        """Bytes of payload in the head."""
        self.spans = 0
        """Spans in the head."""
        self.behind: int | None = None
        """First sequence that is on disk only; None when everything is in memory."""

    def __repr__(self) -> str:
        behind = "" if self.behind is None else f", on disk from {self.behind}"
        return (
            f"<Backlog {len(self.records)} records, {self.size / 2**20:.1f} MiB in memory{behind}>"
        )

    @property
    def idle(self) -> bool:
        """Nothing waits, in memory or on disk."""
        return not self.records and self.behind is None

    def add(self, record: Record) -> None:
        """Take a record that the spool has just written."""
        self.newest = record.sequence
        if self.behind is None and not self.keep(record):
            self.behind = record.sequence

    def recovered(self) -> None:
        """Note that the spool already holds records, from the first sequence there is."""
        self.behind = 1

    def keep(self, record: Record) -> bool:
        """Put a record into memory if there is room. The first one always finds room, so that
        delivery goes on however small the budget is.
        """
        envelope = record.envelope
        size = len(envelope.payload)
        if not self._budget.try_reserve(size + RECORD_OVERHEAD, or_first=True):
            return False
        self.records.append(record)
        self.size += size
        self.spans += envelope.spans
        return True

    def take(self) -> Record:
        """The oldest record in memory; its memory stays reserved until ``done``."""
        record = self.records.popleft()
        envelope = record.envelope
        self.size -= len(envelope.payload)
        self.spans -= envelope.spans
        return record

    def done(self, records: Sequence[Record]) -> None:
        """These records, taken before, are no longer in memory."""
        payloads = sum([len(record.envelope.payload) for record in records])
        self._budget.release(payloads + RECORD_OVERHEAD * len(records))

    def refill(self, records: Sequence[Record], *, seen: int) -> None:
        """Take what was read from ``behind`` on; ``seen`` was ``newest`` before the read, so that
        an empty read means that nothing up to there is left.

        Records that find no room stay on disk for the next time.
        """
        assert self.behind is not None  # noqa: S101 - only then is there something to read
        for record in records:
            if not self.keep(record):
                return
            self.behind = record.sequence + 1
        if not records:
            self.behind = max(self.behind, seen + 1)
        # Where the recovered records end is not known, so being beyond ``newest`` says nothing
        # while there are some.
        if self.behind == self.newest + 1 or (not records and self.behind > self.newest):
            self.behind = None
