"""Reading: which traces and spans answer a query."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from gateway.embedded.conditions import Both, Filter, Spanset, filters
from gateway.embedded.prefilter import Prefilter, Sql, all_of, any_of
from gateway.embedded.store import connect
from gateway.embedded.stored import ROW_COLUMNS, Origin, Row, StoredSpan

_STATUS_ERROR = 2
_STEPS_PER_CHECK = 20_000
"""SQLite's instructions between two looks at the clock, about a millisecond."""


class OutOfTimeError(Exception):
    """The query took longer than it may."""


class Window(NamedTuple):
    """Which traces are looked at; None is no bound. A trace is in if it overlaps the time."""

    start_ns: int | None = None
    end_ns: int | None = None
    min_duration_ns: int | None = None
    max_duration_ns: int | None = None

    def sql(self) -> Sql:
        bounds = {
            "t.end_ns >= ?": self.start_ns,
            "t.start_ns <= ?": self.end_ns,
            "t.end_ns - t.start_ns >= ?": self.min_duration_ns,
            "t.end_ns - t.start_ns <= ?": self.max_duration_ns,
        }
        return all_of([Sql(text, (bound,)) for text, bound in bounds.items() if bound is not None])


class ServiceStats(NamedTuple):
    spans: int
    errors: int


class FoundTrace(NamedTuple):
    trace: Row
    """Any of its rows, for what it says of the trace."""
    matched: int
    """How many spans matched; ``spans`` has the first of them by start."""
    spans: list[StoredSpan]
    services: dict[str, ServiceStats]


class Reader:
    """One connection for one thread. Every method may raise OutOfTimeError."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self._db = connect(path, read_only=True)
        self._timeout_s = timeout_s
        self._end = 0.0
        self._stopped = False

    def close(self) -> None:
        self._db.close()

    def stop(self) -> None:
        """Lets queries run out of time at once. May be called by another thread."""
        self._stopped = True
        self._end = 0.0

    def _check(self) -> None:
        if time.monotonic() > self._end:
            raise OutOfTimeError

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All reads inside see the same state, and end in time."""
        self._end = 0.0 if self._stopped else time.monotonic() + self._timeout_s
        self._db.set_progress_handler(lambda: time.monotonic() > self._end, _STEPS_PER_CHECK)
        self._db.execute("BEGIN")
        try:
            yield
        except sqlite3.OperationalError as error:
            if time.monotonic() > self._end:
                raise OutOfTimeError from error
            raise
        finally:
            self._db.set_progress_handler(None, 0)
            self._db.execute("ROLLBACK")

    def _origins(self, tenant: str) -> dict[int, Origin]:
        rows = self._db.execute("SELECT id, header FROM origins WHERE tenant = ?", (tenant,))
        return {key: Origin(header) for key, header in rows}

    def trace(self, tenant: str, trace_id: bytes) -> list[tuple[bytes, list[bytes]]]:
        """Its serialized spans by start, each list with the header they came under. Empty if it
        is not there.
        """
        with self._snapshot():
            rows = self._db.execute(
                "SELECT o.header, s.body FROM traces t"
                " JOIN spans s ON s.trace = t.id JOIN origins o ON o.id = s.origin"
                " WHERE t.tenant = ? AND t.trace_id = ? ORDER BY s.origin, s.start_ns",
                (tenant, trace_id),
            )
            return [
                (header, [body for _, body in group])
                for header, group in groupby(rows, key=lambda row: row[0])
            ]

    def spans(
        self, tenant: str, window: Window, spanset: Spanset, limit: int
    ) -> Iterator[StoredSpan]:
        """Spans that match one of the filters, those of the newest traces first. Looks at no
        more than ``limit`` spans that may match.
        """
        wanted = [each.condition for each in filters(spanset)]
        with self._snapshot():
            for span in self._candidates(tenant, window, spanset, limit):
                if any(condition.holds(span) for condition in wanted):
                    yield span

    def search(
        self, tenant: str, window: Window, spanset: Spanset, *, limit: int, spans_per_spanset: int
    ) -> list[FoundTrace]:
        """The newest traces in which the spanset is not empty."""
        found: list[FoundTrace] = []
        with self._snapshot():
            candidates = self._candidates(tenant, window, spanset)
            for _, spans in groupby(candidates, key=lambda span: span.row.trace):
                tally = _Tally(spanset, spans_per_spanset)
                for span in spans:
                    tally.add(span)
                if tally.matched:
                    found.append(self._found(tally))
                if len(found) >= limit:
                    break
        return found

    def _candidates(
        self, tenant: str, window: Window, spanset: Spanset, limit: int = -1
    ) -> Iterator[StoredSpan]:
        origins = self._origins(tenant)
        prefilter = Prefilter(origins, self._check)
        may_match = any_of([prefilter.sql(each.condition) for each in filters(spanset)])
        where = all_of([Sql("t.tenant = ?", (tenant,)), window.sql(), may_match])
        rows = self._db.execute(
            # CROSS JOIN: SQLite shall go by the index of the traces and so have them in order.
            f"SELECT {ROW_COLUMNS} FROM traces t CROSS JOIN spans s ON s.trace = t.id"  # noqa: S608 - our text
            f" WHERE {where.text} ORDER BY t.start_ns DESC, t.id DESC LIMIT ?",
            (*where.parameters, limit),
        )
        for row in rows:
            span = Row._make(row)
            yield StoredSpan(span, origins[span.origin], self._check)

    def _found(self, tally: _Tally) -> FoundTrace:
        trace = tally.spans[0].row
        rows = self._db.execute(
            "SELECT o.header, count(*), sum(s.status = ?) FROM spans s"
            " JOIN origins o ON o.id = s.origin WHERE s.trace = ? GROUP BY s.origin",
            (_STATUS_ERROR, trace.trace),
        )
        services: dict[str, ServiceStats] = {}
        for header, spans, errors in rows:
            name = Origin(header).service_name
            before = services.get(name, ServiceStats(0, 0))
            services[name] = ServiceStats(before.spans + spans, before.errors + errors)
        return FoundTrace(trace, tally.matched, tally.spans, services)


