"""Joins records of one tenant into batches bounded by spans, bytes and age. Pure: time is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from gateway.pipeline.records import Record


class Batch(NamedTuple):
    """Records of one tenant for one delivery; at least one."""

    tenant: str
    records: Sequence[Record]
    spans: int
    size: int
    """Bytes of the joined payload."""

    def payload(self) -> bytes:
        """The records as one request: concatenated protobuf messages merge."""
        if len(self.records) == 1:
            return self.records[0].envelope.payload
        return b"".join([record.envelope.payload for record in self.records])

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches with the same records in the same order; needs at least two records."""
        middle = len(self.records) // 2
        return batch_of(self.records[:middle]), batch_of(self.records[middle:])


def batch_of(records: Sequence[Record]) -> Batch:
    """One batch of records that share a tenant."""
    return Batch(
        records[0].envelope.tenant,
        records,
        sum(record.envelope.spans for record in records),
        sum(len(record.envelope.payload) for record in records),
    )


class _Open:
    __slots__ = ("records", "since", "size", "spans")

    def __init__(self, since: float) -> None:
        self.records: list[Record] = []
        self.spans = 0
        self.size = 0
        self.since = since


class Batcher:
    """Open batches, one a tenant. Holds at most ``max_bytes`` and ``max_spans`` for each."""

    def __init__(self, *, max_spans: int, max_bytes: int, max_age_s: float) -> None:
        self._max_spans = max_spans
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._open: dict[str, _Open] = {}
        self.size = 0
        """Bytes of all open batches."""

    def __len__(self) -> int:
        return sum(len(batch.records) for batch in self._open.values())

    def add(self, record: Record, since: float) -> list[Batch]:
        """Take a record that has waited since then; returns the batches that are full by it.

        A record larger than the limits becomes a batch of its own. Order within a tenant is kept.
        """
        envelope = record.envelope
        size = len(envelope.payload)
        full: list[Batch] = []
        batch = self._open.get(envelope.tenant)
        if batch is not None and (
            batch.size + size > self._max_bytes or batch.spans + envelope.spans > self._max_spans
        ):
            full.append(self._close(envelope.tenant))
            batch = None
        if batch is None:
            batch = self._open[envelope.tenant] = _Open(since)
        batch.records.append(record)
        batch.spans += envelope.spans
        batch.size += size
        self.size += size
        if batch.size >= self._max_bytes or batch.spans >= self._max_spans:
            full.append(self._close(envelope.tenant))
        return full

    def due(self, now: float, *, busy: Container[str] = ()) -> list[Batch]:
        """Batches whose oldest record has waited ``max_age_s``; those of ``busy`` tenants go on
        filling, since they could not be sent.
        """
        # The same sum as in next_due, or rounding could say that the time has come to one only.
        old = [t for t, since in self._since(busy) if since + self._max_age_s <= now]
        return [self._close(tenant) for tenant in old]

    def flush(self, *, busy: Container[str] = ()) -> list[Batch]:
        """All that is open, but for ``busy`` tenants'."""
        return [self._close(tenant) for tenant, _ in self._since(busy)]

    def next_due(self, *, busy: Container[str] = ()) -> float | None:
        """When ``due`` will have something; None when nothing is open."""
        moments = [since for _, since in self._since(busy)]
        return min(moments) + self._max_age_s if moments else None

    def _since(self, busy: Container[str]) -> list[tuple[str, float]]:
        return [(t, batch.since) for t, batch in self._open.items() if t not in busy]

    def _close(self, tenant: str) -> Batch:
        batch = self._open.pop(tenant)
        self.size -= batch.size
        return Batch(tenant, batch.records, batch.spans, batch.size)
