"""What a gateway keeps in its data directory for delivery: one spool for each of its processes."""

from __future__ import annotations

import logging
from pathlib import Path

from gateway.lifecycle import StartError
from gateway.pipeline.directory_lock import DirectoryLock, SpoolLocked
from gateway.pipeline.segment_file import Name
from gateway.pipeline.segments import SegmentLog, SpoolError
from gateway.pipeline.spool import DiskSpool
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)


class DataDirectory:
    """``lock`` is for a whole gateway; each of its processes opens its spool."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = DirectoryLock(path)

    def lock(self) -> None:
        """Until ``unlock``, or the end of the process. Raises StartError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except (OSError, SpoolLocked) as error:
            raise _unusable(error) from error

    def unlock(self) -> None:
        """Safe twice, and before ``lock``."""
        self._lock.release()

    def open_spool(self, name: str, *, max_bytes: int, fsync: bool = False) -> DiskSpool:
        """Raises StartError."""
        log = SegmentLog(self.path / name, max_bytes=max_bytes, fsync=fsync)
        try:
            return DiskSpool(log, log.open())
        except (SpoolError, SpoolLocked) as error:
            raise _unusable(error) from error

    def names(self) -> list[str]:
        """Of the directories in it."""
        return [path.name for path in self.path.iterdir() if path.is_dir()]

    def remove_spool(self, name: str) -> None:
        """Once all is delivered. What it still holds is kept: a segment that cannot be read, or
        files of somebody else's.
        """
        files = list((self.path / name).iterdir())
        if any(map(_is_worth_keeping, files)):
            logger.warning("spool not empty, kept", extra=facts(directory=self.path / name))
            return
        for file in files:
            file.unlink()
        (self.path / name).rmdir()


def _is_worth_keeping(path: Path) -> bool:
    """A log leaves behind its lock and the segment that it would have written to next."""
    is_segment = Name.parse(path.name) is not None
    return path.name != DirectoryLock.NAME and not (is_segment and path.stat().st_size == 0)


def _unusable(error: Exception) -> StartError:
    return StartError(
        f"the spool cannot be used: {error}; GATEWAY_DATA_DIR must be writable and of this"
        " gateway alone (GATEWAY_SPOOL_BYTES=0 does without a spool)"
    )
