from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.envelope import Envelope
from gateway.pipeline.directory_lock import SpoolLocked
from gateway.pipeline.framing import MARK_BYTES, record_bytes
from gateway.pipeline.segment_index import Damage
from gateway.pipeline.segments import SegmentLog, SpoolError, SpoolFull
from tests.kit.disks import SmallDisk, file_size_limit

MIB = 2**20
EVERYTHING = 2**40


def make_envelope(number: int, *, size: int = 20) -> Envelope:
    return Envelope(f"tenant-{number % 3}", b"%d," % number * size, number % 5 + 1, float(number))


def make_envelopes(*numbers: int, size: int = 20) -> list[Envelope]:
    return [make_envelope(number, size=size) for number in numbers]


@pytest.fixture
def opened(tmp_path):
    """Opens logs in one directory, each in place of the one before, as restarts do."""
    logs: list[SegmentLog] = []

    def open_log(directory=tmp_path / "spool", *, max_bytes=MIB, segment_bytes=4096, fsync=False):
        if logs:
            logs[-1].close()
        log = SegmentLog(directory, max_bytes=max_bytes, segment_bytes=segment_bytes, fsync=fsync)
        logs.append(log)
        recovery = log.open()
        return log, recovery

    yield open_log
    for log in logs:
        log.close()


def pending(log: SegmentLog) -> dict[int, Envelope]:
    """Everything that is pending, read in steps; proves the order as well."""
    found: dict[int, Envelope] = {}
    sequence = 0
    while records := log.read(sequence, 500):
        for record in records:
            assert record.sequence >= sequence
            found[record.sequence] = record.envelope
            sequence = record.sequence + 1
    return found


def disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.name != "lock")


def logs_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


# Append, read, release.


@pytest.mark.parametrize("fsync", [False, True])
def test_what_was_appended_is_read_in_order_and_again_after_a_restart(opened, fsync):
    log, _ = opened(fsync=fsync)
    envelopes = make_envelopes(*range(10))

    assert log.append(envelopes[:1]) == 1
    assert log.append(envelopes[1:7]) == 2
    assert log.append([]) == 8
    assert log.append(envelopes[7:]) == 8

    expected = dict(enumerate(envelopes, 1))
    assert pending(log) == expected
    log, recovery = opened(fsync=fsync)
    assert pending(log) == expected
    assert (recovery.records, recovery.spans) == (10, sum(e.spans for e in envelopes))
    assert (recovery.lost, recovery.torn_bytes) == (Damage(), 0)


def test_a_read_gives_no_more_than_asked_for_but_at_least_one(opened):
    log, _ = opened()
    envelopes = make_envelopes(*range(6))
    log.append(envelopes)
    two = record_bytes(envelopes[1]) + record_bytes(envelopes[2])

    assert [record.sequence for record in log.read(2, two)] == [2, 3]
    assert [record.sequence for record in log.read(2, two - 1)] == [2]
    assert [record.sequence for record in log.read(2, 1)] == [2]
    assert log.read(7, EVERYTHING) == []


def test_reads_records_larger_than_a_segment_and_than_one_read(opened):
    log, _ = opened(max_bytes=64 * MIB)
    big = Envelope("", os.urandom(3 * MIB), 7, 1.0)
    log.append([make_envelope(1), big, make_envelope(3)])

    assert [record.envelope for record in log.read(0, EVERYTHING)] == [
        make_envelope(1),
        big,
        make_envelope(3),
    ]


def test_the_directory_is_for_the_owner_only(opened):
    log, _ = opened()

    assert stat.S_IMODE(log.directory.stat().st_mode) == 0o700


def test_released_ones_are_not_read_again_also_after_a_restart(opened):
    log, _ = opened()
    log.append(make_envelopes(*range(1, 11)))

    log.release([2, 3, 3, 9, 0, 500])

    left = {number: make_envelope(number) for number in (1, 4, 5, 6, 7, 8, 10)}
    assert pending(log) == left
    assert log.pending_records == 7
    log, recovery = opened()
    assert pending(log) == left
    assert recovery.records == 7
    assert log.pending_spans == recovery.spans == sum(e.spans for e in left.values())


