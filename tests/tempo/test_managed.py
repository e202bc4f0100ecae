"""A real Tempo under the supervisor: what its configuration promises, and kills.

Runs when TEMPO_BIN or ./bin/tempo is there; each version's configuration is tested by running
these tests with that version's binary.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from gateway.envelope import Fate, Outcome
from gateway.lifecycle import Tasks
from gateway.settings import Settings
from gateway.tempo.children import ChildBackend
from gateway.tempo.client import OtlpGrpcExporter
from gateway.tempo.config import MIB, ROOMY_BYTES
from gateway.tempo.managed import managed_tempo
from gateway.tempo.wal import Wal
from tests.kit.backends import find_tempo
from tests.kit.gateway import is_gone
from tests.kit.spans import SECOND_NS, attribute, make_request, make_span

pytestmark = pytest.mark.tempo

DEADLINE_S = 30.0
CONTAINER = 512 * MIB


class Tempo:
    """A managed Tempo and its HTTP API."""

    def __init__(self, data_dir: Path, container_bytes: int = CONTAINER) -> None:
        self.data_dir = data_dir
        self._container_bytes = container_bytes
        self._session: aiohttp.ClientSession | None = None
        self.backend = self._make()

    def _make(self) -> ChildBackend:
        binary = find_tempo()
        assert binary is not None
        settings = Settings.load({"GATEWAY_DATA_DIR": str(self.data_dir)})
        return managed_tempo(settings, binary, container_bytes=self._container_bytes)

    async def start(self) -> None:
        self._session = self._session or aiohttp.ClientSession()
        self.backend.start(lambda: None)
        await self.until_ready()

    async def until_ready(self, generation: int = 1) -> None:
        await self.until(
            lambda: self.backend.state == "ready" and self.backend.generation >= generation
        )

    async def restart(self) -> None:
        """Another gateway over the same files."""
        self.backend = await asyncio.to_thread(self._make)
        await self.start()

    async def until(self, found: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not found():
                await asyncio.sleep(0.01)

    async def push(self, *spans: Any, tenant: str = "") -> Outcome:
        payload = make_request(*spans).SerializeToString()
        return await self.backend.exporter.export(tenant, payload, timeout_s=10.0)

    async def get(self, path: str) -> tuple[int, Any]:
        assert self._session is not None
        async with self._session.get(f"{self.backend.base_url}{path}") as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body[:1] == b"{" else body

    async def names(self, trace_id: bytes) -> set[str]:
        """The names of a trace's spans."""
        status, trace = await self.get(f"/api/traces/{trace_id.hex()}")
        if status != 200:
            return set()
        return {
            span["name"]
            for resource in trace["batches"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        }

    async def finds(self, query: str, window: tuple[int, int] | None = None) -> bool:
        path = f"/api/search?q={quote(query)}"
        path += f"&start={window[0]}&end={window[1]}" if window else ""
        status, found = await self.get(path)
        assert status == 200, found
        return bool(found["traces"])

    async def eventually_finds(self, query: str, window: tuple[int, int] | None = None) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await self.finds(query, window):
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        assert self.backend.pid is not None
        os.kill(self.backend.pid, signal.SIGKILL)

    async def close(self) -> None:
        pid = self.backend.pid
        await self.backend.stop(0.0)
        assert pid is None or is_gone(pid)
        if self._session is not None:
            await self._session.close()


@pytest.fixture
async def stopped(tmp_path):
    if find_tempo() is None:
        pytest.skip("no Tempo binary: set TEMPO_BIN or put one at ./bin/tempo")
    tempo = await asyncio.to_thread(Tempo, tmp_path)
    yield tempo
    await tempo.close()


@pytest.fixture
async def tempo(stopped):
    await stopped.start()
    return stopped


async def test_what_is_delivered_is_found_by_id_at_once_and_by_search_soon(tempo):
    trace_id = os.urandom(16)
    assert (await tempo.push(make_span("hello", trace_id=trace_id))).fate is Fate.DELIVERED
    assert await tempo.names(trace_id) == {"hello"}
    await tempo.eventually_finds('{name="hello"}')


async def test_spans_that_come_hours_late_are_found_by_search(tempo):
    """For 3.x only once a block is finished and seen, up to a minute later, so not waited for."""
    if tempo.backend.exporter and (await tempo.get("/live-store/ring"))[0] == 200:
        pytest.skip("3.x asks its live store for the last 15 minutes only")
    at = time.time_ns() - 5 * 3600 * SECOND_NS
    await tempo.push(make_span("late", start_time_unix_nano=at, end_time_unix_nano=at + 1))
    second = at // SECOND_NS
    await tempo.eventually_finds('{name="late"}', (second - 600, second + 600))


async def test_nothing_listens_on_other_than_loopback(tempo):
    listening = await asyncio.to_thread(
        subprocess.run, ["ss", "-Hltnp"], capture_output=True, text=True
    )
    own = [line for line in listening.stdout.splitlines() if f"pid={tempo.backend.pid}," in line]
    addresses = {line.split()[3].rpartition(":")[0] for line in own}
    assert addresses == {"127.0.0.1"}
    assert len(own) == 3


async def test_long_values_are_not_cut(tempo):
    if (await tempo.get("/api/status/buildinfo"))[1]["version"].startswith("2.4"):
        pytest.skip("2.4 does not cut")
    trace_id = os.urandom(16)
    await tempo.push(make_span("x", trace_id=trace_id, attributes=[attribute("a", "é" * 50_000)]))
    _, trace = await tempo.get(f"/api/traces/{trace_id.hex()}")
    assert "é" * 50_000 in json.dumps(trace, ensure_ascii=False)


async def test_many_traces_at_once_are_all_kept(tempo):
    ids = [os.urandom(16) for _ in range(12_000)]
    await tempo.push(*(make_span("one", trace_id=trace_id) for trace_id in ids))
    _, text = await tempo.get("/metrics")
    discarded = re.findall(rb"^tempo_discarded_spans_total{.*} (\S+)$", text, re.MULTILINE)
    assert all(float(count) == 0 for count in discarded)
    async with asyncio.timeout(DEADLINE_S):
        # 2.4 does not see a trace while it moves from its memory to the WAL with many others.
        while await tempo.names(ids[-1]) != {"one"}:
            await asyncio.sleep(0.1)


async def test_what_can_never_fit_is_to_be_split_and_what_fits_is_kept_whole(tempo):
    too_large = make_span("larger", attributes=[attribute("a", "x" * (11 * MIB))])
    outcome = await tempo.push(too_large)
    assert (outcome.fate, outcome.code) == (Fate.SPLIT, "RESOURCE_EXHAUSTED")
    trace_id = os.urandom(16)
    large = make_span("large", trace_id=trace_id, attributes=[attribute("a", "x" * (9 * MIB))])
    assert (await tempo.push(large)).fate is Fate.DELIVERED
    assert await tempo.names(trace_id) == {"large"}


async def test_traceql_metrics_are_answered_where_there_is_room(tmp_path):
    if find_tempo() is None:
        pytest.skip("no Tempo binary: set TEMPO_BIN or put one at ./bin/tempo")
    tempo = await asyncio.to_thread(Tempo, tmp_path, ROOMY_BYTES)
    await tempo.start()
    try:
        now = int(time.time())
        query = f"q={quote('{ } | rate()')}&query={quote('{ } | rate()')}&step=10s"
        path = f"/api/metrics/query_range?{query}&start={now - 60}&end={now + 60}"
        async with asyncio.timeout(2 * DEADLINE_S):
            while True:
                await tempo.push(make_span("counted"))
                status, answer = await tempo.get(path)
                if status == 200 and any(
                    sample.get("value") for s in answer["series"] for sample in s["samples"]
                ):
                    break
                await asyncio.sleep(0.5)
    finally:
        await tempo.close()


async def test_bad_ids_are_refused_for_good(tempo):
    outcome = await tempo.push(make_span(trace_id=b"x" * 15))
    assert (outcome.fate, outcome.lost_connection) == (Fate.REFUSED, False)


async def test_files_are_for_us_alone(tempo):
    assert (tempo.data_dir / "tempo").stat().st_mode & 0o077 == 0


# -- its end -------------------------------------------------------------------------------------


async def test_a_stop_is_quick_although_a_query_was_served_and_loses_nothing(tempo):
    ids = [os.urandom(16) for _ in range(50)]
    await tempo.push(*(make_span("kept", trace_id=trace_id) for trace_id in ids))
    await tempo.names(ids[0])
    async with asyncio.timeout(DEADLINE_S - 5):  # 2.4 sleeps 30 s, later ones hang for ever
        assert await tempo.backend.stop(1000.0)
    await tempo.restart()
    for trace_id in ids:
        assert await tempo.names(trace_id) == {"kept"}


async def test_it_dies_with_the_gateway(stopped):
    """The launcher's promise (test_launcher), once for the real program."""
    await stopped.start()
    assert stopped.backend.pid is not None
    parent = Path(f"/proc/{stopped.backend.pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) == os.getpid()


# -- what an OK is worth -------------------------------------------------------------------------


class Ledger:
    """What was said OK to, and when by the life clock."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, bytes, str]] = []

    async def push(self, tempo: Tempo, trace_id: bytes) -> None:
        name = f"s{len(self.entries)}"
        outcome = await tempo.push(make_span(name, trace_id=trace_id))
        if outcome.fate is Fate.DELIVERED:
            self.entries.append((tempo.backend.alive_s(), trace_id, name))

    async def missing(self, tempo: Tempo, certain_before: float) -> list[tuple[float, str]]:
        """Those whose OK the clock had made certain and that are not there."""
        names: dict[bytes, set[str]] = {}
        lost = []
        for at, trace_id, name in self.entries:
            if at <= certain_before:
                if trace_id not in names:
                    names[trace_id] = await tempo.names(trace_id)
                if name not in names[trace_id]:
                    lost.append((at, name))
        return lost


async def push_until_certain(tempo: Tempo, ledger: Ledger, more_s: float) -> None:
    """New traces and growing ones, until the clock has made the first certain, and some more."""
    growing = [os.urandom(16) for _ in range(3)]
    first = tempo.backend.alive_s()
    async with asyncio.timeout(2 * DEADLINE_S):
        while tempo.backend.alive_s() < first + tempo.backend.hold_s + more_s:
            await ledger.push(tempo, random.choice(growing))
            await ledger.push(tempo, os.urandom(16))
            await asyncio.sleep(0.01)


async def kill_and_check(tempo: Tempo, ledger: Ledger) -> int:
    """SIGKILL, then read back what was certain by then; returns how much that was."""
    certain_before = tempo.backend.alive_s() - tempo.backend.hold_s
    tempo.kill()
    await tempo.until_ready(tempo.backend.generation + 1)
    assert await ledger.missing(tempo, certain_before) == []
    return sum(at <= certain_before for at, _, _ in ledger.entries)


async def test_what_the_hold_time_has_made_certain_survives_sigkill(tempo):
    ledger = Ledger()
    await push_until_certain(tempo, ledger, more_s=random.random())
    assert await kill_and_check(tempo, ledger) > 10


@pytest.mark.slow
async def test_also_under_more_load_than_it_can_write(tempo):
    """Here no fixed time would do: a sweep that takes tens of thousands of traces is not over
    when the hold time is.
    """
    mark = b"PREFIX89"
    spans = [make_span(f"op{n}", trace_id=mark + os.urandom(8)) for n in range(4096)]
    template = make_request(*spans).SerializeToString()
    ledger = Ledger()

    async def flood(until: Callable[[], bool]) -> None:
        exporter = OtlpGrpcExporter(f"127.0.0.1:{tempo.backend.ports.otlp}")  # without the window
        while not until():
            payload = template.replace(mark, os.urandom(8))
            await exporter.export("", payload, timeout_s=10.0)
        await exporter.close()

    async def push_and_flood(until: Callable[[], bool]) -> None:
        floods = Tasks("test")
        for number in range(4):
            floods.spawn(flood(until), f"flood-{number}")
        while not until():
            await ledger.push(tempo, os.urandom(16))
            await asyncio.sleep(0.02)
        while len(floods):
            await asyncio.sleep(0.02)

    began = time.monotonic()
    await push_and_flood(lambda: time.monotonic() > began + 2.0)
    flooded_at = tempo.backend.alive_s()
    await push_until_certain(tempo, ledger, more_s=0.0)
    assert tempo.backend.alive_s() - flooded_at < time.monotonic() - began, "it has lagged"
    began = time.monotonic()
    await push_and_flood(lambda: time.monotonic() > began + 3.0)
    assert await kill_and_check(tempo, ledger) > 10


async def test_a_torn_meta_of_the_wal_costs_nothing(tempo):
    ledger = Ledger()
    wal = Wal(tempo.data_dir / "tempo" / "wal", tempo.data_dir / "tempo" / "wal-copies")
    await ledger.push(tempo, os.urandom(16))
    await tempo.eventually_finds('{name="s0" && span.http.route="/cart/{id}"}')
    await tempo.until(lambda: wal.copies.is_dir() and list(wal.copies.iterdir()))
    pid, generation = tempo.backend.pid, tempo.backend.generation
    os.kill(pid, signal.SIGSTOP)
    for copy in wal.copies.iterdir():  # what a SIGKILL in the wrong microsecond does
        os.truncate(wal.folder / copy.name / "meta.json", 0)
    tempo.kill()
    await tempo.until_ready(generation + 1)
    assert await ledger.missing(tempo, float("inf")) == []
    now = int(time.time())
    await tempo.eventually_finds(
        '{name="s0" && span.http.route="/cart/{id}"}', (now - 600, now + 60)
    )


@pytest.mark.slow
async def test_a_tempo_whose_disk_was_full_is_restarted_so_that_it_keeps_spans_again(
    stopped, tmp_path
):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs to mount a small file system")
    disk = tmp_path / "tempo"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if (await asyncio.to_thread(subprocess.run, mount, capture_output=True)).returncode:
        pytest.skip("may not mount")
    try:
        await stopped.start()
        values = [attribute(f"a{n}", os.urandom(150).hex()) for n in range(3)]
        async with asyncio.timeout(2 * DEADLINE_S):
            while stopped.backend.generation == 1:
                await stopped.push(*(make_span("fill", attributes=values) for _ in range(300)))
                await asyncio.sleep(0.2)
        roomy = ["mount", "-o", "remount,size=100m", str(disk)]
        await asyncio.to_thread(subprocess.run, roomy, check=True)
        await stopped.until_ready(2)
        ledger = Ledger()
        await push_until_certain(stopped, ledger, more_s=0.5)
        assert await kill_and_check(stopped, ledger) > 10
    finally:
        await stopped.backend.stop(0.0)
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(disk)])
