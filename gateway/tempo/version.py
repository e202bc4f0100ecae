"""Which Tempo a binary is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

_VERSION = re.compile(r"version v?(\d+)\.(\d+)\.(\d+)")
TIMEOUT_S = 10.0


class BinaryError(Exception):
    """A file that is no Tempo that runs here; the text says why."""


class Version(NamedTuple):
    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return ".".join(map(str, self))


def read_version(binary: Path) -> Version:
    """Ask the binary. Blocks for some 50 ms. Raises BinaryError."""
    try:
        answer = subprocess.run(  # noqa: S603 - the operator's own program
            [binary, "-version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except OSError as error:
        raise BinaryError(f"{binary} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise BinaryError(f"{binary} cannot be run: {error}") from error
    match = _VERSION.search(answer.stdout + answer.stderr)
    if match is None:
        raise BinaryError(f"{binary} does not say that it is Tempo: {answer.stdout.strip()[:200]}")
    return Version(*map(int, match.groups()))
