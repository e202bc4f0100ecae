"""One segment of the spool: a log of records, and beside it the list of those released."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.envelope import Envelope
from gateway.pipeline.framing import (
    HEADER_BYTES,
    MARK_BYTES,
    MARKER_BYTES,
    compose,
    decode,
    decode_marks,
    encode_marks,
    header_at,
)
from gateway.pipeline.segment_index import Damage, Piece, Run, Scan, SegmentIndex, scan
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

_LOG, _MARKS = ".log", ".released"
_NAME = re.compile(rf"(\d{{20}})-([0-9a-f]{{{2 * MARKER_BYTES}}})({_LOG}|{_MARKS})")
_PRIVATE = 0o600  # spans may hold personal data
_IOV_MAX = os.sysconf("SC_IOV_MAX")
# Syncs the size of the file too, but not its times; macOS has only the stronger one.
_datasync = getattr(os, "fdatasync", os.fsync)


class Name(NamedTuple):
    """What the name of a segment's file says. It holds what would be a file header, so that
    damage to the file's first block cannot spoil the rest.
    """

    first: int
    marker: bytes
    is_log: bool

    @classmethod
    def parse(cls, text: str) -> Name | None:
        match = _NAME.fullmatch(text)
        return match and cls(int(match[1]), bytes.fromhex(match[2]), match[3] == _LOG)


class Segment:
    """Records with the sequences from ``first`` on, in the order they were appended.

    ``index`` is its owner's to change, under the owner's lock; the methods here do the I/O.
    """

    def __init__(self, path: Path, name: Name) -> None:
        self.path = path
        self.first = name.first
        self.marker = name.marker
        self.index = SegmentIndex()
        self.garbage_bytes = 0
        """Bytes at the end of the file that are no record."""
        self.unreadable = False
        """True where the disk did not give all of the file; it is then kept for another start."""
        self._fd: int | None = None
        self._marks_path = path.with_suffix(_MARKS)
        self._marks_end = 0
        self._unmarked: list[Run] = []
        self._removed = False
        self._remove_failed = False
        self._removing = threading.Lock()
        """Held so that no list of released ones is made again behind a ``remove``."""

    @classmethod
    def create(cls, directory: Path, first: int, *, fsync: bool) -> Segment:
        """A new segment, open for writing; with *fsync* its entry in *directory* is synced too."""
        name = Name(first, secrets.token_bytes(MARKER_BYTES), is_log=True)
        segment = cls(directory / f"{first:020d}-{name.marker.hex()}{_LOG}", name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        segment._fd = os.open(segment.path, flags, _PRIVATE)
        if fsync:
            try:
                _sync_directory(directory)
            except OSError:
                segment.seal()
                segment.remove()
                raise
        return segment

    @property
    def finished(self) -> bool:
        """Sealed, nothing pending: the files serve nobody any more."""
        return not (self.writable or self.index.pending_records or self.unreadable)

    @property
    def footprint(self) -> int:
        """Bytes on disk, those that the marks of all its records will take included."""
        return self.index.end + self.garbage_bytes + MARK_BYTES * len(self.index)

    def __repr__(self) -> str:
        return f"<Segment {self.path.name} {self.index.pending_records}/{len(self.index)} pending>"

    # Writing, by whoever holds the active segment.

    @property
    def writable(self) -> bool:
        return self._fd is not None

    def write(self, buffers: Sequence[bytes], size: int, *, fsync: bool) -> None:
        """Append *size* bytes, all or nothing. Raises OSError; where what was written could not be
        taken back, or a sync failed, the segment is then no longer writable.
        """
        if self._fd is None:
            raise AssertionError(f"{self} is sealed")
        try:
            _write_all(self._fd, buffers)
        except BaseException:
            self._take_back(self._fd, size)
            raise
        if fsync:
            try:
                _datasync(self._fd)
            except BaseException:
                # The kernel may now hold the pages for clean: a second sync would prove nothing.
                self._take_back(self._fd, size)
                self.seal()
                raise

    def _take_back(self, fd: int, size: int) -> None:
        try:
            os.ftruncate(fd, self.index.end)
        except OSError:
            self.garbage_bytes = size
            self.seal()

    def seal(self) -> None:
        """No more writes. Safe twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    # Reading.

    def read(self, piece: Piece) -> Iterator[tuple[int, Envelope | None]]:
        """The records of *piece* by number; None for one that is damaged."""
        try:
            fd = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:  # released meanwhile, or taken away by somebody
            yield from ((number, None) for number in range(piece.start, piece.stop))
            return
        try:
            # A record alone may be large and is read without the copy that slicing makes.
            data = b"" if piece.stop - piece.start == 1 else _pread(fd, piece.begin, piece.end)
            for number in range(piece.start, piece.stop):
                place = self.index.offset_of(number) - piece.begin
                record = decode(data, place, self.marker) or self._read_one(fd, number)
                sound = record is not None and record[0] == self.first + number
                yield number, record[1] if record and sound else None
        finally:
            os.close(fd)

    def _read_one(self, fd: int, number: int) -> tuple[int, Envelope] | None:
        tenant_at = self.index.offset_of(number) + HEADER_BYTES
        header = header_at(_pread(fd, tenant_at - HEADER_BYTES, tenant_at), 0, self.marker)
        if header is None:
            return None
        payload_at = tenant_at + header.tenant_bytes
        tenant = _pread(fd, tenant_at, payload_at)
        return compose(header, tenant, _pread(fd, payload_at, payload_at + header.payload_bytes))

    # Releasing.

    def mark(self, runs: Sequence[Run]) -> None:
        """Note on disk that these records are released, unless the segment is removed already.
        What cannot be written is kept for the next time; a start before that delivers it twice.
        """
        with self._removing:
            self._unmarked += runs
            if self._removed or not self._unmarked:
                return
            data = encode_marks(self.marker, self._unmarked)
            try:
                written = self._write_marks(data)
            except OSError as error:
                logger.warning("spool release not written", extra=self._facts(error=error))
                return
            if written == len(data):
                self._marks_end += written
                self._unmarked = []

    def _write_marks(self, data: bytes) -> int:
        fd = os.open(self._marks_path, os.O_WRONLY | os.O_CREAT, _PRIVATE)
        try:
            # At its place, not at the end of the file, which may have a torn mark.
            return os.pwrite(fd, data, self._marks_end)
        finally:
            os.close(fd)

    def remove(self) -> bool:
        """Delete the files. False where that fails; said once, as it will be tried again."""
        with self._removing:
            try:
                # In this order: a list without its log is swept at start, a log without its list
                # would be delivered again.
                self.path.unlink(missing_ok=True)
                self._marks_path.unlink(missing_ok=True)
            except OSError as error:
                if not self._remove_failed:
                    logger.warning("spool segment not deleted", extra=self._facts(error=error))
                self._remove_failed = True
                return False
            self._removed = True
            return True

    def _facts(self, **values: object) -> dict[str, object]:
        return facts(segment=self.path.name, **values)

    # Recovery.

    def recover(self) -> tuple[Damage, int]:
        """Fill the index from the files. Returns what was lost and how many bytes of a torn record
        were cut off the end.
        """
        found = self._scan()
        self.index = found.index
        self._recover_marks()
        lost = Damage(bytes=found.damaged_bytes)
        for number in found.lost:
            # A record that was released before it was damaged is no loss.
            if self.index.settle(number, number + 1):
                lost = lost.plus(Damage(records=1, spans=self.index.spans_of(number)))
        self.garbage_bytes = found.torn_bytes
        if found.torn_bytes:
            with contextlib.suppress(OSError):  # then the next start comes by it again
                os.truncate(self.path, self.index.end)
                self.garbage_bytes = 0
        self._log_damage(found, lost)
        return lost, found.torn_bytes

    def _scan(self) -> Scan:
        fd = -1
        try:
            fd = os.open(self.path, os.O_RDONLY)
            size = os.fstat(fd).st_size
            found = scan(lambda at, n: os.pread(fd, n, at), size, self.marker, self.first)
        except OSError as error:
            found = Scan()
            found.error = error
            found.gap(0, records=1)
        finally:
            if fd >= 0:
                os.close(fd)
        self.unreadable = found.error is not None
        return found

    def _recover_marks(self) -> None:
        most = MARK_BYTES * (self.index.end // HEADER_BYTES)
        try:
            fd = os.open(self._marks_path, os.O_RDONLY)
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning("spool release not read", extra=self._facts(error=error))
            return
        try:
            data = _pread(fd, 0, most)
        finally:
            os.close(fd)
        self._marks_end = len(data) - len(data) % MARK_BYTES
        for start, stop in decode_marks(self.marker, data):
            self.index.settle(start, stop)

    def _log_damage(self, found: Scan, lost: Damage) -> None:
        if found.damaged_bytes or found.error:
            event = self._facts(**lost.facts(), error=found.error)
            logger.error("spool segment damaged", extra=event)
        elif found.torn_bytes:
            logger.info("spool tail cut", extra=self._facts(torn_bytes=found.torn_bytes))


def _pread(fd: int, begin: int, end: int) -> bytes:
    """The bytes from *begin* to *end*; fewer, or none, where the disk does not give them."""
    try:
        return os.pread(fd, end - begin, begin)
    except OSError:
        return b""


def _write_all(fd: int, buffers: Sequence[bytes]) -> None:
    """One ``writev`` as a rule; more for over a thousand buffers, or after a short write."""
    for start in range(0, len(buffers), _IOV_MAX):
        group = buffers[start : start + _IOV_MAX]
        left = sum(map(len, group)) - os.writev(fd, group)
        while left:
            left -= os.write(fd, memoryview(b"".join(group))[-left:])


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
