"""``grpc.health.v1.Health``, on bytes: its messages have one field each.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from gateway.errors import GrpcCode
from gateway.receivers.headers import EXPORT_METHOD
from gateway.receivers.methods import Aborted, Context, Handler, unary

CHECK_METHOD = "/grpc.health.v1.Health/Check"
WATCH_METHOD = "/grpc.health.v1.Health/Watch"

_POLL_S = 1.0
MAX_WATCHERS = 100


# Serialized HealthCheckResponses: field 1, an enum.
SERVING = b"\x08\x01"
NOT_SERVING = b"\x08\x02"
SERVICE_UNKNOWN = b"\x08\x03"


def request_for(service: str) -> bytes:
    """A serialized HealthCheckRequest: field 1, a string of less than 128 bytes."""
    name = service.encode()
    return bytes((0x0A, len(name))) + name


_KNOWN = frozenset({b"", request_for(""), request_for(EXPORT_METHOD.split("/")[1])})


class Health:
    """Answers for the server as a whole and for the trace service, by one callable."""

    def __init__(self, serving: Callable[[], bool]) -> None:
        self._serving = serving
        self._stopping = asyncio.Event()
        self.watchers = 0

    def stop(self) -> None:
        """End all watches, so that they do not hold up the stop of the server."""
        self._stopping.set()

    def methods(self) -> Mapping[str, Handler]:
        """By path."""
        return {CHECK_METHOD: unary(self.check), WATCH_METHOD: self.watch}

    async def check(self, request: bytes, _context: Context) -> bytes:
        status = self._status(request)
        if status == SERVICE_UNKNOWN:
            raise Aborted(GrpcCode.NOT_FOUND, "no such service")
        return status

    async def watch(self, request: bytes, context: Context) -> None:
        """The status now and at each change, until the client leaves or the server stops."""
        if self.watchers >= MAX_WATCHERS:
            raise Aborted(GrpcCode.UNAVAILABLE, "too many watches; use Check")
        self.watchers += 1
        try:
            told = b""
            while not self._stopping.is_set():
                status = self._status(request)
                if status != told:
                    await context.write(status)
                    told = status
                await self._pause()
        finally:
            self.watchers -= 1
        raise Aborted(GrpcCode.UNAVAILABLE, "the gateway is stopping")

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_POLL_S):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _status(self, request: bytes) -> bytes:
        if request not in _KNOWN:
            return SERVICE_UNKNOWN
        serving = self._serving() and not self._stopping.is_set()
        return SERVING if serving else NOT_SERVING
