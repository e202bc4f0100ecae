"""What keeping a request on disk costs: the spool's log beside SQLite, and lmdb where installed.

    python -m benchmarks.spool [--records 40000] [--directory DIR]

Prints three tables in Markdown. CPU is that of the process, kernel time for it included, the best
of some rounds; wall time is of the same round. The records are requests of 500 bytes with 3 spans.
lmdb is not among the gateway's packages; ``pip install lmdb`` somewhere to see its row.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
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
ROUNDS = 3
READ_BYTES = 3 * 2**20
RELEASE_GROUP = 1000
RECOVERY_RECORDS = 100_000
CAP = 2**30


class Store(Protocol):
    """What a spool needs of whatever keeps its records."""

    def append(self, envelopes: Sequence[Envelope]) -> None: ...

    def read_all(self) -> int:
        """Reads every record, a few MiB at a time; returns how many."""

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

    def read_all(self) -> int:
        count = sequence = 0
        while records := self._log.read(sequence, READ_BYTES):
            count += len(records)
            sequence = records[-1].sequence + 1
        return count

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

    def read_all(self) -> int:
        query = "SELECT * FROM spool WHERE sequence > ? ORDER BY sequence LIMIT ?"
        count = last = 0
        limit = READ_BYTES // PAYLOAD_BYTES
        while rows := self._database.execute(query, (last, limit)).fetchall():
            records = [(row[0], Envelope(*row[1:])) for row in rows]
            count += len(records)
            last = records[-1][0]
        return count

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

    def _rows(self) -> Iterator[tuple[int, Envelope]]:
        head = self._HEAD
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            for key, value in cursor.iternext():
                at, spans, size = head.unpack_from(value)
                end = head.size + size
                envelope = Envelope(value[head.size : end].decode(), value[end:], spans, at)
                yield int.from_bytes(key, "big"), envelope

    def read_all(self) -> int:
        return sum(1 for _ in self._rows())

    def release(self, first: int, last: int) -> None:
        with self._environment.begin(write=True) as transaction:
            for sequence in range(first, last + 1):
                transaction.delete(sequence.to_bytes(8, "big"))

    def pending(self) -> tuple[int, int]:
        spans = [envelope.spans for _, envelope in self._rows()]
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
        group, rounds = make_group(size), count // size
        costs = []
        for _ in range(ROUNDS):
            store = kind.open(self.empty())
            costs.append(measure(partial(self._fill, store, group, rounds), rounds * size))
            store.close()
        return min(costs)

    @staticmethod
    def _fill(store: Store, group: list[Envelope], rounds: int) -> None:
        for _ in range(rounds):
            store.append(group)

    def life(self, kind: Kind) -> tuple[Cost, Cost, float, float]:
        """Cost of reading and of releasing a record, MiB on disk when full and when released."""
        count = self._records - self._records % RELEASE_GROUP
        store = kind.open(self.empty())
        self._fill(store, make_group(RELEASE_GROUP), count // RELEASE_GROUP)
        full = disk_bytes(self._directory)
        read = min(measure(store.read_all, count) for _ in range(ROUNDS))
        release = measure(lambda: self._release(store, count), count)
        empty = disk_bytes(self._directory)
        store.close()
        return read, release, full / 2**20, empty / 2**20

    @staticmethod
    def _release(store: Store, count: int) -> None:
        for first in range(1, count, RELEASE_GROUP):
            store.release(first, first + RELEASE_GROUP - 1)

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
    arguments = parser.parse_args()
    if arguments.fill:
        (kind,) = (kind for kind in kinds() if kind.name == arguments.fill)
        fill_and_wait(kind, arguments.directory)
        return
    print(f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()},")
    print(f"SQLite {sqlite3.sqlite_version}, lmdb {lmdb.__version__ if lmdb else 'not installed'}")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as parent:
        bench = Bench(Path(parent) / "store", arguments.records)
        print_table(
            ("append, us a record, CPU / wall", *(f"groups of {size}" for size in GROUPS)),
            *((kind.name, *(bench.append(kind, size) for size in GROUPS)) for kind in kinds()),
        )
        print_table(
            ("us a record, CPU / wall", "read back", "release", "MiB full", "MiB released"),
            *(
                (kind.name, read, release, f"{full:.1f}", f"{empty:.1f}")
                for kind in kinds()
                for read, release, full, empty in [bench.life(kind)]
            ),
        )
        print_table(
            (f"recovery of {RECOVERY_RECORDS} records after SIGKILL", "ms"),
            *((kind.name, f"{bench.recovery(kind) * 1000:.0f}") for kind in kinds()),
        )


if __name__ == "__main__":
    main()
