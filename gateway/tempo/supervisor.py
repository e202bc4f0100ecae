"""Runs one child process, Tempo or the embedded backend: starts, probes, restarts, stops it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import aiohttp

from gateway.lifecycle import Tasks
from gateway.telemetry.logs import facts
from gateway.tempo.backoff import LOOPING, STABLE_S, Backoff
from gateway.tempo.child import LAST_WORDS_S, Child, Program, Usage, read_usage
from gateway.tempo.clock import LOOK_S, LifeClock
from gateway.tempo.looks import Check, Look, look_at, open_session
from gateway.tempo.ports import HOST, Ports, free_ports
from gateway.tempo.reasons import Clue, likely_reason, weigh
from gateway.tempo.relay import LogRelay
from gateway.tempo.states import Event, State, next_state

logger = logging.getLogger(__name__)

LOOK_STARTING_S = 0.05
BAD_PROBES = 3
"""Of a ready child in a row before it counts as not ready: one slow answer is no outage."""
SILENT_S = 60.0
"""Without any answer of a child that has answered before: it hangs, and is killed."""
NEVER_READY_S = 300.0
"""The same before its first answer. Tempo replays its WAL before it opens a port."""

SETTLE_POLL_S = 0.2
SETTLE_SHARE = 0.85
"""Of the time for a stop."""
PARTING_S = 0.5
"""For a child to end by itself once its memory is on disk."""


class Habits(NamedTuple):
    """What is particular to a kind of child."""

    prepare: Callable[[], None] | None = None
    """Called in a thread before each start; may raise OSError."""
    keeps_up: Check | None = None
    """Given a session and the base URL: does the child bring its memory to disk in time?"""
    flushed: re.Pattern[str] | None = None
    """What it says once, after SIGTERM, all its memory is on disk."""
    settled: Check | None = None
    """Asked before SIGTERM: has it done what it does no more once it is told to end?"""
    broken: re.Pattern[str] | None = None
    """What it says when it has lost, or goes on to lose, what it said OK to; it is killed then."""


class Supervisor:
    """The only owner of its child: no zombie, and no orphan even if this process is killed."""

    def __init__(
        self,
        name: str,
        program: Callable[[Ports], Program],
        *,
        changed: Callable[[], None],
        habits: Habits = Habits(),  # noqa: B008 - an immutable value
        backoff: Backoff = Backoff(),  # noqa: B008 - an immutable value
    ) -> None:
        """``program`` is asked before each start, since the ports may be others then; ``changed``
        is called after each change of state.
        """
        self._name = name
        self._program = program
        self._changed = changed
        self._habits = habits
        self._backoff = backoff
        self._relay = LogRelay(name, self._heard)
        self._tasks = Tasks(name)
        self._child: Child | None = None
        self._clue: Clue | None = None
        self._killed_for: str | None = None
        self._early_ends = 0
        self._clock = LifeClock()
        self._started = self._flushed = False
        self._stop_asked = asyncio.Event()
        self._may_part = asyncio.Event()
        self._ended = asyncio.Event()
        self.ports = free_ports()
        """Kept from life to life, unless somebody else has taken one."""
        self.state = State.STOPPED
        self.reason = ""
        """Why it is not ready, for people."""
        self.generation = 0
        """Lives begun. One more of them means that what only memory held is gone."""
        self.usage: Usage | None = None
        """Of the child, as of the last look at it."""

    @property
    def base_url(self) -> str:
        """Of its HTTP API."""
        return f"http://{HOST}:{self.ports.http}"

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    @property
    def restarts(self) -> int:
        return max(0, self.generation - 1)

    def alive_s(self) -> float:
        """Seconds for which it was seen to live and to bring its memory to disk; see ``clock``."""
        return self._clock.seconds

    def start(self) -> None:
        """Begin; returns at once."""
        self._started = True
        self._tasks.spawn(self._run(), "run")

    async def stop(self, grace_s: float) -> bool:
        """SIGTERM; SIGKILL once its memory is on disk, or after ``grace_s``. True if the memory
        is on disk. Safe twice and before ``start``.
        """
        self._stop_asked.set()
        self._move(Event.STOP)
        if not self._started:
            return True
        grace_s -= await self._settle(grace_s)
        if self._child is not None:
            self._child.terminate()
        if not await self._parted(grace_s) and self._child is not None:
            self._child.kill()
        await self._ended.wait()
        return self._flushed and self._killed_for is None

    async def _settle(self, grace_s: float) -> float:
        """Wait for ``settled``, but for a rest of the time; returns how long that has taken."""
        settled, began = self._habits.settled, time.monotonic()
        if settled is None:
            return 0.0
        async with open_session() as session:
            while self._child is not None:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    if await settled(session, self.base_url):
                        break
                if time.monotonic() - began > grace_s * SETTLE_SHARE:
                    what = "backend ends before its storage has all that it holds"
                    logger.error(what, extra=facts(name=self._name))
                    break
                await asyncio.sleep(SETTLE_POLL_S)
        return time.monotonic() - began

    async def _parted(self, grace_s: float) -> bool:
        """Wait for the end. False when it does not come by itself, or is not worth the wait:
        Tempo 2.4 sleeps for 30 s at its end, and later ones hang for ever when they have served a
        query lately (grafana/tempo#7967), long after all is on disk.
        """
        try:
            async with asyncio.timeout(grace_s):
                await self._may_part.wait()
        except TimeoutError:
            logger.warning("backend killed", extra=facts(name=self._name, after_s=grace_s))
            return False
        try:
            async with asyncio.timeout(PARTING_S):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    # -- life ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """One life after the other until a stop is asked for."""
        event = Event.START
        try:
            while not self._stop_asked.is_set():
                self._move(event)
                began = time.monotonic()
                code = await self._live()
                if self._stop_asked.is_set():
                    break
                await self._after(code, time.monotonic() - began)
                event = Event.RETRY
            self._move(Event.EXIT)
        finally:
            self._may_part.set()
            self._ended.set()

    async def _live(self) -> int:
        """One life, from start to end; returns the exit code."""
        self._relay.last.clear()
        self._clue = self._killed_for = None
        try:
            if self._habits.prepare is not None:
                await asyncio.to_thread(self._habits.prepare)
            self._child = child = await Child.start(self._program(self.ports))
        except OSError as error:
            self._relay.last.append(str(error))
            self._heard(str(error))
            return 1
        self.generation += 1
        logger.info("backend started", extra=facts(name=self._name, pid=child.pid))
        if self._stop_asked.is_set():  # meanwhile
            child.terminate()
        life = Tasks(self._name)
        life.spawn(self._watch(child), "watch")
        life.spawn(self._listen(child, silence := asyncio.Event()), "relay")
        try:
            code = await child.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(silence.wait(), LAST_WORDS_S)
        finally:
            self._child = self.usage = None
            child.kill()  # in case it is this task that has been ended
            self._clock.unseen()
            await life.stop()
        if self._stop_asked.is_set() and code == 0:
            self._flushed = True
        return code

    async def _listen(self, child: Child, silence: asyncio.Event) -> None:
        await self._relay.relay(child.output)
        silence.set()

    async def _after(self, code: int, lived_s: float) -> None:
        """Tell of an end and wait before the next life."""
        self._early_ends = 0 if lived_s >= STABLE_S else self._early_ends + 1
        looping = self._early_ends >= LOOPING
        why = self._killed_for or likely_reason(self._clue, code, time.monotonic())
        delay_s = self._backoff.delay_s(self._early_ends, random.random())  # noqa: S311
        self.reason = f"{why} (exit code {code})"
        self._move(Event.EXIT_LOOPING if looping else Event.EXIT)
        last = [self._clue.line, *self._relay.last] if self._clue else list(self._relay.last)
        logger.error(
            "backend crash loop" if looping else "backend died",
            extra=facts(
                name=self._name,
                exit_code=code,
                reason=why,
                lived_s=round(lived_s, 1),
                again_in_s=round(delay_s, 1),
                last_lines=" | ".join(line[:300] for line in dict.fromkeys(last[:1] + last[-4:])),
            ),
        )
        if self._clue is not None and self._clue.key == "port":
            self.ports = free_ports()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop_asked.wait(), delay_s)

    def _heard(self, line: str) -> None:
        """One line of the child's."""
        if self._stop_asked.is_set() and _says(self._habits.flushed, line):
            self._flushed = True
            self._may_part.set()
        if "level=info" in line or "level=debug" in line:  # nearly all, and never a bad sign
            return
        now = time.monotonic()
        self._clue = weigh(self._clue, line, now)
        if _says(self._habits.broken, line):
            self._kill(f"it cannot bring spans to its disk: {likely_reason(self._clue, 1, now)}")

    def _kill(self, reason: str) -> None:
        if self._child is not None and self._killed_for is None:
            self._killed_for = reason
            logger.error("backend killed", extra=facts(name=self._name, reason=reason))
            self._child.kill()

    # -- looks -----------------------------------------------------------------------------------

    async def _watch(self, child: Child) -> None:
        """Look at the child for as long as it lives and nobody wants it to stop."""
        async with open_session() as session:
            bad, patience_s, answered_at = 0, NEVER_READY_S, time.monotonic()
            while not self._stop_asked.is_set():
                look = await look_at(session, self.base_url, self._habits.keeps_up)
                now = time.monotonic()
                if look.answered:
                    patience_s, answered_at = SILENT_S, now
                bad = 0 if look.fault is None else bad + 1
                self._note(look, bad, now)
                if now - answered_at > patience_s:
                    self._kill(f"it has not answered for {patience_s:g} s")
                self.usage = await asyncio.to_thread(read_usage, child.pid)
                await asyncio.sleep(LOOK_S if self.state is State.READY else LOOK_STARTING_S)

    def _note(self, look: Look, bad: int, now: float) -> None:
        if look.fault is None:
            self._clock.seen(now, flushing=look.flushing)
            self.reason = ""
            self._move(Event.PROBE_GOOD)
        else:
            self._clock.unseen()
            if self.state is not State.READY or bad >= BAD_PROBES:
                self.reason = look.fault
                self._move(Event.PROBE_BAD)

    def _move(self, event: Event) -> None:
        before, self.state = self.state, next_state(self.state, event)
        if before is not self.state:
            logger.info(
                "backend state",
                extra=facts(
                    name=self._name,
                    state=self.state.value,
                    was=before.value,
                    reason=self.reason or None,
                ),
            )
            self._changed()


def _says(pattern: re.Pattern[str] | None, line: str) -> bool:
    return pattern is not None and pattern.search(line) is not None
