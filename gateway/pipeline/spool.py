"""Where accepted envelopes are kept until the backend surely has them.

Two of one shape: ``DiskSpool`` survives the process, ``MemorySpool`` does not. Both take a group
of envelopes and say, by a callback on the event loop, when the client may be told OK.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from gateway.envelope import Envelope
from gateway.errors import Cause, Refused
from gateway.pipeline.records import Record
from gateway.pipeline.segments import Recovery, SegmentLog, SpoolError, SpoolFull
from gateway.pipeline.stalls import Stalls
from gateway.telemetry.logs import Throttle, facts

logger = logging.getLogger(__name__)

_LOOP_BYTES = 2**20
"""Largest group that the event loop writes: its two copies and its checksum take about a
millisecond. Of a larger one the hand-over is a small part, and a second core can do it."""

Written = Callable[["int | Refused"], None]
"""Told the sequence of the first envelope, or why none was taken."""

_Request = tuple[Sequence[Envelope], Written]
_Result = int | BaseException


class Spool(Protocol):
    """What the pipeline needs of either."""

    durable: bool
    """Whether records can be read back: after a restart, or after leaving memory."""
    recovered_spans: int
    """Spans of the records that were there at start, to be read and delivered first."""

    last_error: str | None
    """Why the last write failed; None once one has succeeded."""

    @property
    def lost_spans(self) -> int:
        """Spans of records that ``read`` has found damaged so far, and passes over for good."""

    def append(self, envelopes: Sequence[Envelope], written: Written) -> None:
        """Take all or none; ``written`` is called exactly once, possibly before this returns."""

    async def read(self, sequence: int, max_bytes: int) -> list[Record]:
        """The next unreleased records from ``sequence`` on, at least one if there is any. Raises
        OSError where that cannot be told now.
        """

    def release(self, sequences: Sequence[int]) -> None:
        """These are with the backend for certain and need never be read again."""

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""

    async def close(self) -> None:
        """Finish what is under way. What was not released is there at the next start. Safe twice,
        but nothing else may be called after it.
        """


class MemorySpool:
    """Keeps nothing itself: the records live in the backlog and die with the process."""

    durable = False
    recovered_spans = 0
    last_error: str | None = None
    lost_spans = 0
    size_bytes = 0

    def __init__(self) -> None:
        self._next = 1

    def append(self, envelopes: Sequence[Envelope], written: Written) -> None:
        first = self._next
        self._next += len(envelopes)
        written(first)

    async def read(self, sequence: int, max_bytes: int) -> list[Record]:
        raise AssertionError(f"nothing to read from {sequence} ({max_bytes}): memory only")

    def release(self, sequences: Sequence[int]) -> None:
        pass

    async def close(self) -> None:
        pass


class DiskSpool:
    """Group commit over a segment log.

    What is appended in one pass of the event loop is one group, written when the pass has read all
    there was to read; only then is anybody answered. What comes while the thread writes forms the
    next group. So the busier the gateway, the larger the groups and the smaller the cost of each
    request. One group is written at a time, so order holds.

    Who writes: the event loop itself where that is a copy into the page cache (``_loop_may_write``
    has the rule), since handing a small group to a thread and back costs ten times as much as the
    write; else a thread, which also reads, releases, and opens and deletes files.
    """

    durable = True

    def __init__(self, log: SegmentLog, found: Recovery, stalls: Stalls | None = None) -> None:
        """``log`` is open, and ``found`` is what that found."""
        self._log = log
        self._stalls = stalls or Stalls()
        self.recovered_spans = found.spans
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._waiting: list[_Request] = []
        self._waiting_bytes = 0
        self._released: list[int] = []
        self._busy = False
        """A group is being written, or is about to be."""
        self._closed = False
        self._throttle = Throttle()
        self.last_error: str | None = None

    @property
    def size_bytes(self) -> int:
        return self._log.size_bytes

    @property
    def lost_spans(self) -> int:
        return self._log.damage.spans

    def append(self, envelopes: Sequence[Envelope], written: Written) -> None:
        self._waiting.append((envelopes, written))
        for envelope in envelopes:
            self._waiting_bytes += len(envelope.payload)
        if not self._busy:
            self._write_soon()

    def release(self, sequences: Sequence[int]) -> None:
        self._released.extend(sequences)
        if not self._busy:
            self._write_soon()

    async def read(self, sequence: int, max_bytes: int) -> list[Record]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._log.read, sequence, max_bytes)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        while self._busy:
            await loop.run_in_executor(self._thread, _nothing)
            await asyncio.sleep(0)
        await loop.run_in_executor(self._thread, self._log.close)
        self._thread.shutdown(wait=False)

    def _write_soon(self) -> None:
        """At the end of this pass, when all that can be read now has been."""
        self._busy = True
        asyncio.get_running_loop().call_soon(self._write_next)

    def _write_next(self) -> None:
        """Write everything that waits as one group."""
        group, self._waiting = self._waiting, []
        size, self._waiting_bytes = self._waiting_bytes, 0
        released, self._released = self._released, []
        if not released and self._loop_may_write(size):
            self._stalls.write_begins()
            results = self._write(group, released)
            self._stalls.write_ended()
            self._written(group, results)
            return
        job = asyncio.get_running_loop().run_in_executor(self._thread, self._write, group, released)
        job.add_done_callback(lambda done: self._written(group, done.result()))

    def _loop_may_write(self, size: int) -> bool:
        """Without fsync, where nothing but a small write is to be done, and has not been slow."""
        return (
            not self._log.fsync
            and self._log.only_writes
            and not self._stalls.resting
            and size <= _LOOP_BYTES
        )

    def _write(self, group: list[_Request], released: list[int]) -> list[_Result]:
        """On the event loop or in the thread, one at a time. Room is made before room is taken."""
        if released:
            try:
                self._log.release(released)
            except Exception:  # never for what the disk does; the next start delivers them again
                logger.exception("spool release failed")
        if not group:
            return []
        if len(group) == 1:
            return [self._write_alone(group[0][0])]
        try:
            first = self._log.append([envelope for envelopes, _ in group for envelope in envelopes])
        except SpoolFull:
            # One that finds no room shall not have its neighbours refused.
            return [self._write_alone(envelopes) for envelopes, _ in group]
        except Exception as error:  # noqa: BLE001 - told to the clients and logged, in _refusal
            return [error] * len(group)
        sizes = (len(envelopes) for envelopes, _ in group[:-1])
        return list(itertools.accumulate(sizes, initial=first))

    def _write_alone(self, envelopes: Sequence[Envelope]) -> _Result:
        try:
            return self._log.append(envelopes)
        except Exception as error:  # noqa: BLE001 - as above
            return error

    def _written(self, group: list[_Request], results: list[_Result]) -> None:
        """Back on the event loop: start the next group first, then tell this one."""
        self._busy = False
        if self._waiting or self._released:
            self._write_soon()
        for (_, written), result in zip(group, results, strict=True):
            try:
                if isinstance(result, int):
                    self.last_error = None
                    written(result)
                else:
                    written(self._refusal(result))
            except Exception:  # the others of the group wait for theirs
                logger.exception("spool answer not taken")

    def _refusal(self, error: BaseException) -> Refused:
        if isinstance(error, SpoolFull) and error.needed_bytes > error.max_bytes:
            return Refused(
                Cause.TOO_LARGE,
                f"the request takes {error.needed_bytes} bytes on disk, and the spool may hold"
                f" {error.max_bytes} (GATEWAY_SPOOL_BYTES); send smaller batches",
            )
        if isinstance(error, SpoolFull):
            self._log_failure("spool full", error)
            return Refused(
                Cause.SPOOL_FULL, "the gateway's spool is full since the backend is behind"
            )
        self.last_error = str(error)
        self._log_failure("spool write failed", error)
        return Refused(Cause.SPOOL_FAILED, "the gateway cannot write to its disk at the moment")

    def _log_failure(self, event: str, error: BaseException) -> None:
        kept_quiet = self._throttle.ready(event)
        if kept_quiet is not None:
            logger.error(
                event,
                exc_info=None if isinstance(error, SpoolFull | SpoolError) else error,
                extra=facts(error=str(error), kept_quiet=kept_quiet or None),
            )


def _nothing() -> None:
    """A job that only waits for its turn."""