def test_one_record_that_stays_keeps_its_segment_only(opened):
    log, _ = opened()
    for number in range(100):
        log.append(make_envelopes(number, size=200))
    assert len(logs_in(log.directory)) > 10

    log.release(set(range(1, 101)) - {50})

    assert list(pending(log)) == [50]
    assert len(logs_in(log.directory)) == 2  # and the one written to
    assert log.size_bytes < 3 * 4096


def test_nothing_is_on_disk_when_all_is_released(opened):
    log, _ = opened()
    log.append(make_envelopes(*range(5)))

    log.release(range(1, 6))

    assert log.size_bytes == disk_bytes(log.directory) == 0
    assert repr(log).endswith("0 records, 0 spans, 1 segments>")


def test_sequences_go_on_after_a_restart_also_of_an_empty_spool(opened):
    log, _ = opened()
    log.append(make_envelopes(1, 2, 3))
    log.release([1, 2, 3])

    for _ in range(3):
        log, recovery = opened()
        assert recovery.records == 0

    assert log.append(make_envelopes(4)) == 4


# The cap.


def test_an_append_over_the_cap_is_refused_until_a_segment_is_released(opened):
    log, _ = opened(max_bytes=20_000)
    sequences = []
    with pytest.raises(SpoolFull) as refused:
        while True:
            sequences.append(log.append(make_envelopes(1, size=200)))

    needed = record_bytes(make_envelope(1, size=200)) + MARK_BYTES
    assert refused.value.needed_bytes == needed
    assert 20_000 - needed < refused.value.size_bytes == log.size_bytes <= 20_000
    assert list(pending(log)) == sequences
    for sequence in sequences:  # one by one, so that each takes a mark of its own
        log.release([sequence])
        assert disk_bytes(log.directory) <= log.size_bytes <= 20_000
    log.append(make_envelopes(1, size=200))


def test_a_full_spool_of_which_all_is_released_during_an_append_takes_the_next(opened):
    log, _ = opened(max_bytes=20_000, segment_bytes=MIB)
    first = log.append([Envelope("", bytes(19_000), 1, 0.0)])
    with log._writer:  # as an append holds it
        log.release([first])
    assert log.size_bytes > 19_000

    log.append([Envelope("", bytes(19_000), 1, 0.0)])

    assert len(logs_in(log.directory)) == 1


def test_a_group_larger_than_the_cap_never_fits_and_tells_so(opened):
    log, _ = opened(max_bytes=1000)

    with pytest.raises(SpoolFull) as refused:
        log.append([Envelope("", bytes(1000), 1, 0.0)])

    assert refused.value.needed_bytes > refused.value.max_bytes
    assert log.append([Envelope("", bytes(100), 1, 0.0)]) == 1


def test_a_spool_over_a_lowered_cap_is_drained_before_it_takes_more(opened):
    log, _ = opened()
    log.append(make_envelopes(*range(50)))

    log, recovery = opened(max_bytes=1000)

    assert recovery.records == 50
    with pytest.raises(SpoolFull):
        log.append(make_envelopes(1))
    log.release(range(1, 51))
    log.append(make_envelopes(1))


# Disks that fail.


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    disk = SmallDisk(path, 256 * 1024)
    if not disk.mount():
        pytest.skip("mounting a small disk needs root")
    yield disk
    disk.unmount()


@pytest.fixture
def log_on(small_disk):
    """Opens the log on the small disk and closes it before the disk goes."""
    with contextlib.ExitStack() as stack:

        def open_log():
            log = SegmentLog(small_disk.path, max_bytes=MIB, segment_bytes=32 * 1024, fsync=True)
            log.open()
            stack.callback(log.close)
            return log

        yield open_log


