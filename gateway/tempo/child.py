"""One life of a child process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.tempo import launcher

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

LAST_WORDS_S = 1.0
"""For output to arrive after the end; what the child has left running may hold the pipe open."""


class Program(NamedTuple):
    """What to run."""

    command: Sequence[str]
    env: Mapping[str, str]
    """All of the child's environment."""


class Usage(NamedTuple):
    """What a process has cost."""

    cpu_s: float
    """Of all its threads, user and system, since its start."""
    rss_bytes: int


class Child:
    """Made by ``start``. Dies with this process, and is reaped by ``wait``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, program: Program) -> Child:
        """Raises OSError where no process can be made. A program that cannot be run is a child
        that says so and ends.
        """
        process = await asyncio.create_subprocess_exec(
            *launcher.launch(launcher.GOES_FIRST),
            *program.command,
            env=dict(program.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C reaches the whole group of a terminal; the order of the stop is ours.
            start_new_session=True,
        )
        return cls(process)

    @property
    def output(self) -> asyncio.StreamReader:
        """Its stdout and stderr; has to be read, else it blocks."""
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        return self._process.stdout

    async def wait(self) -> int:
        """Until it has ended; its exit code, negative for a signal."""
        return await self._process.wait()

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def read_usage(pid: int) -> Usage | None:
    """From /proc; None where there is none, or no such process. Blocks for some 50 us."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    # Fields 14 and 15 of proc(5), counted after the name, which may contain anything.
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS_PER_S, pages * _PAGE_BYTES)
