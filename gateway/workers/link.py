"""One line of JSON after the other between the parent and a worker, over a Unix socket.

Either side tells the other something, or asks it and waits for the answer. What is told arrives in
the order in which it was told, answers among it. Both sides are of the same version.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.lifecycle import Tasks
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

MOST_LINE_BYTES = 4 * 2**20
"""Of one message. The read-out of a gateway's metrics is about 20 kB."""
MOST_UNREAD_BYTES = 4 * 2**20
"""What may wait for the other side to read it. Beyond that nothing is told and nothing asked."""

Hearer = Callable[[Any], None]
Answerer = Callable[[Any], Coroutine[Any, Any, Any]]


class Unanswered(Exception):  # noqa: N818 - reads as what happened
    """The other side gave no answer: in time, or since it failed, or since it is gone."""


class Link:
    """One end. ``hear`` and ``answer`` what the other side may tell and ask; ``open``; ``run``.

    What nobody here wants to hear is passed over, so what matters is told again or asked for.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._hearers: dict[str, Hearer] = {}
        self._answerers: dict[str, Answerer] = {}
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._tasks = Tasks(name)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def hear(self, what: str, hearer: Hearer) -> None:
        self._hearers[what] = hearer

    def answer(self, what: str, answerer: Answerer) -> None:
        self._answerers[what] = answerer

    async def open(self, sock: socket.socket) -> None:
        """``sock`` is this end's from now on. What comes in waits for ``run``."""
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=sock, limit=MOST_LINE_BYTES
        )

    async def run(self) -> None:
        """Hear and answer until the other side is gone."""
        assert self._reader is not None  # noqa: S101 - open comes first
        try:
            while line := await self._reader.readline():
                self._take(*json.loads(line))
        except ConnectionResetError:
            pass  # gone with something of this side's unread, as one that was killed can be
        except (ConnectionError, ValueError) as error:  # a line too long is a ValueError
            logger.warning("link broken", extra=facts(link=self._name, error=repr(error)))
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for future in self._asked.values():
            if not future.done():
                future.set_exception(Unanswered(f"{self._name} is gone"))
        await self._tasks.stop()

    def tell(self, what: str, value: Any = None) -> bool:
        """False where it was not told, since the other side is gone or does not read."""
        return self._write("tell", 0, what, value)

    async def ask(self, what: str, value: Any = None, *, timeout_s: float) -> Any:
        """Raises Unanswered."""
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            if not self._write("ask", number, what, value):
                raise Unanswered(f"{self._name} cannot be asked for {what}")
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise Unanswered(f"{self._name} did not answer in {timeout_s:g} s: {what}") from None
        finally:
            del self._asked[number]

    def _write(self, kind: str, number: int, what: str, value: Any) -> bool:
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
            return False
        writer.write(json.dumps([kind, number, what, value]).encode() + b"\n")
        return True

    def _take(self, kind: str, number: int, what: str, value: Any) -> None:
        if kind == "tell":
            if (hearer := self._hearers.get(what)) is not None:
                hearer(value)
        elif kind == "ask":
            if (answerer := self._answerers.get(what)) is not None:
                self._tasks.spawn(self._give(number, what, answerer(value)), what)
            else:
                self._write("failed", number, what, None)
        elif (future := self._asked.get(number)) is not None and not future.done():
            if kind == "answer":
                future.set_result(value)
            else:
                future.set_exception(Unanswered(f"{self._name} failed at {what}"))

    async def _give(self, number: int, what: str, work: Coroutine[Any, Any, Any]) -> None:
        try:
            answer = await work
        except BaseException:
            self._write("failed", number, what, None)
            raise
        self._write("answer", number, what, answer)