def test_a_full_disk_refuses_keeps_what_it_took_and_takes_again_when_space_returns(
    small_disk, log_on
):
    log = log_on()
    taken = {}
    with pytest.raises(SpoolError) as refused:
        while True:
            group = make_envelopes(len(taken), len(taken) + 1, size=1000)
            taken |= dict(enumerate(group, log.append(group)))
    assert refused.value.errno == errno.ENOSPC
    assert len(taken) > 10

    assert pending(log) == taken
    assert disk_bytes(log.directory) <= log.size_bytes  # no half of a group stayed

    gone = sorted(taken)[: len(taken) // 2]
    log.release(gone)
    first = log.append(make_envelopes(7))
    expected = {n: e for n, e in taken.items() if n not in gone} | {first: make_envelope(7)}
    assert pending(log) == expected
    log.close()
    log = log_on()
    assert pending(log) == expected


def test_releases_on_a_full_disk_are_not_forgotten(small_disk, log_on):
    log = log_on()
    log.append(make_envelopes(*range(1, 5)))
    ballast = small_disk.fill()
    log.release([2])
    assert list(pending(log)) == [1, 3, 4]

    ballast.unlink()
    log.release([3])
    log.close()
    log = log_on()

    assert list(pending(log)) == [1, 4]


def test_a_read_only_disk_is_drained_and_refuses_appends(small_disk, log_on):
    log = log_on()
    log.append(make_envelopes(1, 2, 3))
    log.close()
    small_disk.remount(read_only=True)

    log = log_on()

    assert list(pending(log)) == [1, 2, 3]
    with pytest.raises(SpoolError) as refused:
        log.append(make_envelopes(4))
    assert refused.value.errno == errno.EROFS
    log.release([1, 2, 3])
    assert pending(log) == {}
    small_disk.remount(read_only=False)
    log.release([])
    assert log.size_bytes == disk_bytes(log.directory) == 0
    assert log.append(make_envelopes(4)) == 4


def test_a_directory_that_cannot_be_made_is_a_spool_error(tmp_path):
    (tmp_path / "file").touch()
    log = SegmentLog(tmp_path / "file" / "spool", max_bytes=MIB, fsync=False)

    with pytest.raises(SpoolError) as refused:
        log.open()

    assert refused.value.errno == errno.ENOTDIR
    log.close()


def test_a_write_that_fails_half_way_takes_none_of_the_group(opened):
    log, _ = opened(segment_bytes=MIB)
    log.append(make_envelopes(1, 2))

    with file_size_limit(disk_bytes(log.directory) + 500), pytest.raises(SpoolError) as refused:
        log.append(make_envelopes(*range(3, 40)))

    assert refused.value.errno == errno.EFBIG
    assert log.append(make_envelopes(3)) == 3
    assert pending(log) == dict(enumerate(make_envelopes(1, 2, 3), 1))


def test_a_failed_sync_refuses_the_group_and_the_next_goes_to_a_new_segment(opened):
    """A pipe in place of the file takes every write and can be neither synced nor cut."""
    log, _ = opened(fsync=True)
    log.append(make_envelopes(1, 2))
    receiver, sender = os.pipe()
    active = log._active
    assert active is not None
    assert active._fd is not None
    os.dup2(sender, active._fd)
    os.close(sender)
    size = log.size_bytes

    with pytest.raises(SpoolError):
        log.append(make_envelopes(3, 4))
    os.close(receiver)
    assert log.size_bytes == size + sum(map(record_bytes, make_envelopes(3, 4)))

    # The refused group may be in the old segment for a later start to find: other sequences.
    assert log.append(make_envelopes(5)) == 5
    assert list(pending(log)) == [1, 2, 5]
    log, _ = opened()
    assert list(pending(log)) == [1, 2, 5]


def test_a_read_that_the_system_refuses_is_a_spool_error(opened):
    log, _ = opened()
    log.append(make_envelopes(1))
    (path,) = logs_in(log.directory)
    path.rename(path.with_name("aside"))
    path.symlink_to(path)

    with pytest.raises(SpoolError):
        log.read(0, EVERYTHING)

    path.with_name("aside").rename(path)
    assert list(pending(log)) == [1]


# Two at once.


def test_a_second_log_in_the_directory_is_refused_until_the_first_closes(opened):
    log, _ = opened()
    second = SegmentLog(log.directory, max_bytes=MIB, fsync=False)

    with pytest.raises(SpoolLocked) as refused:
        second.open()

    assert refused.value.pid == os.getpid()
    log.append(make_envelopes(1))
    log.close()
    assert second.open().records == 1
    second.close()


def test_append_read_and_release_run_at_once(opened):
    """Each in a thread of its own, on small segments that come and go all the time."""
    log, _ = opened(segment_bytes=1024)
    count, seen, failures = 1500, [], []
    readable, releasable = threading.Semaphore(0), threading.Semaphore(0)

    def guarded(work):
        try:
            work()
        except BaseException as error:
            failures.append(error)
            raise

    def append():
        for number in range(0, count, 3):
            assert log.append(make_envelopes(number, number + 1, number + 2)) == number + 1
            readable.release()

    def read():
        while len(seen) < count:
            assert readable.acquire(timeout=30)
            for record in log.read(len(seen) + 1, EVERYTHING):
                assert record.envelope == make_envelope(record.sequence - 1)
                seen.append(record.sequence)
            releasable.release()

    def release():
        done = 0
        while done < count:
            assert releasable.acquire(timeout=30)
            upto = len(seen)
            log.release(seen[done:upto])
            done = upto

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=guarded, args=(w,)) for w in (append, read, release)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)

    assert failures == []
    assert seen == list(range(1, count + 1))
    assert (log.pending_records, log.pending_spans) == (0, 0)
    assert log.size_bytes == disk_bytes(log.directory) == 0


