"""One process at a time in a directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path


class SpoolLocked(Exception):  # noqa: N818 - reads as what happened, as Refused does
    """Another process, or another part of this one, has the directory open."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"{directory} is in use by {holder}")
        self.directory = directory
        self.pid = pid


class DirectoryLock:
    """Holds ``flock`` on the file ``lock`` in a directory, from ``acquire`` to ``release``.

    The kernel gives it up when the process ends, however it ends, so it is never stale. Where the
    file system is read-only, a lock file that is there from before serves.
    """

    NAME = "lock"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises SpoolLocked, or OSError where the directory allows no lock."""
        fd = self._open_file()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(fd)
            os.close(fd)
            raise SpoolLocked(self._directory, pid) from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        # The process id is a help for people; the lock holds without it, also on a full disk.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def _open_file(self) -> int:
        path = self._directory / self.NAME
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise
            return os.open(path, os.O_RDONLY)

    def release(self) -> None:
        """Safe twice. The file stays: to remove it would let two processes hold two locks."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
