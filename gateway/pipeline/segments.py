"""The spool on disk: an append-only log of envelopes in numbered segments.

Synchronous. Each of ``append``, ``read`` and ``release`` may be called from one thread at a time,
and a call of one may overlap calls of the others: I/O runs outside the lock that guards what they
share. ``open`` and ``close`` are called alone. The figures may be read from any thread.

What ``append`` returned for survives a SIGKILL, since it is in the kernel's page cache; with
``fsync`` it survives a crash of the machine too. docs/durability.md has the format, the rules of
recovery and the reasons.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.envelope import Envelope
from gateway.pipeline.directory_lock import DirectoryLock
from gateway.pipeline.framing import HEADER_BYTES, MARK_BYTES, encode_head, record_bytes
from gateway.pipeline.records import Record
from gateway.pipeline.segment_file import Name, Segment
from gateway.pipeline.segment_index import Damage, Piece
from gateway.pipeline.segment_list import SegmentList
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 2**20
_READ_BYTES = 2**20
"""Read at once and cut into records, so that a read holds no more than this twice."""


class SpoolFull(Exception):  # noqa: N818 - reads as what happened, as Refused does
    """The cap leaves no room for these envelopes; nothing was written."""

    def __init__(self, needed_bytes: int, size_bytes: int, max_bytes: int) -> None:
        super().__init__(f"{needed_bytes} bytes do not fit: {size_bytes} of {max_bytes} are taken")
        self.needed_bytes = needed_bytes
        self.size_bytes = size_bytes
        self.max_bytes = max_bytes


class SpoolError(OSError):
    """The disk failed, with its ``errno``; nothing of what was to be written is in the log."""

    @classmethod
    def of(cls, error: OSError) -> SpoolError:
        return cls(error.errno, error.strerror or str(error), *filter(None, (error.filename,)))


class Recovery(NamedTuple):
    """What ``open`` found: records to be delivered, and damage."""

    segments: int
    records: int
    spans: int
    lost: Damage
    """Records neither whole nor released. Where a run of damage has no end their number is not
    known and counted as one; their spans are known where the header was sound.
    """
    torn_bytes: int
    """Of records that were cut off while they were written, so nobody was told OK for them."""

    def facts(self) -> dict[str, int]:
        values = self._asdict() | self.lost.facts()
        return {key: value for key, value in values.items() if key != "lost"}


class SegmentLog:
    """A log of envelopes in *directory*, which takes at most *max_bytes* of disk.

    *segment_bytes* is the size at which a new segment is begun, at most an eighth of the cap,
    since space comes back a segment at a time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: bool,
    ) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max_bytes // 8)
        self.fsync = fsync
        self._lock = DirectoryLock(directory)
        self._segments = SegmentList()
        self._next_sequence = 1
        self._active: Segment | None = None
        self._writer = threading.Lock()
        """Held while the active segment is written or replaced."""

    @property
    def size_bytes(self) -> int:
        """Bytes on disk; the 12 that the release of a record takes are counted beforehand."""
        return self._segments.size_bytes

    @property
    def only_writes(self) -> bool:
        """True while the next ``append`` has one file to write to and none to begin or delete."""
        active = self._active
        return active is not None and not (self._is_full(active) or self._is_finished(active))

    @property
    def pending_records(self) -> int:
        return self._segments.pending_records

    @property
    def pending_spans(self) -> int:
        return self._segments.pending_spans

    @property
    def damage(self) -> Damage:
        """What ``read`` found damaged; what ``open`` found is in its answer."""
        return self._segments.damage

    def __repr__(self) -> str:
        return (
            f"<SegmentLog {self.size_bytes / 2**20:.1f}/{self.max_bytes / 2**20:.1f} MiB, "
            f"{self.pending_records} records, {self.pending_spans} spans, "
            f"{len(self._segments)} segments>"
        )

    # Open and close.

    def open(self) -> Recovery:
        """Lock the directory and find what was not released. Raises SpoolLocked, or SpoolError
        where the directory cannot be made, locked or listed; never for what the files hold.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire()
            recovery = self._recover()
        except OSError as error:
            self._lock.release()
            raise SpoolError.of(error) from error
        try:
            with self._writer:
                self._roll()
        except OSError as error:  # the next append meets it again, and raises
            logger.warning("spool not writable", extra=facts(error=error))
        return recovery

    def _recover(self) -> Recovery:
        lost, torn_bytes = Damage(), 0
        for segment in self._found_segments():
            segment_lost, segment_torn_bytes = segment.recover()
            lost = lost.plus(segment_lost)
            torn_bytes += segment_torn_bytes
            self._segments.insert(segment)
            # Damaged bytes may have held sequences; none is given out twice.
            unknown = (segment_lost.bytes + segment_torn_bytes) // HEADER_BYTES
            end = segment.first + len(segment.index) + unknown
            self._next_sequence = max(self._next_sequence, end)
        recovery = Recovery(
            len(self._segments), self.pending_records, self.pending_spans, lost, torn_bytes
        )
        logger.info("spool open", extra=facts(directory=self.directory, **recovery.facts()))
        return recovery

    def _found_segments(self) -> Iterator[Segment]:
        """The segments by name. Foreign files are left alone; lists without their log go."""
        paths = sorted(self.directory.iterdir())
        logs = {path.stem for path in paths if (name := Name.parse(path.name)) and name.is_log}
        for path in paths:
            name = Name.parse(path.name)
            if name is None or not path.is_file():
                if path.name != DirectoryLock.NAME:
                    logger.warning("spool file not known", extra=facts(path=path))
            elif name.is_log:
                yield Segment(path, name)
            elif path.stem not in logs:
                with contextlib.suppress(OSError):  # it is in nobody's way
                    path.unlink()

    def close(self) -> None:
        """Write what is to be known of releases and unlock the directory. Safe twice."""
        with self._writer:
            if self._active is not None:
                self._active.seal()
                self._active = None
        for segment in self._segments:
            segment.mark(())
        self._lock.release()

    # Append.

    def append(self, envelopes: Sequence[Envelope]) -> int:
        """Write all of them with one system call, and one sync with ``fsync``; returns the
        sequence of the first, the others follow. Raises SpoolFull or SpoolError, and then has
        taken none; the log can be used on and takes envelopes again once the disk does.
        """
        with self._writer:
            try:
                self._replace_finished()
                sizes = [record_bytes(envelope) for envelope in envelopes]
                self._check_room(sum(sizes) + MARK_BYTES * len(sizes))
                return self._write(self._writable_segment(), envelopes, sizes)
            except OSError as error:
                raise SpoolError.of(error) from error

    def _check_room(self, needed_bytes: int) -> None:
        if self.size_bytes + needed_bytes > self.max_bytes:
            raise SpoolFull(needed_bytes, self.size_bytes, self.max_bytes)

    def _writable_segment(self) -> Segment:
        active = self._active
        if active is None or self._is_full(active):
            active = self._roll()
        return active

    def _is_full(self, segment: Segment) -> bool:
        return segment.index.end >= self._segment_bytes

    @staticmethod
    def _is_finished(segment: Segment) -> bool:
        return not segment.index.pending_records and len(segment.index) > 0

    def _write(self, segment: Segment, envelopes: Sequence[Envelope], sizes: list[int]) -> int:
        first, marker = self._next_sequence, segment.marker
        buffers = []
        for sequence, envelope in enumerate(envelopes, first):
            buffers.append(encode_head(marker, sequence, envelope))
            buffers.append(envelope.payload)
        try:
            segment.write(buffers, sum(sizes), fsync=self.fsync)
        except BaseException:
            if not segment.writable:
                # Whole records may have stayed in it: their sequences are not used again.
                self._active = None
                self._next_sequence += len(sizes)
                self._segments.add_garbage(segment)
            raise
        self._segments.add_records(segment, envelopes, sizes)
        self._next_sequence += len(sizes)
        return first

    def _roll(self) -> Segment:
        """Begin a new segment. The newest one stays even when it is finished, for its name says
        where the sequences go on after a restart.
        """
        segment = Segment.create(self.directory, self._next_sequence, fsync=self.fsync)
        self._segments.insert(segment)
        previous, self._active = self._active, segment
        if previous is not None:
            previous.seal()
        self._segments.delete_finished()
        return segment

    def _replace_finished(self) -> None:
        active = self._active
        if active is not None and self._is_finished(active):
            self._roll()

    # Read.

    def read(self, sequence: int, max_bytes: int) -> list[Record]:
        """The next pending records from *sequence* on, in order: as many as *max_bytes* of the
        log hold, but at least one if there is any. Each is checked; damaged ones are passed over
        for good and counted in ``damage``. Raises SpoolError where the log cannot be read now.
        """
        records: list[Record] = []
        room = max_bytes
        for segment in self._segments:
            number = max(0, sequence - segment.first)
            while piece := self._segments.next_piece(segment, number, min(room, _READ_BYTES)):
                size = piece.end - piece.begin
                if records and size > room:
                    return records
                records += self._load(segment, piece)
                number = piece.stop
                room -= size
        return records

    def _load(self, segment: Segment, piece: Piece) -> list[Record]:
        records, damaged = [], []
        try:
            for number, envelope in segment.read(piece):
                if envelope is None:
                    damaged.append(number)
                else:
                    records.append(Record(segment.first + number, envelope))
        except OSError as error:
            raise SpoolError.of(error) from error
        if damaged and (loss := self._segments.lose(segment, damaged)).records:
            event = facts(segment=segment.path.name, **loss.facts())
            logger.error("spool segment damaged", extra=event)
        return records

    # Release.

    def release(self, sequences: Iterable[int]) -> None:
        """These need never be read again, also after a restart; a segment of which nothing is
        pending is deleted. Sequences that are not pending are passed over. Never raises for what
        the disk does: a release that could not be written is tried again with the next one of its
        segment, and a restart before that delivers it twice.
        """
        settled = self._segments.settle(sequences)
        self._replace_if_idle()
        self._segments.delete_finished()
        for segment, runs in settled.items():
            segment.mark(runs)

    def _replace_if_idle(self) -> None:
        """Replace a finished active segment, unless an append is about to give it a record."""
        if self._writer.acquire(blocking=False):
            try:
                self._replace_finished()
            except OSError as error:  # the next append meets it again, and raises
                logger.debug("spool segment not replaced", extra=facts(error=error))
            finally:
                self._writer.release()
