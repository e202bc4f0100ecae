"""The supervisor with real children that misbehave. The real Tempo is in test_managed."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.tempo import supervisor as module
from gateway.tempo.child import Program
from gateway.tempo.clock import LOOK_S
from gateway.tempo.ports import Ports
from gateway.tempo.states import State
from gateway.tempo.supervisor import LOOPING, Backoff, Habits, Supervisor
from tests.kit.gateway import is_gone

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0
QUICK = Backoff(0.01, 0.05)


class Fixture:
    """A supervisor of fakes, and what it told."""

    def __init__(self, will: Path) -> None:
        self.will = will
        self.supervisor: Supervisor | None = None
        self._changed = asyncio.Event()
        self.states: list[State] = []
        self.on_change: Callable[[], None] = lambda: None

    def start(self, *options: str, **more) -> Supervisor:
        def program(ports: Ports) -> Program:
            command = [sys.executable, "-m", "tests.kit.fake_tempo"]
            own = ["--http-port", str(ports.http), "--will", str(self.will)]
            env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
            return Program([*command, *own, *options], env)

        more = {"backoff": QUICK} | more
        self.supervisor = Supervisor("fake", program, changed=self._note, **more)
        self.supervisor.start()
        return self.supervisor

    def _note(self) -> None:
        assert self.supervisor is not None
        self.states.append(self.supervisor.state)
        self.on_change()
        self._changed.set()

    async def until(self, found: Callable[[], object]) -> None:
        """Changes of state wake it; what is no state is looked for again and again."""
        async with asyncio.timeout(DEADLINE_S):
            while not found():
                self._changed.clear()
                try:
                    async with asyncio.timeout(0.01):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def until_state(self, state: State) -> None:
        await self.until(lambda: self.supervisor is not None and self.supervisor.state is state)

    def wish(self, deed: str, text: str = "") -> None:
        (self.will / deed).write_text(text)

    def lives(self) -> list[str]:
        path = self.will / "lives"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
async def fake(tmp_path):
    fixture = Fixture(tmp_path)
    yield fixture
    if fixture.supervisor is not None:
        await fixture.supervisor.stop(0.0)
        assert fixture.supervisor.pid is None
        assert all(is_gone(int(life.split()[0])) for life in fixture.lives())


def events(caplog, message: str) -> list[dict[str, object]]:
    return [record.facts for record in caplog.records if record.getMessage() == message]


async def test_is_ready_once_the_child_says_so(fake):
    supervisor = fake.start("--ready-after", "3")
    await fake.until(lambda: "waiting" in supervisor.reason)
    assert supervisor.state is State.STARTING
    await fake.until_state(State.READY)
    assert supervisor.reason == ""
    assert (supervisor.generation, supervisor.restarts) == (1, 0)
    assert supervisor.base_url == f"http://127.0.0.1:{supervisor.ports.http}"
    assert fake.states == [State.STARTING, State.READY]


async def test_a_child_that_never_listens_is_not_ready_and_says_why(fake):
    supervisor = fake.start("--never-listens")
    await fake.until(lambda: "does not answer" in supervisor.reason)
    assert supervisor.state is State.STARTING
    assert supervisor.alive_s() == 0


async def test_readiness_is_lost_and_regained(fake):
    supervisor = fake.start()
    await fake.until_state(State.READY)
    fake.wish("unready")
    await fake.until_state(State.STARTING)
    assert "waiting" in supervisor.reason
    (fake.will / "unready").unlink()
    await fake.until_state(State.READY)
    assert supervisor.generation == 1


async def test_the_life_clock_runs_while_the_child_is_ready(fake):
    supervisor = fake.start()
    await fake.until_state(State.READY)
    await fake.until(lambda: supervisor.alive_s() >= LOOK_S)


async def test_the_life_clock_stands_still_while_the_child_is_not_ready(fake):
    seen = []
    supervisor = fake.start()
    await fake.until_state(State.READY)
    fake.on_change = lambda: seen.append((supervisor.state, supervisor.alive_s()))
    fake.wish("unready")
    await fake.until_state(State.STARTING)
    (fake.will / "unready").unlink()
    await fake.until_state(State.READY)
    (lost, before), (regained, after) = seen
    assert (lost, regained) == (State.STARTING, State.READY)
    assert before == after


async def test_the_life_clock_stands_still_while_the_child_lags(fake):
    lagging = asyncio.Event()
    looks = []

    async def keeps_up(session, url):
        looks.append(url)
        return not lagging.is_set()

    supervisor = fake.start(habits=Habits(keeps_up=keeps_up))
    lagging.set()
    await fake.until(lambda: len(looks) >= 3)
    assert supervisor.alive_s() == 0
    lagging.clear()
    await fake.until(lambda: supervisor.alive_s() > 0)


async def test_a_killed_child_is_started_again_on_the_same_ports(fake, caplog):
    supervisor = fake.start()
    await fake.until_state(State.READY)
    ports = supervisor.ports
    fake.wish("die")
    await fake.until(lambda: supervisor.generation == 2)
    await fake.until_state(State.READY)
    assert supervisor.ports == ports
    assert supervisor.restarts == 1
    first, second = (life.split()[1:] for life in fake.lives())
    assert first == second
    (died,) = events(caplog, "backend died")
    assert died["exit_code"] == -signal.SIGKILL
    assert State.BACKOFF in fake.states


async def test_a_start_that_ends_with_code_0_is_a_failure(fake, caplog):
    fake.start("--exit", "0", "--exit-lives", "1")
    await fake.until_state(State.READY)
    (died,) = events(caplog, "backend died")
    assert died["exit_code"] == 0
    assert "code 0 even when its start has failed" in str(died["reason"])


async def test_a_taken_port_is_recognised_and_others_are_picked(fake, caplog):
    supervisor = fake.start("--take-port")
    ports = supervisor.ports
    await fake.until_state(State.READY)
    assert supervisor.ports != ports
    (died,) = events(caplog, "backend died")
    assert died["reason"] == "a port that it needs is taken"
    assert "address already in use" in str(died["last_lines"])


async def test_a_crash_loop_is_said_loudly_and_tried_on(fake, caplog):
    line = "  line 3: field frob not found in type app.Config"
    supervisor = fake.start("--exit", "1", "--exit-lives", str(LOOPING + 1), "--say", line)
    await fake.until_state(State.FAILED)
    assert "has a key it does not know" in supervisor.reason
    looping = events(caplog, "backend crash loop")[0]
    assert "field frob not found" in str(looping["last_lines"])
    await fake.until_state(State.READY)
    assert supervisor.generation == LOOPING + 2


async def test_a_long_life_ends_a_series_of_early_ends(fake, caplog, monkeypatch):
    monkeypatch.setattr(module, "STABLE_S", 0.0)
    supervisor = fake.start("--exit", "1")
    await fake.until(lambda: supervisor.generation > LOOPING + 2)
    assert not events(caplog, "backend crash loop")


async def test_a_program_that_is_not_there_is_told(fake, caplog):
    fake.supervisor = supervisor = Supervisor(
        "fake", lambda _: Program(["/absent"], {}), changed=fake._note, backoff=QUICK
    )
    supervisor.start()
    await fake.until(lambda: events(caplog, "backend died"))
    assert "cannot be run here" in supervisor.reason


async def test_what_cannot_be_prepared_is_a_failed_life(fake, caplog):
    calls = []

    def prepare() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise PermissionError(13, "Permission denied", "/data/tempo")

    supervisor = fake.start(habits=Habits(prepare=prepare))
    await fake.until_state(State.READY)
    (died,) = events(caplog, "backend died")
    assert died["reason"] == "it may not use one of its files"
    assert (len(calls), supervisor.generation) == (2, 1)


async def test_a_child_that_loses_spans_is_killed_and_started_again(fake, caplog):
    supervisor = fake.start(habits=Habits(broken=re.compile(r'msg="failed to cut ')))
    await fake.until_state(State.READY)
    fake.wish("say-1", 'level=error msg="failed to cut traces" err="no space left on device"')
    await fake.until(lambda: supervisor.generation == 2)
    (died,) = events(caplog, "backend died")
    assert died["reason"] == "it cannot bring spans to its disk: the disk is full"


async def test_a_child_that_hangs_is_killed_and_started_again(fake, caplog, monkeypatch):
    monkeypatch.setattr(module, "SILENT_S", 0.5)
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr("gateway.tempo.looks.TIMEOUT_S", 0.1)
    supervisor = fake.start()
    await fake.until_state(State.READY)
    fake.wish("hang")
    await fake.until_state(State.BACKOFF)
    (fake.will / "hang").unlink()
    await fake.until_state(State.READY)
    assert supervisor.generation == 2
    assert "has not answered for" in str(events(caplog, "backend died")[0]["reason"])


async def test_a_child_that_never_answers_is_given_much_longer(fake, monkeypatch):
    monkeypatch.setattr(module, "NEVER_READY_S", 0.3)
    supervisor = fake.start("--never-listens")
    await fake.until(lambda: supervisor.generation == 2)


async def test_a_flood_of_lines_neither_blocks_the_child_nor_floods_the_log(fake, caplog):
    caplog.set_level(logging.INFO, logger="fake")
    fake.start("--flood", "20000")
    await fake.until_state(State.READY)
    assert len([r for r in caplog.records if r.name == "fake"]) < 3000


async def test_usage_of_the_child_is_known_while_it_lives(fake):
    supervisor = fake.start()
    await fake.until(lambda: supervisor.usage is not None and supervisor.usage.rss_bytes > 2**20)
    await supervisor.stop(5.0)
    assert supervisor.usage is None


# -- stop ----------------------------------------------------------------------------------------


async def test_stop_asks_first_and_a_good_end_means_flushed(fake):
    supervisor = fake.start()
    await fake.until_state(State.READY)
    assert await supervisor.stop(DEADLINE_S)
    assert supervisor.state is State.STOPPED
    assert fake.states[-2:] == [State.STOPPING, State.STOPPED]
    assert await supervisor.stop(DEADLINE_S)


async def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(fake, caplog):
    supervisor = fake.start("--ignore-term")
    await fake.until_state(State.READY)
    assert not await supervisor.stop(0.2)
    assert supervisor.state is State.STOPPED
    assert events(caplog, "backend killed")


async def test_a_child_that_has_flushed_is_not_waited_for(fake, monkeypatch):
    monkeypatch.setattr(module, "PARTING_S", 0.05)
    said = 'level=info msg="module stopped" module=ingester'
    habits = Habits(flushed=re.compile(r"module=ingester$"))
    supervisor = fake.start("--flushed", said, habits=habits)
    await fake.until_state(State.READY)
    async with asyncio.timeout(DEADLINE_S):
        assert await supervisor.stop(1000.0)


async def test_what_a_child_does_no_more_at_its_end_is_waited_for(fake):
    asked = []

    async def settled(session, url):
        assert fake.supervisor.pid is not None
        asked.append(url)
        if len(asked) == 1:
            raise TimeoutError
        return len(asked) == 3

    supervisor = fake.start(habits=Habits(settled=settled))
    await fake.until_state(State.READY)
    assert await supervisor.stop(DEADLINE_S)
    assert asked == 3 * [supervisor.base_url]


async def test_it_is_not_waited_for_longer_than_there_is_time(fake, caplog):
    async def settled(session, url):
        return False

    supervisor = fake.start(habits=Habits(settled=settled))
    await fake.until_state(State.READY)
    async with asyncio.timeout(DEADLINE_S):
        await supervisor.stop(1.0)
    assert events(caplog, "backend ends before its storage has all that it holds")


async def test_a_child_that_dies_meanwhile_is_not_waited_for(fake):
    async def settled(session, url):
        os.kill(fake.supervisor.pid, signal.SIGKILL)
        return False

    supervisor = fake.start(habits=Habits(settled=settled))
    await fake.until_state(State.READY)
    async with asyncio.timeout(DEADLINE_S):
        assert not await supervisor.stop(1000.0)


async def test_words_of_a_flush_before_the_stop_mean_nothing(fake):
    habits = Habits(flushed=re.compile(r"module=ingester$"))
    supervisor = fake.start("--say", "module=ingester", "--ignore-term", habits=habits)
    await fake.until_state(State.READY)
    assert not await supervisor.stop(0.1)


async def test_a_child_that_fails_to_flush_at_its_end_has_not(fake):
    habits = Habits(broken=re.compile("failed to cut"), flushed=re.compile("on shutdown"))
    said = 'level=error msg="failed to cut complete traces on shutdown"'
    supervisor = fake.start("--flushed", said, habits=habits)
    await fake.until_state(State.READY)
    assert not await supervisor.stop(DEADLINE_S)


async def test_stop_before_start_and_right_after_it(fake, tmp_path):
    idle = Supervisor("idle", lambda _: Program(["true"], {}), changed=lambda: None)
    assert await idle.stop(1.0)
    supervisor = fake.start("--ignore-term")
    await supervisor.stop(0.0)
    assert supervisor.state is State.STOPPED


async def test_a_stop_while_the_child_is_being_started_is_not_missed(fake):
    go_on = threading.Event()

    def prepare() -> None:
        go_on.wait(DEADLINE_S)

    supervisor = fake.start(habits=Habits(prepare=prepare))
    await fake.until_state(State.STARTING)
    stopping = asyncio.get_running_loop().create_task(supervisor.stop(1000.0))
    await fake.until_state(State.STOPPING)
    go_on.set()
    async with asyncio.timeout(DEADLINE_S):
        await stopping
    assert supervisor.state is State.STOPPED


async def test_stop_while_it_waits_for_the_next_life(fake):
    supervisor = fake.start("--exit", "1", backoff=Backoff(1000.0, 1000.0))
    await fake.until_state(State.BACKOFF)
    assert not await supervisor.stop(DEADLINE_S), "what the dead child had in memory is gone"
    assert supervisor.state is State.STOPPED
    assert supervisor.generation == 1


# -- delays --------------------------------------------------------------------------------------


def test_delays_double_under_full_jitter_and_are_capped():
    backoff = Backoff(1.0, 30.0)
    assert [backoff.delay_s(n, 1.0) for n in range(LOOPING)] == [1.0, 2.0, 4.0, 8.0]
    assert backoff.delay_s(2, 0.25) == 1.0
    assert backoff.delay_s(LOOPING, 0.0) == backoff.delay_s(1000, 0.0) == 30.0
    assert Backoff(20.0, 30.0).delay_s(3, 1.0) == 30.0
