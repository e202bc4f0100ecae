"""Keeps the workers of a gateway alive, and asks all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.lifecycle import Tasks
from gateway.telemetry.logs import facts
from gateway.tempo.backoff import LOOPING, STABLE_S, Backoff
from gateway.workers.link import Unanswered
from gateway.workers.process import WorkerProcess

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 1.5
"""For a worker to tell of itself. One that is in the midst of a large request needs some time."""
LOOK_S, SILENT_S = 5.0, 60.0
"""Between two looks at a worker, and without any answer of its: it hangs, and is killed."""
STARTING_S = 120.0
"""The same before it listens."""


class Crew:
    """``count`` workers, each replaced when it dies: the new one finds the spool of the old."""

    def __init__(
        self,
        count: int,
        arguments: Callable[[int], Sequence[str]],
        introduce: Callable[[WorkerProcess], None],
        *,
        died: Callable[[], None] = lambda: None,
        failed: Callable[[BaseException], None] | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008 - an immutable value
    ) -> None:
        """``arguments`` are those of worker ``number``, ``introduce`` says what it may ask, and
        ``died`` is called after each death.
        """
        self.count = count
        self._arguments = arguments
        self._introduce = introduce
        self._died = died
        self._backoff = backoff
        self._tasks = Tasks("crew", failed)
        self._keepers = 0
        self._over = asyncio.Event()
        """No worker shall be replaced any more."""
        self._time_is_up = False
        """No worker shall live any more."""
        self._changed = asyncio.Event()
        self._began: set[int] = set()
        """Workers that have listened once."""
        self.lost_at_start: int | None = None
        """A worker that has ended before it had ever listened."""
        self.living: dict[int, WorkerProcess] = {}
        self.left = 0
        """Spans that those that have ended in good order left in their spools."""
        self.handed_over = 0
        """Spans that those that have ended in good order gave to another gateway."""

    def start(self) -> None:
        self._keepers = self.count
        for number in range(self.count):
            self._tasks.spawn(self._keep(number), f"worker {number}")

    async def wait_until_listening(self) -> bool:
        """True when each worker has listened once; False when one has ended before."""
        while len(self._began) < self.count:
            if self.lost_at_start is not None or self._over.is_set():
                return False
            await self._change()
        return True

    def tell(self, what: str, value: Any = None) -> None:
        for worker in self.living.values():
            worker.link.tell(what, value)

    async def ask(self, what: str, *, or_last: bool = False) -> dict[int, Any]:
        """The answers by worker, of those that are up and gave one in time; with ``or_last`` of
        others the last one that they gave.
        """
        workers = [worker for worker in self.living.values() if worker.is_listening]

        async def one(worker: WorkerProcess) -> Any:
            return await worker.link.ask(what, timeout_s=ASK_TIMEOUT_S)

        answers = await asyncio.gather(*map(one, workers), return_exceptions=True)
        told = {}
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, Unanswered):
                logger.warning("worker does not answer", extra=facts(error=str(answer)))
                if or_last and what in worker.last_answers:
                    told[worker.number] = worker.last_answers[what]
            elif isinstance(answer, BaseException):
                raise answer
            else:
                told[worker.number] = worker.last_answers[what] = answer
        return told

    # -- end -------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> bool:
        """Have all stop taking spans and deliver what they have. True if all have done so."""
        self._over.set()
        self._changed.set()
        self.tell("stop")
        return await self._until(
            lambda: all(worker.is_drained for worker in self.living.values()), timeout_s
        )

    async def stop(self, timeout_s: float) -> None:
        """Wait until all have finished, and end them. Safe before ``start``.

        Nobody waits for the end of a Python that has finished, which takes half a second.
        """
        self._over.set()
        self._changed.set()
        if not await self._until(lambda: self._keepers <= self._finished, timeout_s):
            late = [str(n) for n, worker in self.living.items() if not worker.is_finished]
            if late:  # else those that are killed are only on their way
                event = facts(workers=", ".join(late), after_s=round(timeout_s, 1))
                logger.warning("workers killed", extra=event)
        self._time_is_up = True
        for worker in self.living.values():
            worker.kill()
        await self._until(lambda: not self._keepers, None)
        await self._tasks.stop()

    @property
    def _finished(self) -> int:
        return sum(worker.is_finished for worker in self.living.values())

    async def _until(self, reached: Callable[[], bool], timeout_s: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while not reached():
                    await self._change()
        except TimeoutError:
            return False
        return True

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # -- lives -----------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """One life of a worker after the other."""
        early_ends = 0
        try:
            while not self._over.is_set():
                began = time.monotonic()
                code = await self._live(number)
                if self._over.is_set():
                    return
                if number not in self._began:
                    self.lost_at_start = number
                early_ends = 0 if time.monotonic() - began >= STABLE_S else early_ends + 1
                await self._after(number, code, early_ends)
        finally:
            self._keepers -= 1
            self._changed.set()

    async def _live(self, number: int) -> int | str:
        """One life; its exit code, or why there was none."""
        try:
            worker = await WorkerProcess.start(number, self._arguments(number), self._note)
        except OSError as error:
            return str(error)
        logger.info("worker started", extra=facts(worker=number, pid=worker.pid))
        self._introduce(worker)
        await worker.open()
        self.living[number] = worker
        if self._over.is_set():  # meanwhile
            worker.link.tell("stop")
        if self._time_is_up:
            worker.kill()
        watch = Tasks(f"worker {number}")
        watch.spawn(self._look_at(worker), "look")
        try:
            code = await worker.live()
        finally:
            worker.kill()  # in case it is this task that has been ended
            del self.living[number]
            await watch.stop()
        self.handed_over += worker.handed_over
        if self._over.is_set():  # else the next one finds them
            self.left += worker.left
        return code

    def _note(self) -> None:
        """A worker has come to listen, has drained or finished."""
        self._began |= {worker.number for worker in self.living.values() if worker.is_listening}
        self._changed.set()

    async def _look_at(self, worker: WorkerProcess) -> None:
        """Kill it when it has not answered for long."""
        answered_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(Unanswered):
                await worker.link.ask("alive", timeout_s=LOOK_S)
                answered_at = time.monotonic()
            silent_s = time.monotonic() - answered_at
            if silent_s > (SILENT_S if worker.is_listening else STARTING_S):
                break
        logger.error("worker killed", extra=facts(worker=worker.number, silent_s=round(silent_s)))
        worker.kill()

    async def _after(self, number: int, code: int | str, early_ends: int) -> None:
        """Tell of an end and wait before the next life."""
        delay_s = self._backoff.delay_s(early_ends, random.random())  # noqa: S311
        told = facts(worker=number, exit_code=code, again_in_s=round(delay_s, 1))
        if early_ends >= LOOPING:
            logger.error("worker crash loop", extra=told)
        elif code == 0:  # somebody has sent it SIGTERM
            logger.warning("worker ended", extra=told)
        else:
            logger.error("worker died", extra=told)
        self._died()
        self._changed.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), delay_s)