# Damage.


@pytest.fixture
def small_log(opened):
    """A log of four records in one segment, closed; the path of that segment."""
    log, _ = opened()
    log.append(make_envelopes(1, 2, 3, 4, size=4))
    log.close()
    return logs_in(log.directory)[0]


def whole_records(size: int) -> dict[int, Envelope]:
    return dict(enumerate(make_envelopes(*range(1, size + 1), size=4), 1))


def recovered_copy(segment: Path, data: bytes, directory: Path):
    """What a log finds that starts on this content of the segment."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / segment.name).write_bytes(data)
    log = SegmentLog(directory, max_bytes=MIB, fsync=False)
    recovery = log.open()
    found = pending(log)
    next_sequence = log.append(make_envelopes(9))
    log.close()
    return recovery, found, next_sequence


def test_a_segment_cut_at_any_byte_gives_its_whole_records_and_takes_new_ones(small_log, tmp_path):
    data = small_log.read_bytes()
    size = len(data) // 4

    for end in range(len(data) + 1):
        recovery, found, next_sequence = recovered_copy(small_log, data[:end], tmp_path / "copy")

        assert found == whole_records(end // size)
        assert (recovery.records, recovery.torn_bytes) == (end // size, end % size)
        assert recovery.lost == Damage()
        assert next_sequence > end // size


def test_a_changed_byte_anywhere_costs_one_record_which_is_counted(small_log, tmp_path):
    data = small_log.read_bytes()
    size = len(data) // 4

    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        recovery, found, next_sequence = recovered_copy(
            small_log, bytes(damaged), tmp_path / "copy"
        )

        lost = place // size + 1
        assert found == {n: e for n, e in whole_records(4).items() if n != lost}
        assert (recovery.records, recovery.lost.records, recovery.lost.bytes) == (3, 1, size)
        assert next_sequence > 4


def test_no_sequence_of_a_damaged_tail_is_given_out_again(small_log, tmp_path):
    data = small_log.read_bytes()
    size = len(data) // 4

    damaged = data[:size] + bytes(3 * size)
    _, found, next_sequence = recovered_copy(small_log, damaged, tmp_path / "copy")

    assert found == whole_records(1)
    assert next_sequence > 4


def test_a_byte_that_changes_while_the_log_is_open_costs_one_record_which_is_counted(
    small_log, opened, tmp_path
):
    data = small_log.read_bytes()
    size = len(data) // 4

    for place in range(len(data)):
        directory = tmp_path / str(place)
        shutil.copytree(small_log.parent, directory)
        log, _ = opened(directory)
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        (directory / small_log.name).write_bytes(bytes(damaged))

        lost = place // size + 1
        assert pending(log) == {n: e for n, e in whole_records(4).items() if n != lost}
        assert log.damage == Damage(1, make_envelope(lost).spans, size)
        assert log.pending_records == 3


def test_a_damaged_segment_is_deleted_like_another_when_the_rest_is_released(small_log, opened):
    data = bytearray(small_log.read_bytes())
    data[5] ^= 1
    small_log.write_bytes(bytes(data))
    log, _ = opened()

    log.release([2, 3, 4])

    assert not small_log.exists()
    assert log.size_bytes == 0


def test_a_changed_byte_in_the_list_of_released_costs_second_deliveries_only(opened, tmp_path):
    log, _ = opened()
    log.append(make_envelopes(*range(1, 9)))
    log.release([1, 2])
    log.release([5])
    log.close()
    (path,) = log.directory.glob("*.released")
    data = path.read_bytes()

    for place in range(len(data)):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(log.directory, tmp_path / "copy")
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        (tmp_path / "copy" / path.name).write_bytes(bytes(damaged))
        again, _ = opened(tmp_path / "copy")

        extra = {1, 2} if place < MARK_BYTES else {5}
        assert set(pending(again)) == {3, 4, 6, 7, 8} | extra


def test_a_lost_list_of_released_brings_all_of_its_segment_again(opened):
    log, _ = opened()
    log.append(make_envelopes(1, 2, 3))
    log.release([2])
    log.close()
    (path,) = log.directory.glob("*.released")
    path.unlink()

    log, _ = opened()

    assert list(pending(log)) == [1, 2, 3]


def test_a_list_without_its_log_is_removed(small_log, opened):
    orphan = small_log.with_suffix(".released")
    orphan.touch()
    small_log.unlink()

    _, recovery = opened()

    assert recovery.records == 0
    assert not orphan.exists()


def test_empty_and_foreign_files_do_no_harm_and_foreign_ones_stay(small_log, opened, caplog):
    directory = small_log.parent
    empty = directory / f"{9:020d}-{bytes(8).hex()}.log"
    empty.touch()
    foreign = [directory / "notes.txt", directory / "1.log", directory / f"{small_log.name}.bak"]
    for path in foreign:
        path.write_bytes(b"not ours")
    folder = directory / f"{7:020d}-{bytes(8).hex()}.log"
    folder.mkdir()

    log, recovery = opened()

    assert pending(log) == whole_records(4)
    assert recovery.lost == Damage()
    assert not empty.exists()
    assert all(path.read_bytes() == b"not ours" for path in foreign)
    assert folder.is_dir()
    unknown = [r.facts["path"] for r in caplog.records if r.message == "spool file not known"]
    assert sorted(unknown) == sorted([*foreign, folder])


# SIGKILL.

WRITER = """
import sys
from pathlib import Path
from gateway.envelope import Envelope
from gateway.pipeline.segments import SegmentLog

