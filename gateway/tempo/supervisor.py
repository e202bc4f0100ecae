"""Runs one child process, Tempo or the embedded backend: starts, probes, restarts, stops it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp

from gateway.lifecycle import Tasks
from gateway.telemetry.logs import facts
from gateway.tempo import launcher
from gateway.tempo.reasons import likely_reason
from gateway.tempo.relay import LogRelay
from gateway.tempo.states import Event, State, next_state

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
PROBE_STARTING_S = 0.05
PROBE_READY_S = 1.0
PROBE_TIMEOUT_S = 2.0
BAD_PROBES = 3
"""Of a ready child in a row before it counts as not ready: one slow answer is no outage."""

FIRST_BACKOFF_S, MOST_BACKOFF_S = 0.2, 30.0
STABLE_S = 30.0
"""A life of this length ends a series of early ends."""
LOOPING = 4
"""Early ends in a row that are called a crash loop."""


class Ports(NamedTuple):
    """Free ports on loopback for one child."""

    otlp: int
    http: int
    internal: int


class Program(NamedTuple):
    """What to run."""

    command: Sequence[str]
    env: Mapping[str, str]


class Supervisor:
    """The only owner of its child: no zombie, and no orphan even if this process is killed."""

    def __init__(
        self,
        name: str,
        program: Callable[[Ports], Program],
        *,
        changed: Callable[[], None],
        first_backoff_s: float = FIRST_BACKOFF_S,
    ) -> None:
        """``program`` is asked before each start, since the ports may be others then; ``changed``
        is called after each change of state.
        """
        self._name = name
        self._program = program
        self._changed = changed
        self._first_backoff_s = first_backoff_s
        self._relay = LogRelay(name)
        self._tasks = Tasks(name)
        self._process: asyncio.subprocess.Process | None = None
        self._stop_asked = asyncio.Event()
        self._ended = asyncio.Event()
        self._early_ends = 0
        self._alive_s = 0.0
        self.ports = free_ports()
        self.state = State.STOPPED
        self.reason = ""
        """Why it is not ready, for people."""
        self.generation = 0
        """Lives begun. One more of them means that what only memory held is gone."""

    @property
    def base_url(self) -> str:
        """Of its HTTP API."""
        return f"http://{HOST}:{self.ports.http}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def restarts(self) -> int:
        return max(0, self.generation - 1)

    def alive_s(self) -> float:
        """Seconds for which it was seen to answer; stands still while it does not, so that a
        frozen child is not taken for one that brings its memory to disk.
        """
        return self._alive_s

    def start(self) -> None:
        """Begin; returns at once."""
        self._tasks.spawn(self._run(), "run")

    async def stop(self, grace_s: float) -> bool:
        """SIGTERM, and SIGKILL after ``grace_s``. True if it ended by itself with code 0, so in
        good order. Safe twice and before ``start``.
        """
        self._stop_asked.set()
        if self.state is not State.STOPPED or self._process is not None:
            self._move(Event.STOP)
        process = self._process
        if process is None:
            await self._tasks.stop()
            return self.state is State.STOPPED and self.generation == 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        in_time = True
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            in_time = False
            logger.warning("backend killed", extra=facts(name=self._name, after_s=grace_s))
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        code = await process.wait()
        await self._ended.wait()
        await self._tasks.stop()
        return in_time and code == 0

    # -- life ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """One life after the other until a stop is asked for."""
        event = Event.START
        try:
            while not self._stop_asked.is_set():
                self._move(event)
                began = asyncio.get_running_loop().time()
                code = await self._live()
                if self._stop_asked.is_set():
                    self._move(Event.EXIT)
                    return
                lived_s = asyncio.get_running_loop().time() - began
                await self._after(code, lived_s)
                event = Event.RETRY
        finally:
            self._ended.set()

    async def _live(self) -> int:
        """One life, from start to end; returns the exit code."""
        program = self._program(self.ports)
        self._relay.last.clear()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-E", str(Path(launcher.__file__)), str(os.getpid()),
                *program.command,
                env=dict(program.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            self._relay.last.append(str(error))
            return 1
        self._process = process
        self.generation += 1
        logger.info("backend started", extra=facts(name=self._name, pid=process.pid))
        assert process.stdout is not None  # noqa: S101 - asked for above
        probing = Tasks(self._name)
        probing.spawn(self._probe(), "probe")
        try:
            await self._relay.relay(process.stdout)
            return await process.wait()
        finally:
            await probing.stop()
            self._process = None

    async def _after(self, code: int, lived_s: float) -> None:
        """Tell of an end and wait before the next life."""
        self._early_ends = 0 if lived_s >= STABLE_S else self._early_ends + 1
        looping = self._early_ends >= LOOPING
        why = likely_reason(self._relay.last, code)
        ceiling = min(MOST_BACKOFF_S, self._first_backoff_s * 2.0 ** min(self._early_ends, 20))
        delay_s = ceiling if looping else ceiling * random.random()  # noqa: S311
        self.reason = f"{why} (exit code {code})"
        self._move(Event.EXIT_LOOPING if looping else Event.EXIT)
        logger.error(
            "backend crash loop" if looping else "backend died",
            extra=facts(
                name=self._name,
                exit_code=code,
                reason=why,
                lived_s=round(lived_s, 1),
                again_in_s=round(delay_s, 1),
                last_lines=" | ".join(list(self._relay.last)[-5:]),
            ),
        )
        if "port" in why:
            self.ports = free_ports()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop_asked.wait(), delay_s)

    async def _probe(self) -> None:
        """Ask ``/ready`` for as long as the child lives."""
        loop = asyncio.get_running_loop()
        bad, last_good = 0, -1.0
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        ) as session:
            while not self._stop_asked.is_set():
                fault = await self._ask(session)
                now = loop.time()
                if fault is None:
                    if 0 <= now - last_good <= 2 * (PROBE_READY_S + PROBE_TIMEOUT_S):
                        self._alive_s += now - last_good
                    bad, last_good = 0, now
                    self.reason = ""
                    self._move(Event.PROBE_GOOD)
                else:
                    bad, last_good = bad + 1, -1.0
                    if self.state is State.STARTING or bad >= BAD_PROBES:
                        self.reason = fault
                        self._move(Event.PROBE_BAD)
                ready = self.state is State.READY
                await asyncio.sleep(PROBE_READY_S if ready else PROBE_STARTING_S)

    async def _ask(self, session: aiohttp.ClientSession) -> str | None:
        """None when it is ready, else why not."""
        try:
            async with session.get(f"{self.base_url}/ready") as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            return f"it does not answer ({type(error).__name__})"
        return None if answer.status == 200 else text.strip()[:200]

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


def free_ports() -> Ports:
    """Ports nobody listens on now. Taken by somebody before the child binds them, they are
    picked anew at its next start.
    """
    with contextlib.ExitStack() as bound:
        socks = [bound.enter_context(socket.create_server((HOST, 0))) for _ in Ports._fields]
        return Ports(*(sock.getsockname()[1] for sock in socks))