class _Tally:
    """Which spans of one trace match which filters, and what the spanset makes of them.

    Spans are told apart only by the filters they match, a bit each; so a trace of any size takes
    no more than a few spans of memory for each combination.
    """

    def __init__(self, spanset: Spanset, keep: int) -> None:
        self._spanset = spanset
        self._filters = filters(spanset)
        self._keep = keep
        self._counts: dict[int, int] = {}
        self._first: dict[int, list[StoredSpan]] = {}

    def add(self, span: StoredSpan) -> None:
        bits = 0
        for index, each in enumerate(self._filters):
            if each.condition.holds(span):
                bits |= 1 << index
        if bits:
            self._counts[bits] = self._counts.get(bits, 0) + 1
            kept = self._first.setdefault(bits, [])
            kept.append(span)
            if len(kept) > 2 * self._keep:
                kept[:] = _first_by_start(kept, self._keep)

    @property
    def _result(self) -> int:
        """The bits of the filters whose spans make up the result."""
        hits = 0
        for bits in self._counts:
            hits |= bits
        return _alive(self._spanset, iter(range(len(self._filters))), hits)

    @property
    def matched(self) -> int:
        return sum(count for bits, count in self._counts.items() if bits & self._result)

    @property
    def spans(self) -> list[StoredSpan]:
        kept = [span for bits, some in self._first.items() if bits & self._result for span in some]
        return _first_by_start(kept, self._keep)


def _first_by_start(spans: Sequence[StoredSpan], count: int) -> list[StoredSpan]:
    return sorted(spans, key=lambda span: (span.row.start_ns, span.row.span_id))[:count]


def _alive(spanset: Spanset, indexes: Iterator[int], hits: int) -> int:
    if isinstance(spanset, Filter):
        return hits & (1 << next(indexes))
    left = _alive(spanset.left, indexes, hits)
    right = _alive(spanset.right, indexes, hits)
    if isinstance(spanset, Both) and not (left and right):
        return 0
    return left | right
