from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway.envelope import Envelope
from gateway.errors import Cause, Refused
from gateway.pipeline.records import Record
from gateway.pipeline.segments import SegmentLog
from gateway.pipeline.spool import DiskSpool, MemorySpool
from gateway.pipeline.stalls import Stalls
from tests.kit.disks import file_size_limit
from tests.kit.scripted import mark, marks, until


class ObservedLog(SegmentLog):
    """A log that tells what it is asked to do, and does it when ``gate`` is set."""

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        super().__init__(directory, max_bytes=2**20, fsync=fsync)
        self.gate = threading.Event()
        self.gate.set()
        self.groups: list[list[int]] = []
        self.writers: list[str] = []
        self.wrote: Callable[[], None] = lambda: None
        self.releases: list[list[int]] = []
        self.fault: Exception | None = None
        self.closed = False

    def close(self) -> None:
        self.closed = True
        super().close()

    def append(self, envelopes: Sequence[Envelope]) -> int:
        assert not self.closed
        self.groups.append([n for envelope in envelopes for n in marks(envelope.payload)])
        in_loop = threading.current_thread() is threading.main_thread()
        self.writers.append("loop" if in_loop else "thread")
        assert in_loop or self.gate.wait(10)
        if self.fault:
            raise self.fault
        first = super().append(envelopes)
        self.wrote()
        return first

    def release(self, sequences) -> None:
        self.releases.append(list(sequences))
        super().release(sequences)


class Client:
    """Appends, and remembers how each was answered and in which order."""

    def __init__(self, spool) -> None:
        self._spool = spool
        self.answers: dict[int, list[int | Refused]] = {}
        self.order: list[int] = []
        self.asked = 0

    def append(self, *numbers: int, padding: int = 0, tenant: str = "") -> None:
        """One request; known by its first number."""
        request = numbers[0]
        self.answers[request] = []
        self.asked += 1

        def written(answer: int | Refused) -> None:
            self.order.append(request)
            self.answers[request].append(answer)

        payloads = [mark(number, padding=padding) for number in numbers]
        self._spool.append([Envelope(tenant, p, 1, 0.0) for p in payloads], written)

    async def answered(self) -> None:
        await until(lambda: len(self.order) >= self.asked)
        assert all(len(answers) == 1 for answers in self.answers.values())

    def sequence(self, request: int) -> int:
        (answer,) = self.answers[request]
        assert isinstance(answer, int), f"refused: {answer}"
        return answer

    def refused(self, request: int) -> Refused:
        (answer,) = self.answers[request]
        assert isinstance(answer, Refused), "not refused"
        return answer


def numbers(records: Sequence[Record]) -> list[int]:
    return [number for record in records for number in marks(record.envelope.payload)]


