"""Which records a segment holds, where they are, and which of them are done with.

Pure: ``scan`` rebuilds an index from the bytes of a segment through a function that reads them.
"""

from __future__ import annotations

import errno
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple
from zlib import crc32

from gateway.pipeline.framing import HEADER_BYTES, Header, header_at, sound_records

BLOCK_BYTES = 256 * 1024
"""A scan holds one block of this size in memory, whatever the size of segment and records."""

Run = tuple[int, int]
"""Consecutive records: the number of the first, and the one after the last."""

Read = Callable[[int, int], bytes]
"""(offset, size) -> that many bytes from there; may raise OSError."""


class Damage(NamedTuple):
    """What was found damaged: records and spans as far as they are known, and bytes."""

    records: int = 0
    spans: int = 0
    bytes: int = 0

    def plus(self, other: Damage) -> Damage:
        return Damage(*map(sum, zip(self, other, strict=True)))

    def facts(self) -> dict[str, int]:
        return {
            "lost_records": self.records,
            "lost_spans": self.spans,
            "damaged_bytes": self.bytes,
        }


class Piece(NamedTuple):
    """Records ``start`` up to but not with ``stop``, which are bytes ``begin`` to ``end``."""

    start: int
    stop: int
    begin: int
    end: int


class SegmentIndex:
    """The records of one segment by number, counted from 0; 13 bytes of memory for each.

    A record is pending until it is settled: released, or lost to damage.
    """

    __slots__ = ("_offsets", "_settled", "_spans", "end", "pending_records", "pending_spans")

    def __init__(self) -> None:
        self._offsets = array("Q")
        self._spans = array("I")
        self._settled = bytearray()
        self.end = 0
        """Where the last known record ends, in bytes."""
        self.pending_records = 0
        self.pending_spans = 0

    def __len__(self) -> int:
        return len(self._settled)

    def add(self, sizes: Sequence[int], spans: Sequence[int]) -> None:
        """More records, which take these numbers of bytes from where the last ended."""
        end, add_offset = self.end, self._offsets.append
        for size in sizes:
            add_offset(end)
            end += size
        self.end = end
        self._spans.extend(spans)
        self._settled.extend(bytes(len(sizes)))
        self.pending_records += len(sizes)
        self.pending_spans += sum(spans)

    def settle(self, start: int, stop: int) -> list[Run]:
        """Settle these records; returns the runs of them that were still pending."""
        settled, stop = self._settled, min(stop, len(self))
        runs = []
        while (first := settled.find(0, start, stop)) >= 0:
            start = settled.find(1, first, stop)
            if start < 0:
                start = stop
            settled[first:start] = b"\1" * (start - first)
            self.pending_records -= start - first
            self.pending_spans -= sum(self._spans[first:start])
            runs.append((first, start))
        return runs

    def spans_of(self, number: int) -> int:
        return self._spans[number]

    def size_of(self, number: int) -> int:
        return self._start_of(number + 1) - self._offsets[number]

    def offset_of(self, number: int) -> int:
        return self._offsets[number]

    def piece(self, start: int, max_bytes: int) -> Piece | None:
        """The next pending records from number *start* on that lie together in the file, as many
        as *max_bytes* hold but at least one; None if none is pending.
        """
        start = self._settled.find(0, start)
        if start < 0:
            return None
        stop = self._settled.find(1, start)
        if stop < 0:
            stop = len(self)
        begin, end = self._offsets[start], self._start_of(stop)
        if end - begin > max_bytes:
            stop = bisect_right(self._offsets, begin + max_bytes, start + 1, stop) - 1
            stop = max(stop, start + 1)
            end = self._start_of(stop)
        return Piece(start, stop, begin, end)

    def _start_of(self, number: int) -> int:
        return self._offsets[number] if number < len(self) else self.end


class Scan:
    """What was found in a segment.

    Records that are lost have their number in the index, as pending, and are listed in ``lost``:
    only who knows which ones were released can tell whether that is a loss.
    """

    def __init__(self) -> None:
        self.index = SegmentIndex()
        self.lost: list[int] = []
        self.damaged_bytes = 0
        self.torn_bytes = 0
        """Of a record at the end that was cut off while it was written."""
        self.error: OSError | None = None
        """Set where the rest of the segment could not be read; it counts as damaged."""

    def whole(self, header: Header) -> None:
        self.index.add((header.record_bytes,), (header.spans,))

    def damaged_body(self, header: Header) -> None:
        self.lost.append(len(self.index))
        self.damaged_bytes += header.record_bytes
        self.whole(header)

    def gap(self, size: int, records: int) -> None:
        """*size* bytes in which this number of records were."""
        self.damaged_bytes += size
        self.lost += range(len(self.index), len(self.index) + records)
        self.index.add([0] * records, [0] * records)
        self.index.end += size


def scan(read: Read, size: int, marker: bytes, first: int) -> Scan:
    """Walk the *size* bytes of the segment whose records are numbered from sequence *first*.

    Never fails for what the bytes are. A record is taken for whole only if both checksums hold and
    its sequence fits its place: the one expected, or as far ahead as the damaged bytes before it
    could have held records.
    """
    found = Scan()
    window = _Window(read, size)
    try:
        _walk(found, window, marker, first)
    except OSError as error:
        found.error = error
        found.gap(size - found.index.end, records=1)
    return found


def _walk(found: Scan, window: _Window, marker: bytes, first: int) -> None:
    index, size, offset = found.index, window.size, 0
    while size - offset >= HEADER_BYTES:
        place = window.seek(offset, HEADER_BYTES)
        if offset == index.end:
            sizes, spans = sound_records(window.data, place, marker, first + len(index))
            if sizes:
                index.add(sizes, spans)
                offset = index.end
                continue
        header = header_at(window.data, place, marker)
        damaged = offset - index.end
        missing = header.sequence - first - len(index) if header else 0
        if header is None or not 0 <= missing <= damaged // HEADER_BYTES:
            offset = window.find(marker, offset + 1)
            continue
        if damaged:
            found.gap(damaged, missing)
        if offset + header.record_bytes > size:
            break
        if window.crc(offset + HEADER_BYTES, header.body_bytes) == header.body_crc:
            found.whole(header)
        else:
            found.damaged_body(header)
        offset = index.end
    if offset == index.end:
        found.torn_bytes = size - offset
    else:
        found.gap(size - index.end, records=1)


class _Window:
    """A block of the file in memory that moves over it."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._start = 0
        self.size = size
        self.data = b""

    def seek(self, offset: int, need: int) -> int:
        """Bring the *need* bytes from *offset* into ``data``; returns their place in it."""
        start = self._start
        if not start <= offset <= offset + need <= start + len(self.data):
            self.data = self._read(offset, max(need, BLOCK_BYTES))
            self._start = offset
            if len(self.data) < need:
                raise OSError(errno.EIO, "the file became shorter while it was read")
        return offset - self._start

    def crc(self, offset: int, length: int) -> int:
        crc, end = 0, offset + length
        while offset < end:
            step = min(end - offset, BLOCK_BYTES)
            place = self.seek(offset, step)
            crc = crc32(self.data[place : place + step], crc)
            offset += step
        return crc

    def find(self, marker: bytes, offset: int) -> int:
        """Where *marker* is next, from *offset* on; ``size`` if nowhere."""
        while offset + len(marker) <= self.size:
            place = self.seek(offset, len(marker))
            place = self.data.find(marker, place)
            if place >= 0:
                return self._start + place
            # What is left may be the first bytes of a marker.
            offset = self._start + len(self.data) - len(marker) + 1
        return self.size
