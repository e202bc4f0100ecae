"""Disks that are really full or read-only."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path


class SmallDisk:
    """A tmpfs of a fixed size, mounted on an empty directory; needs to be root."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._size_bytes = size_bytes

    def mount(self) -> bool:
        """False where this machine does not let us."""
        options = f"size={self._size_bytes},mode=0700"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    def remount(self, *, read_only: bool) -> None:
        mode = "ro" if read_only else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)

    def fill(self) -> Path:
        """Take all the space that is left; returns the file to delete to give it back."""
        path = self.path / "ballast"
        with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass
        return path


@contextlib.contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Within it a write of this process beyond that offset of a file fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
