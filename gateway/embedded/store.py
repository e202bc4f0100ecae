"""The SQLite file of the development backend, as the one thread that writes it sees it.

What a commit promises: the spans survive any death of the process (SIGKILL too), for they have
been written to the write-ahead log. They may not survive a crash of the machine, since the log is
not flushed to the disk at each commit (``synchronous=NORMAL``); the file itself stays sound. An
fsync for each commit would buy little for development at several times the cost.

Spans are kept in the order of their traces, and traces in the order in which they first came, so
the oldest data is one end of the table: what is too old or too much is cut from there in small
steps, and its pages are reused or given back.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.embedded.decode import Decoded, TraceRows

FILE_NAME = "embedded.sqlite"
SCHEMA_VERSION = 1
PAGE_BYTES = 16384
"""Rows of about 500 bytes are read fastest from large pages: a scan of 500,000 spans takes 0.17 s,
with SQLite's 4 KiB pages 0.27 s."""
SPANS_PER_CUT = 2000
"""Deleted in one transaction; takes a few milliseconds."""
PAGES_PER_CUT = 64
ORIGIN_REFRESH_S = 60
"""How far behind ``origins.used_s`` may be."""
MAX_CACHED_ORIGINS = 4096

_LEAST_SQLITE = (3, 35)  # has RETURNING

_SCHEMA = f"""
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE origins (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    digest BLOB NOT NULL,
    header BLOB NOT NULL,
    used_s INTEGER NOT NULL,
    UNIQUE (tenant, digest)
);
CREATE INDEX origins_by_use ON origins (used_s);
CREATE TABLE traces (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    trace_id BLOB NOT NULL,
    arrived_s INTEGER NOT NULL,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    root_name TEXT NOT NULL,
    root_service TEXT NOT NULL,
    UNIQUE (tenant, trace_id)
);
CREATE INDEX traces_by_start ON traces (tenant, start_ns);
-- In Zipkin's model client and server share a span id, so Tempo too looks at the kind.
CREATE TABLE spans (
    trace INTEGER NOT NULL,
    span_id BLOB NOT NULL,
    kind INTEGER NOT NULL,
    origin INTEGER NOT NULL,
    name TEXT NOT NULL,
    start_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (trace, span_id, kind)
) WITHOUT ROWID;
"""

_UPSERT_TRACE = """
INSERT INTO traces (tenant, trace_id, arrived_s, start_ns, end_ns, root_name, root_service)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, trace_id) DO UPDATE SET
    start_ns = min(start_ns, excluded.start_ns),
    end_ns = max(end_ns, excluded.end_ns),
    root_name = CASE excluded.root_name WHEN '' THEN root_name ELSE excluded.root_name END,
    root_service = CASE excluded.root_name WHEN '' THEN root_service ELSE excluded.root_service END
RETURNING id
"""
_UPSERT_ORIGIN = """
INSERT INTO origins (tenant, digest, header, used_s) VALUES (?, ?, ?, ?)
ON CONFLICT (tenant, digest) DO UPDATE SET used_s = excluded.used_s
RETURNING id
"""
# A trace that lives came after its origins' last use was noted, or less than a refresh before.
_DELETE_UNUSED_ORIGINS = """
DELETE FROM origins WHERE used_s + ? < coalesce(
    (SELECT arrived_s FROM traces ORDER BY id LIMIT 1), ?
)
"""


class StoreError(Exception):
    """The file cannot be used; the text says what to do."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; transactions are begun by hand."""
    mode = "ro" if read_only else "rwc"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=10,
    )


