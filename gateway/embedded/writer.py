"""The thread that writes: requests that wait together are committed together."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from typing import NamedTuple

from gateway.embedded.decode import BadRequestError, Decoded, decode
from gateway.embedded.store import Store
from gateway.errors import GrpcCode
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES = 256 * 2**20
MAX_GROUP_BYTES = 16 * 2**20
CUT_INTERVAL_S = 1.0
CUT_TIME_S = 0.05
"""Time for deleting between two commits; at about 3 us a span it keeps up with any inflow."""


MAX_COUNTED_TENANTS = 100
OTHER_TENANTS = "(others)"


class Request(NamedTuple):
    tenant: str
    payload: bytes
    outcome: asyncio.Future[BadRequestError | None]


class Counts:
    """What has been stored since the start."""

    def __init__(self) -> None:
        self.spans: dict[str, int] = {}
        self.bytes: dict[str, int] = {}

    def add(self, tenant: str, spans: int, size: int) -> None:
        if tenant not in self.spans and len(self.spans) >= MAX_COUNTED_TENANTS:
            tenant = OTHER_TENANTS
        self.spans[tenant] = self.spans.get(tenant, 0) + spans
        self.bytes[tenant] = self.bytes.get(tenant, 0) + size


class Writer:
    """Owns the store while it runs. ``write`` is for the event loop it was started on."""

    def __init__(self, store: Store) -> None:
        self.counts = Counts()
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._thread = threading.Thread(target=self._run, name="store-writer")
        self._thread.start()

    async def write(self, tenant: str, payload: bytes) -> None:
        """Returns when the spans are committed. Raises BadRequestError."""
        if self._waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            raise BadRequestError(GrpcCode.UNAVAILABLE, "too much is waiting to be stored")
        self._waiting_bytes += len(payload)
        outcome: asyncio.Future[BadRequestError | None] = self._loop.create_future()
        self._waiting.put(Request(tenant, payload, outcome))
        refused = await outcome  # a client that leaves does not take its request back
        if refused is not None:
            raise refused

    async def stop(self) -> None:
        """Commits what waits, then ends the thread."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        more_to_cut, stopping = True, False
        while not stopping:
            group, stopping = self._take(0 if more_to_cut else CUT_INTERVAL_S)
            if group:
                self._commit(group)
            more_to_cut = not stopping and self._cut()

    def _take(self, timeout_s: float) -> tuple[list[Request], bool]:
        """The requests that wait, and whether it is time to stop."""
        group: list[Request] = []
        size = 0
        try:
            request = self._waiting.get(timeout_s > 0, timeout_s or None)
            while request is not None:
                group.append(request)
                size += len(request.payload)
                if size >= MAX_GROUP_BYTES:
                    return group, False
                request = self._waiting.get_nowait()
        except queue.Empty:
            return group, False
        return group, True

    def _commit(self, group: list[Request]) -> None:
        good: list[tuple[Request, Decoded]] = []
        for request in group:
            try:
                good.append((request, decode(request.payload)))
            except BadRequestError as refused:
                self._settle(request, refused)
        failure = self._store_all(good)
        for request, decoded in good:
            self._settle(request, failure, 0 if failure else decoded.spans)

    def _store_all(self, requests: list[tuple[Request, Decoded]]) -> BadRequestError | None:
        try:
            self._store.write(((each.tenant, decoded) for each, decoded in requests), time.time())
        except sqlite3.Error as error:  # such as a full disk: the sender shall come back
            logger.error("store failed", extra=facts(error=str(error)))  # noqa: TRY400 - no trace
            return BadRequestError(GrpcCode.UNAVAILABLE, f"the store failed: {error}")
        return None

    def _settle(self, request: Request, refused: BadRequestError | None, spans: int = 0) -> None:
        self._loop.call_soon_threadsafe(self._settled, request, refused, spans)

    def _settled(self, request: Request, refused: BadRequestError | None, spans: int) -> None:
        self._waiting_bytes -= len(request.payload)
        if refused is None:
            self.counts.add(request.tenant, spans, len(request.payload))
        if not request.outcome.done():
            request.outcome.set_result(refused)

    def _cut(self) -> bool:
        """Deletes for a short time. True if there is more to delete."""
        end = time.monotonic() + CUT_TIME_S
        try:
            while self._store.cut(time.time()):
                if time.monotonic() > end:
                    return True
        except sqlite3.Error as error:
            logger.error("store failed", extra=facts(error=str(error)))  # noqa: TRY400 - no trace
        return False
