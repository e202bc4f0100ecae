"""What Tempo has thrown away although it had said OK, read back from its metrics.

Tempo answers OK to spans of a trace that has grown too large, or of one trace too many, and drops
them; only ``tempo_discarded_spans_total`` tells. Read in, and tried with, 2.4.0, 2.10.8 and 3.0.3.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import aiohttp

from gateway.lifecycle import Tasks
from gateway.telemetry.logs import Throttle, facts
from gateway.tempo.looks import open_session
from gateway.tempo.states import State

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
"""Between two readings; each costs Tempo some 5 ms."""
LAST_READING_S = 1.0
"""For the one before the end."""
_MOST_TENANTS = 5
"""Named in one line of the log."""

_TOLD = frozenset({"rate_limited", "internal_error", "invalid_trace_id", "invalid_span_id"})
"""Reasons that Tempo also answers with an error, so those spans are delivered again or counted as
dropped here."""

_WHY = {
    "trace_too_large": "within one block a trace has more bytes than max_bytes_per_trace",
    "trace_too_large_to_compact": "a stored trace has more bytes than max_bytes_per_trace",
    "live_traces_exceeded": "more traces at once than max_traces_per_user",
}

_DISCARDED = re.compile(
    r'^tempo_discarded_spans_total\{reason="(\w+)",tenant="((?:[^"\\]|\\.)*)"\} (\S+)$',
    re.MULTILINE,
)
_TRUNCATED = re.compile(r"^tempo_distributor_attributes_truncated_total\{.*\} (\S+)$", re.MULTILINE)


class Discarded(NamedTuple):
    """Totals over all lives of the backend, as far as they are known."""

    spans: Mapping[str, int]
    """By reason."""
    truncated_attributes: int
    last: str | None
    """The newest in words."""


NONE_DISCARDED = Discarded({}, 0, None)


class Discard(NamedTuple):
    """What one reading has added."""

    reason: str
    tenant: str
    spans: int


class Counters:
    """Sums up counters that begin at zero with each life. Pure."""

    def __init__(self) -> None:
        self._generation = 0
        self._seen: dict[tuple[str, str], int] = {}
        self._truncated = 0
        self.spans: dict[str, int] = {}
        self.truncated_attributes = 0

    def read(self, exposition: str, generation: int) -> list[Discard]:
        """Take one exposition of the life ``generation``; returns what is new in it."""
        if generation != self._generation:
            self._generation, self._seen, self._truncated = generation, {}, 0
        news = list(self._new_discards(exposition))
        for discard in news:
            self.spans[discard.reason] = self.spans.get(discard.reason, 0) + discard.spans
        truncated = sum(int(float(count)) for count in _TRUNCATED.findall(exposition))
        self.truncated_attributes += truncated - self._truncated
        self._truncated = truncated
        return news

    def _new_discards(self, exposition: str) -> Iterator[Discard]:
        for reason, label, count in _DISCARDED.findall(exposition):
            total, before = int(float(count)), self._seen.get((reason, label), 0)
            if reason not in _TOLD and total > before:
                self._seen[reason, label] = total
                yield Discard(reason, json.loads(f'"{label}"', strict=False), total - before)


class Life(Protocol):
    """What has to be known of the backend."""

    @property
    def base_url(self) -> str: ...

    @property
    def state(self) -> State: ...

    @property
    def generation(self) -> int: ...


class ReadBack:
    """Reads a supervised Tempo's counters again and again, and logs what they tell."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._counters = Counters()
        self._last: str | None = None
        self._throttle = Throttle()
        self._tasks = Tasks("discards")

    @property
    def discarded(self) -> Discarded:
        counters = self._counters
        return Discarded(counters.spans, counters.truncated_attributes, self._last)

    def start(self, life: Life) -> None:
        self._tasks.spawn(self._run(life), "read-back")

    async def stop(self, life: Life) -> None:
        """One last reading, while the backend still lives."""
        await self._tasks.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_READING_S), open_session() as session:
                await self._read(session, life)

    async def _run(self, life: Life) -> None:
        async with open_session() as session:
            while True:
                await asyncio.sleep(self._interval_s)
                await self._read(session, life)

    async def _read(self, session: aiohttp.ClientSession, life: Life) -> None:
        if life.state is not State.READY:
            return
        generation = life.generation
        try:
            async with session.get(f"{life.base_url}/metrics") as answer:
                text = (await answer.read()).decode(errors="replace")
        except (aiohttp.ClientError, OSError) as error:  # the next reading finds the same
            logger.debug("discarded spans not read", extra=facts(error=repr(error)))
            return
        truncated = self._counters.truncated_attributes
        self._tell(self._counters.read(text, generation))
        self._tell_truncated(self._counters.truncated_attributes - truncated)

    def _tell(self, news: list[Discard]) -> None:
        for reason in dict.fromkeys(discard.reason for discard in news):
            mine = [discard for discard in news if discard.reason == reason]
            spans = sum(discard.spans for discard in mine)
            why = _WHY.get(reason)
            self._last = f"{spans} spans: {reason}" + (f" ({why})" if why else "")
            kept_quiet = self._throttle.ready(reason)
            if kept_quiet is not None:
                logger.error(
                    "spans discarded by the backend",
                    extra=facts(
                        reason=reason,
                        why=why,
                        spans=spans,
                        spans_in_all=self._counters.spans[reason],
                        tenants=",".join(discard.tenant for discard in mine[:_MOST_TENANTS]),
                        kept_quiet=kept_quiet or None,
                    ),
                )

    def _tell_truncated(self, count: int) -> None:
        if count and (kept_quiet := self._throttle.ready("truncated")) is not None:
            logger.error(
                "attributes cut by the backend",
                extra=facts(
                    why="they have more bytes than max_attribute_bytes",
                    attributes=count,
                    attributes_in_all=self._counters.truncated_attributes,
                    kept_quiet=kept_quiet or None,
                ),
            )