class Machine:
    """Where time stands still and nobody waits, unless it is told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits = 0
        self.stalls = Stalls(lambda: self.now, lambda: self.waits)


LOOP = pytest.mark.parametrize("log", ["loop"], indirect=True)
THREAD = pytest.mark.parametrize("log", ["thread"], indirect=True)


@pytest.fixture(params=["loop", "thread"])
def log(tmp_path, request):
    """By who writes: the thread does where each group is synced."""
    return ObservedLog(tmp_path / "spool", fsync=request.param == "thread")


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def spool(log, machine):
    return DiskSpool(log, log.open(), machine.stalls)


@pytest.fixture(autouse=True)
async def closed(spool, log):
    yield
    log.gate.set()
    await spool.close()


@pytest.fixture
def client(spool):
    return Client(spool)


async def on_disk(log: SegmentLog) -> list[int]:
    """What another start finds."""

    def look() -> list[int]:
        again = SegmentLog(log.directory, max_bytes=log.max_bytes, fsync=False)
        again.open()
        try:
            return numbers(again.read(1, 2**30))
        finally:
            again.close()

    return await asyncio.to_thread(look)


# -- group commit ----------------------------------------------------------------------------------


async def test_a_request_is_answered_with_the_sequence_of_its_first_envelope(spool, client):
    client.append(10, 11, 12)
    await client.answered()
    client.append(20)
    await client.answered()
    assert client.sequence(20) == client.sequence(10) + 3
    assert numbers(await spool.read(client.sequence(10), 2**20)) == [10, 11, 12, 20]


async def test_what_is_appended_in_one_pass_of_the_loop_is_one_write(log, client):
    for number in range(100):
        client.append(number)
    assert client.order == []
    await client.answered()
    assert log.groups == [list(range(100))]
    assert client.order == list(range(100))
    assert [client.sequence(n) - client.sequence(0) for n in range(100)] == list(range(100))


@THREAD
async def test_what_arrives_while_a_group_is_written_is_one_write(log, client):
    log.gate.clear()
    client.append(0)
    await until(lambda: log.groups)
    for number in range(1, 100):
        client.append(number)
        await asyncio.sleep(0)
    assert client.order == []
    log.gate.set()
    await client.answered()
    assert log.groups == [[0], list(range(1, 100))]
    assert client.order == list(range(100))
    assert [client.sequence(n) - client.sequence(0) for n in range(100)] == list(range(100))


@THREAD
async def test_each_request_of_a_group_gets_the_sequence_of_its_own_first(log, client):
    log.gate.clear()
    client.append(1)
    await until(lambda: log.groups)
    client.append(10, 11, 12)
    client.append(20, 21)
    client.append(30)
    log.gate.set()
    await client.answered()
    first = client.sequence(1)
    assert [client.sequence(n) - first for n in (10, 20, 30)] == [1, 4, 6]


async def test_who_appends_when_answered_is_in_a_later_group_and_order_holds(log, spool):
    answered: list[tuple[int, int | Refused]] = []

    def append(number: int) -> None:
        def written(sequence: int | Refused) -> None:
            answered.append((number, sequence))
            if number < 10:
                append(number + 1)

        spool.append([Envelope("", mark(number), 1, 0.0)], written)

    append(0)
    await until(lambda: len(answered) == 11)
    assert [number for number, _ in answered] == list(range(11))
    assert log.groups == [[number] for number in range(11)]


@THREAD
async def test_a_client_whose_answer_fails_costs_the_others_of_its_group_nothing(
    log, spool, client, caplog
):
    log.gate.clear()
    client.append(1)

    def fails(_: int | Refused) -> None:
        raise RuntimeError("boom")

    spool.append([Envelope("", mark(2), 1, 0.0)], fails)
    client.append(3)
    log.gate.set()
    await client.answered()
    assert client.sequence(3) == client.sequence(1) + 2
    (event,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert event.exc_info


# -- who writes ------------------------------------------------------------------------------------


@LOOP
async def test_the_loop_writes_small_groups_before_it_turns_again(log, client):
    client.append(1)
    client.append(2, 3)
    await asyncio.sleep(0)
    assert client.order == [1, 2]
    assert log.writers == ["loop"]


@THREAD
async def test_what_is_synced_the_thread_writes(log, client):
    client.append(1)
    await client.answered()
    assert log.writers == ["thread"]


@LOOP
async def test_a_large_group_is_the_threads(log, client):
    for number in range(1, 8):
        client.append(number, padding=2**17)
    await client.answered()
    assert log.writers == ["loop"]
    client.append(8, padding=2**20 - 2)
    await client.answered()
    assert log.writers == ["loop", "thread"]


@LOOP
async def test_a_segment_is_begun_by_the_thread(log, client):
    client.append(1, padding=2**17)
    await client.answered()
    client.append(2)
    await client.answered()
    client.append(3)
    await client.answered()
    assert log.writers == ["loop", "thread", "loop"]
    assert len(list(log.directory.glob("*.log"))) == 2


@LOOP
async def test_after_a_slow_write_the_thread_writes_a_hundred_times_as_long(log, machine, client):
    def slow() -> None:
        machine.now += 0.5
        machine.waits += 1
        log.wrote = lambda: None

    log.wrote = slow
    client.append(1)
    await client.answered()
    for number, seconds in ((2, 0), (3, 49), (4, 2)):
        machine.now += seconds
        client.append(number)
        await client.answered()
    assert log.writers == ["loop", "thread", "thread", "loop"]
    assert client.order == [1, 2, 3, 4]


@LOOP
async def test_what_comes_while_the_thread_releases_is_written_after_it(log, spool, client):
    client.append(1, 2)
    await client.answered()
    spool.release([client.sequence(1)])
    client.append(3)
    await client.answered()
    client.append(4)
    await client.answered()
    assert log.writers == ["loop", "thread", "loop"]
    assert log.releases == [[1]]
    assert numbers(await spool.read(1, 2**20)) == [2, 3, 4]


# -- refusals --------------------------------------------------------------------------------------


async def test_a_full_spool_refuses_and_takes_again_once_something_is_released(
    log, spool, client, caplog
):
    requests = [number * 10 for number in range(1, 30)]
    for request in requests:
        client.append(request, padding=2**16)
        await client.answered()
    taken = [r for r in requests if isinstance(client.answers[r][0], int)]
    assert taken == requests[: len(taken)]
    assert 10 <= len(taken) <= 15
    assert client.refused(requests[-1]).cause is Cause.SPOOL_FULL
    assert spool.size_bytes <= log.max_bytes
    assert spool.last_error is None
    assert [r.getMessage() for r in caplog.records] == ["spool full"]

    spool.release([client.sequence(r) for r in taken[:8]])
    client.append(1, padding=2**16)
    await client.answered()
    client.sequence(1)


async def test_a_full_spool_still_takes_what_is_small_enough(client):
    for request in range(1, 40):
        client.append(request, padding=2**15)
        await client.answered()
    client.refused(39)
    client.append(100)
    await client.answered()
    client.sequence(100)


@THREAD
async def test_one_that_finds_no_room_does_not_have_its_neighbours_refused(log, client):
    """They are written together and do not fit together; each that fits alone is taken."""
    log.gate.clear()
    client.append(1)
    for number, padding in ((2, 0), (3, 2**20 - 2000), (4, 0)):
        client.append(number, padding=padding)
    client.append(5, padding=2**19)
    log.gate.set()
    await client.answered()
    assert [isinstance(client.answers[n][0], int) for n in (1, 2, 3, 4, 5)] == [
        True, True, True, True, False,
    ]  # fmt: skip
    assert client.answers[5][0].cause is Cause.SPOOL_FULL


async def test_what_could_never_fit_is_refused_for_good(log, client):
    client.append(1, padding=2**20)
    await client.answered()
    refused = client.answers[1][0]
    assert refused.cause is Cause.TOO_LARGE
    assert "GATEWAY_SPOOL_BYTES" in refused.message


@THREAD
async def test_a_group_that_cannot_be_written_is_refused_whole_and_the_next_is_taken(
    log, client, caplog
):
    log.gate.clear()
    log.fault = OSError(28, "No space left on device")
    client.append(1)
    await until(lambda: log.groups)
    client.append(2, 3)
    client.append(4)
    log.gate.set()
    await client.answered()
    log.fault = None
    client.append(5)
    await client.answered()
    assert [client.refused(n).cause for n in (1, 2, 4)] == [Cause.SPOOL_FAILED] * 3
    assert client.order == [1, 2, 4, 5]
    client.sequence(5)
    assert [r.getMessage() for r in caplog.records] == ["spool write failed"]


async def test_a_disk_that_fails_is_told_in_log_and_status_until_a_write_succeeds(
    log, spool, client, caplog
):
    client.append(1)
    await client.answered()
    with file_size_limit(2**16):
        client.append(2, padding=2**17)
        await client.answered()
        client.append(3, padding=2**17)
        await client.answered()
    assert client.refused(2).cause is client.refused(3).cause is Cause.SPOOL_FAILED
    assert "File too large" in (spool.last_error or "")
    (event,) = [r.facts for r in caplog.records if r.getMessage() == "spool write failed"]
    assert "File too large" in event["error"]
    spool.release([client.sequence(1)])
    await until(lambda: log.releases)
    await asyncio.sleep(0.01)
    assert spool.last_error is not None, "a release proves nothing about writing"
    client.append(4)
    await client.answered()
    client.sequence(4)
    assert spool.last_error is None
    await spool.close()
    assert await on_disk(log) == [4]


async def test_what_cannot_be_stored_at_all_is_refused_and_logged_with_its_traceback(
    spool, client, caplog
):
    client.append(1, tenant="t" * 70_000)  # more than a record's header has room for
    await client.answered()
    assert client.refused(1).cause is Cause.SPOOL_FAILED
    (event,) = caplog.records
    assert event.exc_info
    client.append(2)
    await client.answered()
    client.sequence(2)


# -- release and read ------------------------------------------------------------------------------


async def test_what_is_released_is_read_never_again_also_by_the_next_start(log, spool, client):
    client.append(1, 2, 3, 4)
    await client.answered()
    first = client.sequence(1)
    spool.release([first, first + 2])
    client.append(5)
    await client.answered()
    assert numbers(await spool.read(first, 2**20)) == [2, 4, 5]
    await spool.close()
    assert await on_disk(log) == [2, 4, 5]


@THREAD
async def test_releases_are_joined_as_writes_are_and_done_before_them(log, spool, client):
    client.append(1, 2, 3)
    await client.answered()
    log.gate.clear()
    client.append(4)
    await until(lambda: log.groups[-1] == [4])
    for sequence in (1, 2, 3):
        spool.release([sequence])
    client.append(5)
    log.gate.set()
    await client.answered()
    assert log.releases == [[1, 2, 3]]
    assert log.groups[-1] == [5]


async def test_damage_that_a_read_finds_is_counted(log, spool, client):
    client.append(1, 2, 3)
    await client.answered()
    (path,) = log.directory.glob("*.log")
    data = bytearray(path.read_bytes())
    data[data.index(mark(2))] ^= 0xFF
    path.write_bytes(data)
    assert spool.lost_spans == 0
    assert numbers(await spool.read(1, 2**20)) == [1, 3]
    assert spool.lost_spans == 1


# -- the end ---------------------------------------------------------------------------------------


@THREAD
async def test_close_answers_and_writes_everything_that_waits(log, spool, client):
    log.gate.clear()
    client.append(1)
    client.append(2, 3)
    await until(lambda: log.groups)
    closing = asyncio.get_running_loop().create_task(spool.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    log.gate.set()
    async with asyncio.timeout(5):
        await closing
    await client.answered()
    assert [client.sequence(1), client.sequence(2)] == [1, 2]
    assert await on_disk(log) == [1, 2, 3]


async def test_a_release_that_fails_in_a_way_nobody_thought_of_holds_up_nobody(
    log, spool, client, caplog
):
    def fail(_sequences) -> None:
        raise RuntimeError("boom")

    client.append(1)
    await client.answered()
    log.release = fail
    spool.release([client.sequence(1)])
    await until(lambda: caplog.records)
    client.append(2)
    await client.answered()
    assert client.sequence(2)
    assert [record.getMessage() for record in caplog.records] == ["spool release failed"]


@THREAD
async def test_close_writes_the_releases_that_wait(log, spool, client):
    client.append(1, 2)
    await client.answered()
    log.gate.clear()
    client.append(3)
    spool.release([1])
    log.gate.set()
    await spool.close()
    assert await on_disk(log) == [2, 3]


async def test_close_is_safe_twice_and_on_a_spool_that_was_never_used(spool):
    await spool.close()
    await spool.close()


async def test_what_was_not_released_is_recovered_at_the_next_start(log, spool, client):
    client.append(1, 2, 3)
    await client.answered()
    spool.release([2])
    await spool.close()
    again = SegmentLog(log.directory, max_bytes=log.max_bytes, fsync=False)
    with_its_past = DiskSpool(again, await asyncio.to_thread(again.open))
    assert with_its_past.recovered_spans == 2
    assert numbers(await with_its_past.read(1, 2**20)) == [1, 3]
    await with_its_past.close()


# -- memory only -----------------------------------------------------------------------------------


async def test_the_memory_spool_takes_everything_at_once():
    client = Client(MemorySpool())
    client.append(1, 2)
    client.append(3)
    assert (client.sequence(1), client.sequence(3)) == (1, 3)
    assert not MemorySpool.durable
