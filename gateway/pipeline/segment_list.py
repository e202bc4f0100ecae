"""The segments of a spool in order, and the books over them.

What several threads share is here and nowhere else: every change of an index, of the list or of
the sums is made under one lock, which is never held during I/O.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from gateway.envelope import Envelope
from gateway.pipeline.framing import MARK_BYTES
from gateway.pipeline.segment_file import Segment
from gateway.pipeline.segment_index import Damage, Piece, Run


class SegmentList:
    """Iterating needs no lock, since the list is replaced and never changed."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.damage = Damage()
        self._segments: list[Segment] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def pending_records(self) -> int:
        return sum(segment.index.pending_records for segment in self._segments)

    @property
    def pending_spans(self) -> int:
        return sum(segment.index.pending_spans for segment in self._segments)

    def insert(self, *segments: Segment) -> None:
        with self._lock:
            # An empty segment sorts before the one that has the same first sequence.
            self._segments = sorted(
                [*self._segments, *segments],
                key=lambda segment: (segment.first, len(segment.index)),
            )
            self.size_bytes += sum(segment.footprint for segment in segments)

    def add_records(
        self, segment: Segment, envelopes: Sequence[Envelope], sizes: Sequence[int]
    ) -> None:
        """These are in the segment's file now."""
        with self._lock:
            segment.index.add(sizes, [envelope.spans for envelope in envelopes])
            self.size_bytes += sum(sizes) + MARK_BYTES * len(sizes)

    def add_garbage(self, segment: Segment) -> None:
        with self._lock:
            self.size_bytes += segment.garbage_bytes

    def next_piece(self, segment: Segment, number: int, max_bytes: int) -> Piece | None:
        with self._lock:
            return segment.index.piece(number, max_bytes)

    def lose(self, segment: Segment, numbers: Iterable[int]) -> Damage:
        """These records are damaged; returns the loss. Those released meanwhile are none."""
        index, loss = segment.index, Damage()
        with self._lock:
            for number in numbers:
                if index.settle(number, number + 1):
                    loss = loss.plus(Damage(1, index.spans_of(number), index.size_of(number)))
            self.damage = self.damage.plus(loss)
        return loss

    def settle(self, sequences: Iterable[int]) -> dict[Segment, list[Run]]:
        """Settle those of these that are pending; returns them by segment, numbered in it."""
        settled: dict[Segment, list[Run]] = {}
        runs = tuple(runs_of(sequences))
        with self._lock:
            for start, stop in runs:
                for segment in self._between(start, stop):
                    first = segment.first
                    pending = segment.index.settle(max(0, start - first), stop - first)
                    settled.setdefault(segment, []).extend(pending)
        return settled

    def _between(self, start: int, stop: int) -> Iterator[Segment]:
        at = bisect_right(self._segments, start, key=lambda segment: segment.first) - 1
        for segment in self._segments[max(0, at) :]:
            if segment.first >= stop:
                break
            yield segment

    def delete_finished(self) -> None:
        """Delete the files of sealed segments of which nothing is pending."""
        with self._lock:
            finished = [segment for segment in self._segments if segment.finished]
            if not finished:
                return
            self._segments = [s for s in self._segments if s not in finished]
            self.size_bytes -= sum(s.footprint for s in finished)
        self.insert(*(segment for segment in finished if not segment.remove()))


def runs_of(numbers: Iterable[int]) -> Iterator[Run]:
    """Runs of consecutive numbers, each as its first and the one after its last."""
    start = stop = None
    for number in sorted(set(numbers)):
        if number != stop:
            if start is not None and stop is not None:
                yield start, stop
            start = number
        stop = number + 1
    if start is not None and stop is not None:
        yield start, stop
