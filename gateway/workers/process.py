"""One life of a worker's process, as the parent has it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gateway.tempo import launcher
from gateway.workers.link import Link


class WorkerProcess:
    """Made by ``start``. Dies with this process."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        sock: socket.socket,
        changed: Callable[[], None],
    ) -> None:
        self.number = number
        self.pid = process.pid
        self.link = Link(f"worker {number}")
        self.last_answers: dict[str, Any] = {}
        """By what it was asked."""
        self.is_listening = False
        self.is_drained = False
        """It has delivered what it could, and waits for the end of the backend."""
        self.is_finished = False
        """It has nothing more to do but to end."""
        self.left = 0
        """Spans that it has left in its spool, told when it has finished."""
        self.handed_over = 0
        """Spans that it has given to another gateway at the end, told with it."""
        self._process = process
        self._sock = sock
        self._changed = changed
        self.link.hear("listening", lambda _: self._listens())
        self.link.hear("finished", self._has_finished)

    def _listens(self) -> None:
        self.is_listening = True
        self._changed()

    def has_drained(self) -> None:
        self.is_drained = True
        self._changed()

    def _has_finished(self, told: list[int]) -> None:
        self.left, self.handed_over = told
        self.is_finished = True
        self._changed()

    @classmethod
    async def start(
        cls, number: int, arguments: Sequence[str], changed: Callable[[], None]
    ) -> WorkerProcess:
        """``arguments`` go behind ``python -m gateway``; ``changed`` is called when it comes to
        listen and when it has drained. Raises OSError where no process can be made.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *launcher.launch(launcher.AS_PARENT),
                    *(sys.executable, "-m", "gateway", *arguments, "--link", str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # Ctrl-C reaches the whole group of a terminal; the order of the stop is ours.
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        return cls(number, process, ours, changed)

    async def open(self) -> None:
        """From now on it can be told and asked."""
        await self.link.open(self._sock)

    async def live(self) -> int:
        """Listen to it until it has ended; its exit code, negative for a signal."""
        await self.link.run()
        return await self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