class Store:
    """Writes. Not for use by two threads at once. Time comes as Unix seconds."""

    def __init__(self, data_dir: Path, *, retention_s: float, max_bytes: int) -> None:
        """Raises StoreError."""
        self.path = data_dir / FILE_NAME
        self._retention_s = retention_s
        self._max_bytes = max_bytes
        self._origins: OrderedDict[tuple[str, bytes], tuple[int, float]] = OrderedDict()
        """(tenant, digest) to (id, when its use was last noted)."""
        if sqlite3.sqlite_version_info < _LEAST_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 is needed")
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._db = connect(self.path)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self.path} cannot be used: {error}. If it is damaged, delete it"
            ) from error

    def _prepare(self) -> None:
        for pragma in (
            f"page_size = {PAGE_BYTES}",
            "auto_vacuum = incremental",
            "journal_mode = wal",
            "synchronous = normal",
            "cache_size = -32768",
            f"wal_autocheckpoint = {4 * 2**20 // PAGE_BYTES}",
            f"journal_size_limit = {16 * 2**20}",
        ):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        version = self._pragma("user_version")
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        elif version != SCHEMA_VERSION:
            raise StoreError(f"{self.path} is of another version of the gateway: delete it")

    def close(self) -> None:
        self._db.close()

    def _pragma(self, name: str) -> int:
        value: int = self._db.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def used_bytes(self) -> int:
        """Bytes of the pages that hold data."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * PAGE_BYTES

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._origins.clear()
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def write(self, requests: Iterable[tuple[str, Decoded]], now_s: float) -> None:
        """Keeps all (tenant, request) or none. A span that is there already is replaced."""
        with self._transaction():
            rows: list[tuple[Any, ...]] = []
            for tenant, decoded in requests:
                origins = [self._origin(tenant, header, now_s) for header in decoded.origins]
                for trace_id, trace in decoded.traces.items():
                    key = self._trace(tenant, trace_id, trace, now_s)
                    rows += [
                        (key, span_id, kind, origins[origin], *rest)
                        for span_id, kind, origin, *rest in trace.spans
                    ]
            self._db.executemany(
                "INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )

    def _trace(self, tenant: str, trace_id: bytes, trace: TraceRows, now_s: float) -> int:
        values = (tenant, trace_id, int(now_s), trace.start_ns, trace.end_ns)
        row = (*values, trace.root_name, trace.root_service)
        key: int = self._db.execute(_UPSERT_TRACE, row).fetchone()[0]
        return key

    def _origin(self, tenant: str, header: bytes, now_s: float) -> int:
        digest = hashlib.blake2b(header, digest_size=16).digest()
        known = self._origins.get((tenant, digest))
        if known is not None and now_s - known[1] < ORIGIN_REFRESH_S:
            return known[0]
        values = (tenant, digest, header, int(now_s))
        key: int = self._db.execute(_UPSERT_ORIGIN, values).fetchone()[0]
        self._origins[tenant, digest] = (key, now_s)
        if len(self._origins) > MAX_CACHED_ORIGINS:
            self._origins.popitem(last=False)
        return key

    def cut(self, now_s: float) -> bool:
        """Deletes a little of what is too old or too much. True if there is more to delete."""
        last = self._last_trace_to_cut(now_s)
        if last is None:
            return self._shrink()
        with self._transaction():
            self._delete_spans_up_to(last)
            self._db.execute(_DELETE_UNUSED_ORIGINS, (ORIGIN_REFRESH_S, int(now_s)))
        return True

    def _last_trace_to_cut(self, now_s: float) -> int | None:
        before_s = int(now_s - self._retention_s)
        too_much = self.used_bytes() > self._max_bytes
        oldest = self._db.execute("SELECT arrived_s FROM traces ORDER BY id LIMIT 1").fetchone()
        if oldest is None or not (too_much or oldest[0] < before_s):
            return None
        row = self._db.execute(
            "SELECT max(id) FROM (SELECT id, arrived_s FROM traces ORDER BY id LIMIT ?)"
            " WHERE ? OR arrived_s < ?",
            (SPANS_PER_CUT, too_much, before_s),
        ).fetchone()
        key: int | None = row[0]
        return key

    def _delete_spans_up_to(self, last: int) -> None:
        """Deletes spans from the oldest on, and each trace with its last span."""
        end = self._db.execute(
            "SELECT trace, span_id, kind FROM spans WHERE trace <= ?"
            " ORDER BY trace, span_id, kind LIMIT 1 OFFSET ?",
            (last, SPANS_PER_CUT),
        ).fetchone()
        if end is None:
            self._db.execute("DELETE FROM spans WHERE trace <= ?", (last,))
            self._db.execute("DELETE FROM traces WHERE id <= ?", (last,))
        else:
            self._db.execute("DELETE FROM spans WHERE (trace, span_id, kind) < (?, ?, ?)", end)
            self._db.execute("DELETE FROM traces WHERE id < ?", end[:1])

    def _shrink(self) -> bool:
        """Gives free pages back while the file is larger than it may be."""
        if self._pragma("page_count") * PAGE_BYTES <= self._max_bytes:
            return False
        if self._pragma("freelist_count") == 0:
            return False
        self._db.execute(f"PRAGMA incremental_vacuum({PAGES_PER_CUT})").fetchall()
        return True
