"""Where all systems deliver to: an OTLP gRPC receiver that counts spans and keeps nothing.

It searches each request for ``MARKER``, at some GB/s, so that it takes millions of spans a second.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Collection
from typing import Any

import grpc
from grpc import aio

from benchmarks.peers.cases import EXPORT, MARKER
from benchmarks.peers.processes import HOST, BenchError, pinned

_POLL_S = 0.01


class _Counter(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self.spans = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method != EXPORT:
            return None
        return grpc.unary_unary_rpc_method_handler(self._export)

    async def _export(self, request: bytes, _context: object) -> bytes:
        self.spans += request.count(MARKER)
        return b""


async def _serve() -> None:
    """Print the port; then, for each line read, how many spans have come. Ends with the input."""
    counter = _Counter()
    server = aio.server(handlers=(counter,), options=[("grpc.max_receive_message_length", -1)])
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    print(port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(counter.spans, flush=True)
    await server.stop(0)


class Sink:
    """The sink's process."""

    def __init__(self, core: int | Collection[int]) -> None:
        with pinned(core):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.sink"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def spans(self) -> int:
        """All that have ever come."""
        assert self._process.stdin is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait_for(self, spans: int, timeout_s: float) -> None:
        """Until so many have come in all. Raises BenchError when they do not, or more do."""
        deadline = time.monotonic() + timeout_s
        while (come := self.spans()) < spans:
            if time.monotonic() > deadline:
                raise BenchError(f"{spans - come} spans did not arrive in {timeout_s:g} s")
            time.sleep(_POLL_S)
        if come > spans:
            raise BenchError(f"{come - spans} spans arrived that were not sent")

    def stop(self) -> None:
        self._process.communicate()


if __name__ == "__main__":
    asyncio.run(_serve())
