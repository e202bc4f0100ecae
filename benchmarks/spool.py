"""What keeping a request on disk costs: the spool's log beside SQLite, and lmdb where installed.

    python -m benchmarks.spool [--records 40000] [--directory DIR]

Prints tables in Markdown. CPU is that of the process, kernel time for it included, the best of
some rounds, and wall time is of the same round. The records are requests of 500 bytes with 3
spans. lmdb is not among the gateway's packages; ``pip install lmdb`` somewhere to see its row.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from gateway.envelope import Envelope
from gateway.pipeline.segments import SegmentLog

try:
    import lmdb
except ImportError:
    lmdb = None

PAYLOAD_BYTES, SPANS = 500, 3
GROUPS = (1, 32, 512)
ROUNDS = 5
READ_BYTES = 3 * 2**20
RELEASE_GROUP = 1000
RECOVERY_RECORDS = 100_000
DAMAGED_RECORDS, CHANGES = 1000, 100
DAMAGED = ("log", "SQLite OFF", "lmdb nosync")
CAP = 2**30


class Store(Protocol):
    """What a spool needs of whatever keeps its records."""

    def append(self, envelopes: Sequence[Envelope]) -> None: ...

    def rows(self) -> Iterator[tuple[int, Envelope]]:
        """Every record with its sequence, read a few MiB at a time."""

    def release(self, first: int, last: int) -> None: ...

    def pending(self) -> tuple[int, int]:
        """Records and spans; asked for once after a start."""

    def close(self) -> None: ...


class Log:
    def __init__(self, directory: Path, *, fsync: bool) -> None:
        self._log = SegmentLog(directory, max_bytes=CAP, fsync=fsync)
        self._log.open()

    def append(self, envelopes: Sequence[Envelope]) -> None:
        self._log.append(envelopes)

    def rows(self) -> Iterator[tuple[int, Envelope]]:
        sequence = 0
        while records := self._log.read(sequence, READ_BYTES):
            yield from records
            sequence = records[-1].sequence + 1

    def release(self, first: int, last: int) -> None:
        self._log.release(range(first, last + 1))

    def pending(self) -> tuple[int, int]:
        return self._log.pending_records, self._log.pending_spans

    def close(self) -> None:
        self._log.close()


class Sqlite:
    def __init__(self, directory: Path, *, synchronous: str) -> None:
        self._database = sqlite3.connect(directory / "spool.db", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(f"PRAGMA synchronous={synchronous}")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS spool (sequence INTEGER PRIMARY KEY,"
            " tenant TEXT, payload BLOB, spans INTEGER, received_at REAL)"
        )

    def append(self, envelopes: Sequence[Envelope]) -> None:
        execute = self._database.execute
        execute("BEGIN")
        self._database.executemany(
            "INSERT INTO spool (tenant, payload, spans, received_at) VALUES (?, ?, ?, ?)", envelopes
        )
        execute("COMMIT")

    def rows(self) -> Iterator[tuple[int, Envelope]]:
        query = "SELECT * FROM spool WHERE sequence > ? ORDER BY sequence LIMIT ?"
        last, limit = 0, READ_BYTES // PAYLOAD_BYTES
        while rows := self._database.execute(query, (last, limit)).fetchall():
            yield from ((row[0], Envelope(*row[1:])) for row in rows)
            last = rows[-1][0]

    def release(self, first: int, last: int) -> None:
        self._database.execute("DELETE FROM spool WHERE sequence BETWEEN ? AND ?", (first, last))

    def pending(self) -> tuple[int, int]:
        query = "SELECT count(*), coalesce(sum(spans), 0) FROM spool"
        records, spans = self._database.execute(query).fetchone()
        return records, spans

    def close(self) -> None:
        self._database.close()


class Lmdb:
    _HEAD = struct.Struct("<dIH")

    def __init__(self, directory: Path, *, sync: bool) -> None:
        self._environment: Any = lmdb.open(str(directory), map_size=CAP, sync=sync, readahead=False)
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            self._next = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 1

    def append(self, envelopes: Sequence[Envelope]) -> None:
        with self._environment.begin(write=True) as transaction:
            for sequence, (tenant, payload, spans, at) in enumerate(envelopes, self._next):
                name = tenant.encode()
                value = self._HEAD.pack(at, spans, len(name)) + name + payload
                transaction.put(sequence.to_bytes(8, "big"), value, append=True)
        self._next += len(envelopes)

    def rows(self) -> Iterator[tuple[int, Envelope]]:
        head = self._HEAD
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            for key, value in cursor.iternext():
                at, spans, size = head.unpack_from(value)
                end = head.size + size
                envelope = Envelope(value[head.size : end].decode(), value[end:], spans, at)
                yield int.from_bytes(key, "big"), envelope

    def release(self, first: int, last: int) -> None:
        with self._environment.begin(write=True) as transaction:
            for sequence in range(first, last + 1):
                transaction.delete(sequence.to_bytes(8, "big"))

    def pending(self) -> tuple[int, int]:
        spans = [envelope.spans for _, envelope in self.rows()]
        return len(spans), sum(spans)

    def close(self) -> None:
        self._environment.close()


class Kind(NamedTuple):
    name: str
    open: Callable[[Path], Store]
    syncs: bool


def kinds() -> list[Kind]:
    found = [
        Kind("log", lambda path: Log(path, fsync=False), syncs=False),
        Kind("SQLite OFF", lambda path: Sqlite(path, synchronous="OFF"), syncs=False),
        Kind("SQLite NORMAL", lambda path: Sqlite(path, synchronous="NORMAL"), syncs=False),
    ]
    if lmdb:
        found.append(Kind("lmdb nosync", lambda path: Lmdb(path, sync=False), syncs=False))
    found.append(Kind("log fsync", lambda path: Log(path, fsync=True), syncs=True))
    found.append(Kind("SQLite FULL", lambda path: Sqlite(path, synchronous="FULL"), syncs=True))
    if lmdb:
        found.append(Kind("lmdb sync", lambda path: Lmdb(path, sync=True), syncs=True))
    return found


class Cost(NamedTuple):
    cpu_us: float
    wall_us: float

    def __str__(self) -> str:
        return f"{self.cpu_us:.2f} / {self.wall_us:.2f}"


class Life(NamedTuple):
    """Cost of reading and of releasing a record; bytes on disk when full and when released."""

    read: Cost
    release: Cost
    full: int
    released: int


def measure(work: Callable[[], object], count: int) -> Cost:
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Cost(
        (time.process_time() - cpu) / count * 1e6, (time.perf_counter() - wall) / count * 1e6
    )


def make_group(size: int) -> list[Envelope]:
    return [Envelope("", os.urandom(PAYLOAD_BYTES), SPANS, time.time()) for _ in range(size)]


def disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


class Bench:
    def __init__(self, directory: Path, records: int) -> None:
        self._directory = directory
        self._records = records

    def empty(self) -> Path:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir()
        return self._directory

    def append(self, kind: Kind, size: int) -> Cost:
        # A sync takes about as long as a hundred requests: fewer of those tell as much.
        count = min(self._records, 500 * size) if kind.syncs else self._records
        rounds = count // size
        store = kind.open(self.empty())
        cost = measure(partial(self._fill, store, make_group(size), rounds), rounds * size)
        store.close()
        return cost

    @staticmethod
    def _fill(store: Store, group: list[Envelope], rounds: int) -> None:
        for _ in range(rounds):
            store.append(group)

    def life(self, kind: Kind) -> Life:
        count = self._records - self._records % RELEASE_GROUP
        store = kind.open(self.empty())
        self._fill(store, make_group(RELEASE_GROUP), count // RELEASE_GROUP)
        full = disk_bytes(self._directory)
        read = measure(lambda: sum(1 for _ in store.rows()), count)
        release = measure(partial(self._release, store, count), count)
        released = disk_bytes(self._directory)
        store.close()
        return Life(read, release, full, released)

    @staticmethod
    def _release(store: Store, count: int) -> None:
        for first in range(1, count, RELEASE_GROUP):
            store.release(first, first + RELEASE_GROUP - 1)

    def damage(self, kind: Kind) -> tuple[int, int, int, int]:
        """Of some changes of one byte: no effect, records missing, records wrong, all lost."""
        store = kind.open(self.empty())
        store.append([numbered(sequence) for sequence in range(1, DAMAGED_RECORDS + 1)])
        store.close()
        path = max(self._directory.iterdir(), key=lambda path: path.stat().st_size)
        sound, chance = path.read_bytes(), random.Random(1)
        outcomes = [0, 0, 0, 0]
        for _ in range(CHANGES):
            damaged = bytearray(sound)
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            outcomes[self._check(kind)] += 1
            for left_over in self._directory.glob("*-*m"):  # SQLite's -shm, after a failure
                left_over.unlink()
        return (outcomes[0], outcomes[1], outcomes[2], outcomes[3])

    def _check(self, kind: Kind) -> int:
        """In a process of its own, as a damaged file may end it."""
        command = [sys.executable, "-m", "benchmarks.spool", "--check", kind.name]
        done = subprocess.run(
            [*command, "--directory", self._directory], capture_output=True, check=False
        )
        return int(done.stdout) if done.returncode == 0 else 3

    def recovery(self, kind: Kind) -> float:
        """Seconds from the start of a process that was killed to knowing what is pending."""
        command = [sys.executable, "-m", "benchmarks.spool", "--fill", kind.name]
        filler = subprocess.Popen([*command, "--directory", self.empty()], stdout=subprocess.PIPE)
        with filler:
            assert filler.stdout is not None
            filler.stdout.readline()
            filler.send_signal(signal.SIGKILL)
        start = time.perf_counter()
        store = kind.open(self._directory)
        records, spans = store.pending()
        seconds = time.perf_counter() - start
        store.close()
        assert (records, spans) == (RECOVERY_RECORDS, RECOVERY_RECORDS * SPANS)
        return seconds


def fill_and_wait(kind: Kind, directory: Path) -> None:
    """The process that ``recovery`` kills when all is written."""
    store = kind.open(directory)
    Bench._fill(store, make_group(100), RECOVERY_RECORDS // 100)  # noqa: SLF001 - same module
    print("filled", flush=True)
    signal.pause()


def best_of_rounds(measured: Callable[[Kind], Sequence[Any]]) -> dict[str, list[Any]]:
    """The least of each figure for each kind. The kinds take turns, so that what else the machine
    does falls on all of them.
    """
    found: dict[str, list[Sequence[Any]]] = {kind.name: [] for kind in kinds()}
    for _ in range(ROUNDS):
        for kind in kinds():
            found[kind.name].append(measured(kind))
    return {
        name: [min(figures) for figures in zip(*rounds, strict=True)]
        for name, rounds in found.items()
    }


def numbered(sequence: int) -> Envelope:
    """An envelope that tells whether it came back as it was."""
    return Envelope("", (b"%09d," % sequence) * (PAYLOAD_BYTES // 10), SPANS, float(sequence))


def check(kind: Kind, directory: Path) -> int:
    """0 where every numbered envelope is there, 1 where some are missing, 2 where one is wrong."""
    found = list(kind.open(directory).rows())
    if any(envelope != numbered(sequence) for sequence, envelope in found):
        return 2
    return int([sequence for sequence, _ in found] != list(range(1, DAMAGED_RECORDS + 1)))


def print_table(*rows: Sequence[object]) -> None:
    head, *body = rows
    print(f"\n| {' | '.join(map(str, head))} |\n|{' --- |' * len(head)}")
    for row in body:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    parser.add_argument("--check", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    by_name = {kind.name: kind for kind in kinds()}
    if arguments.fill:
        fill_and_wait(by_name[arguments.fill], arguments.directory)
        return
    if arguments.check:
        print(check(by_name[arguments.check], arguments.directory))
        return
    print(f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()},")
    print(f"SQLite {sqlite3.sqlite_version}, lmdb {lmdb.__version__ if lmdb else 'not installed'}")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as parent:
        bench = Bench(Path(parent) / "store", arguments.records)
        print_table(
            ("append, us a record, CPU / wall", *(f"groups of {size}" for size in GROUPS)),
            *(
                (name, *costs)
                for name, costs in best_of_rounds(
                    lambda kind: [bench.append(kind, size) for size in GROUPS]
                ).items()
            ),
        )
        print_table(
            ("us a record, CPU / wall", "read back", "release", "MiB full", "MiB released"),
            *(
                (name, read, release, f"{full / 2**20:.1f}", f"{released / 2**20:.1f}")
                for name, (read, release, full, released) in best_of_rounds(bench.life).items()
            ),
        )
        print_table(
            (f"recovery of {RECOVERY_RECORDS} records after SIGKILL", "ms"),
            *(
                (name, f"{seconds * 1000:.0f}")
                for name, (seconds,) in best_of_rounds(lambda kind: [bench.recovery(kind)]).items()
            ),
        )
        print_table(
            (f"of {CHANGES} one-bit changes", "no effect", "one missing", "wrong data", "all lost"),
            *((name, *bench.damage(by_name[name])) for name in by_name if name in DAMAGED),
        )


if __name__ == "__main__":
    main()