log = SegmentLog(Path(sys.argv[1]), max_bytes=2**30, segment_bytes=8192, fsync=False)
log.open()
number = int(sys.argv[2])
while True:
    group = [Envelope("t", b"%d," % n * 30, 1, 0.0) for n in range(number, number + number % 7 + 1)]
    number += len(group)
    first = log.append(group)
    print(first, len(group), *(envelope.payload.split(b",")[0].decode() for envelope in group))
    if number % 3 == 0:
        print("releases", first, flush=True)
        log.release([first])
        print("released", first)
    sys.stdout.flush()
"""


def test_what_was_acknowledged_before_a_sigkill_is_there_and_what_was_released_is_not(
    tmp_path, opened
):
    acknowledged: dict[int, int] = {}
    maybe_released: set[int] = set()
    for round_ in range(8):
        start = 10_000 * round_
        command = [sys.executable, "-c", WRITER, str(tmp_path / "spool"), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(random.Random(round_).randint(1, 90))]
            writer.kill()
            lines += writer.stdout.readlines()  # what it had said before it died
        for line in lines:
            match line.split():
                case _ if not line.endswith("\n"):
                    pass
                case ["releases", sequence]:
                    maybe_released.add(int(sequence))
                case ["released", sequence]:
                    acknowledged.pop(int(sequence))
                case [first, _, *numbers]:
                    acknowledged |= dict(enumerate(map(int, numbers), int(first)))

        log, recovery = opened()
        found = pending(log)

        assert recovery.lost == Damage()
        for sequence, number in acknowledged.items():
            if sequence in found or sequence not in maybe_released:
                assert found[sequence].payload == b"%d," % number * 30
        # Beside those, only what the writer had no time to speak of: one group a round.
        assert len(found.keys() - acknowledged.keys()) <= 7 * (round_ + 1)
        assert not (maybe_released - acknowledged.keys()) & found.keys()
        log.close()


# Any sequence of it all.


class SpoolMachine(RuleBasedStateMachine):
    """Against a plain dictionary: what is pending is exactly what was appended and not released."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="spool-"))
        self.model: dict[int, Envelope] = {}
        self.last = 0
        self.start()

    def start(self) -> None:
        self.log = SegmentLog(self.directory, max_bytes=6000, segment_bytes=500, fsync=False)
        recovery = self.log.open()
        assert recovery.records == len(self.model)
        assert (recovery.lost, recovery.torn_bytes) == (Damage(), 0)

    @rule(sizes=st.lists(st.integers(0, 400), min_size=1, max_size=6))
    def append(self, sizes: list[int]) -> None:
        envelopes = [Envelope("t" * (n % 3), os.urandom(n), n % 4 + 1, n) for n in sizes]
        size = self.log.size_bytes
        needed = sum(record_bytes(envelope) + MARK_BYTES for envelope in envelopes)
        if size + needed > 6000:
            with pytest.raises(SpoolFull):
                self.log.append(envelopes)
            return
        first = self.log.append(envelopes)
        assert first > self.last
        self.model |= dict(enumerate(envelopes, first))
        self.last = first + len(envelopes) - 1

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def release_some(self, data: st.DataObject) -> None:
        sequences = data.draw(st.sets(st.sampled_from(sorted(self.model)), min_size=1))
        self.log.release(sequences)
        for sequence in sequences:
            del self.model[sequence]

    @precondition(lambda self: self.model)
    @rule(share=st.floats(0, 1))
    def release_the_oldest(self, share: float) -> None:
        sequences = sorted(self.model)[: int(len(self.model) * share) + 1]
        self.log.release(sequences)
        for sequence in sequences:
            del self.model[sequence]

    @rule()
    def restart(self) -> None:
        self.log.close()
        self.start()

    @rule()
    def die_and_start(self) -> None:
        """As a SIGKILL does, the kernel takes the lock away and nothing else is done."""
        self.log._lock.release()
        active = self.log._active
        assert active is not None
        active.seal()
        self.start()

    @rule(back=st.integers(0, 20), limit=st.integers(1, 3000))
    def read(self, back: int, limit: int) -> None:
        start = max(0, self.last - back)
        records = self.log.read(start, limit)
        wanted = [n for n in sorted(self.model) if n >= start]
        assert [record.sequence for record in records] == wanted[: len(records)]
        size = sum(record_bytes(record.envelope) for record in records)
        assert size <= limit or len(records) == 1
        if len(records) < len(wanted):
            assert size + record_bytes(self.model[wanted[len(records)]]) > limit

    @invariant()
    def everything_pending_is_there(self) -> None:
        found = {record.sequence: record.envelope for record in self.log.read(0, EVERYTHING)}
        assert found == self.model
        assert self.log.pending_records == len(self.model)
        assert self.log.pending_spans == sum(e.spans for e in self.model.values())
        assert disk_bytes(self.directory) <= self.log.size_bytes <= 6000

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.directory)


SpoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAnySequence = SpoolMachine.TestCase
