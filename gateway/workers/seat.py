"""A process's place among those of its gateway: the only one, or one of several workers."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from prometheus_client.core import Metric

from gateway.lifecycle import StartError, Tasks
from gateway.receivers.address import Address
from gateway.telemetry.logs import facts
from gateway.tempo.backends import Backend
from gateway.workers.backend import Facts, ParentsBackend, Terms
from gateway.workers.link import Link, Unanswered
from gateway.workers.merge import from_plain, to_plain

logger = logging.getLogger(__name__)

TERMS_TIMEOUT_S = 30.0
"""A Tempo that tells its version on a busy machine is what this waits for."""
ALL_TIMEOUT_S = 2.5
"""For the parent to ask all others; it gives up on them sooner."""


class Voice(Protocol):
    """What one process can tell of itself."""

    async def families(self) -> Iterable[Metric]: ...

    async def status(self) -> Mapping[str, Any]: ...


class Seat(Protocol):
    """Either kind."""

    number: int
    count: int

    def address(self, wanted: Address) -> Address:
        """Where to listen."""

    async def make_backend(self, make: Callable[[], Backend]) -> Backend:
        """``make`` is for who has one of its own. Raises what it raises, and StartError."""

    def join(self, voice: Voice, stop: Callable[[], None]) -> None:
        """``voice`` is this process's own; ``stop`` is called when it shall end."""

    def listening(self, address: Address) -> None:
        """Say so."""

    def finished(self, left: int, handed_over: int) -> None:
        """There is nothing more to do; so many spans are left in the spool, and so many were
        given to another gateway at the end.
        """

    async def families(self) -> Iterable[Metric]:
        """Of all processes of the gateway."""

    async def status(self) -> Mapping[str, Any]:
        """The same."""


class Alone:
    """The only process, but for the backend's."""

    number, count = 0, 1

    def __init__(self) -> None:
        self._voice: Voice

    def address(self, wanted: Address) -> Address:
        return wanted

    async def make_backend(self, make: Callable[[], Backend]) -> Backend:
        return make()

    def join(self, voice: Voice, stop: Callable[[], None]) -> None:  # noqa: ARG002 - signals do
        self._voice = voice

    def listening(self, address: Address) -> None:
        address.say_listening()

    def finished(self, left: int, handed_over: int) -> None:
        """Nobody waits for it."""

    async def families(self) -> Iterable[Metric]:
        return await self._voice.families()

    async def status(self) -> Mapping[str, Any]:
        return await self._voice.status()


class Worker:
    """One of several. Made by ``take_seat``."""

    def __init__(self, link: Link, number: int, count: int, ports: tuple[int | None, int]) -> None:
        self.number = number
        self.count = count
        self._link = link
        self._ports = ports
        self._voice: Voice
        self._stop: Callable[[], None] = lambda: None
        self._is_over = False
        link.hear("stop", lambda _: self.stop())
        link.answer("alive", _yes)

    def stop(self) -> None:
        self._is_over = True
        self._stop()

    def address(self, wanted: Address) -> Address:
        """On the ports that the parent has reserved."""
        http_port, grpc_port = self._ports
        return wanted._replace(http_port=http_port, grpc_port=grpc_port)

    async def make_backend(self, make: Callable[[], Backend]) -> Backend:
        """The parent's, or one of its own where that is nobody's child."""
        try:
            terms, now = await self._link.ask("terms", timeout_s=TERMS_TIMEOUT_S)
        except Unanswered as error:
            raise StartError(f"worker {self.number}: {error}") from error
        return make() if terms is None else ParentsBackend(self._link, Terms(*terms), Facts(*now))

    def join(self, voice: Voice, stop: Callable[[], None]) -> None:
        self._voice, self._stop = voice, stop
        self._link.answer("families", self._own_families)
        self._link.answer("status", self._own_status)
        if self._is_over:
            stop()

    async def _own_families(self, _: None) -> Any:
        return to_plain(await self._voice.families())

    async def _own_status(self, _: None) -> Any:
        return await self._voice.status()

    def listening(self, address: Address) -> None:  # noqa: ARG002 - the parent knows it
        self._link.tell("listening")

    def finished(self, left: int, handed_over: int) -> None:
        self._link.tell("finished", [left, handed_over])

    async def families(self) -> Iterable[Metric]:
        try:
            return from_plain(await self._link.ask("families", timeout_s=ALL_TIMEOUT_S))
        except Unanswered as error:
            _alone(error)
            return await self._voice.families()

    async def status(self) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = await self._link.ask("status", timeout_s=ALL_TIMEOUT_S)
        except Unanswered as error:
            _alone(error)
            return await self._voice.status()
        return answer


async def _yes(_: None) -> bool:
    return True


def _alone(error: Unanswered) -> None:
    logger.warning("this worker speaks for itself alone", extra=facts(error=str(error)))


@asynccontextmanager
async def take_seat(
    fd: int, number: int, count: int, ports: tuple[int | None, int]
) -> AsyncIterator[Worker]:
    """Talk with the parent over the socket ``fd`` while the block runs. Without the parent there is
    nothing to work for, so its end is the worker's.
    """
    link = Link("parent")
    worker = Worker(link, number, count, ports)

    async def talk() -> None:
        await link.run()
        worker.stop()

    await link.open(socket.socket(fileno=fd))
    tasks = Tasks("link")
    tasks.spawn(talk(), "parent")
    try:
        yield worker
    finally:
        await tasks.stop()
