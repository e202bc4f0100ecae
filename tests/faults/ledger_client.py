"""A client with a ledger: sends numbered spans until told to stop, and remembers each answer.

Runs as a child process so that it shares nothing with what it tests. The end of its standard input
tells it to stop: what is under way is answered first. Ten times a second it prints a line with its
counts, and at its end one with its whole ledger, both in JSON. It behaves as SDKs do: what was
refused or got no answer is sent again, and only what was answered with success counts as
acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import aiohttp
import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPANS_PER_TRACE = 200
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
RETRY_DELAY_S = 0.2
"""Much shorter than an SDK waits, so that recovery after a fault is met at full load."""
REQUEST_TIMEOUT_S = 30
PROGRESS_S = 0.1
MOST_UNEXPECTED = 10
"""Answers that no SDK would retry, after which a worker gives up."""


@dataclass
class Counts:
    """What was answered."""

    requests: int = 0
    acknowledged: int = 0
    """Spans."""
    refused: int = 0
    refused_without_hint: int = 0
    no_answer: int = 0
    unexpected: list[str] = field(default_factory=list)


class Refused(Exception):
    """The gateway answered: not now."""

    def __init__(self, *, hint: bool) -> None:
        super().__init__()
        self.hint = hint


class NoAnswer(Exception):
    """Nobody knows whether it was taken."""


class Unexpected(Exception):
    """An answer that this load does not deserve."""


class GrpcSender:
    def __init__(self, address: str) -> None:
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
        ]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._call = self._channel.unary_unary(EXPORT)

    async def send(self, body: bytes) -> None:
        try:
            await self._call(body, timeout=REQUEST_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
            if error.code() is grpc.StatusCode.UNAVAILABLE and details is not None:
                raise Refused(hint=b"RetryInfo" in details) from None
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise NoAnswer from None
            raise Unexpected(f"{error.code()}: {error.details()}") from None

    async def close(self) -> None:
        await self._channel.close()


class HttpSender:
    def __init__(self, url: str) -> None:
        self._url = url + "/v1/traces"
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout)

    async def send(self, body: bytes) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        try:
            async with self._session.post(self._url, data=body, headers=headers) as answer:
                text = await answer.read()
        except TimeoutError:
            raise Unexpected(f"no answer in {REQUEST_TIMEOUT_S} s") from None
        except (aiohttp.ClientError, ConnectionError):
            raise NoAnswer from None
        if answer.status == 503:
            raise Refused(hint="Retry-After" in answer.headers)
        if answer.status != 200 or text:
            raise Unexpected(f"HTTP {answer.status}: {text!r}")

    async def close(self) -> None:
        await self._session.close()


class Worker:
    """One connection that sends request after request, each until it is taken."""

    def __init__(
        self, name: str, sender: GrpcSender | HttpSender, options: argparse.Namespace
    ) -> None:
        self._name = name
        self._sender = sender
        self._spans = options.spans
        self._padding = "x" * options.padding
        self._interval_s = options.spans * options.workers / options.rate
        self.taken = 0
        """The spans up to this number are acknowledged."""

    def traces(self) -> Iterator[tuple[str, int, int]]:
        """What is acknowledged: trace id in hex, numbers of its first and beyond its last span."""
        for first in range(0, self.taken, SPANS_PER_TRACE):
            last = min(first + SPANS_PER_TRACE, self.taken)
            yield self._trace_id(first).hex(), first, last

    async def work(self, counts: Counts, stop: asyncio.Event) -> None:
        due = time.monotonic() + random.random() * self._interval_s
        while not stop.is_set():
            await _pause(due - time.monotonic(), stop)
            # What was missed is made up for, but not more than a second of it.
            due = max(due + self._interval_s, time.monotonic() - 1)
            if not await self._send_until_taken(self._request(), counts, stop):
                return
            self.taken += self._spans
            counts.acknowledged += self._spans

    async def _send_until_taken(self, body: bytes, counts: Counts, stop: asyncio.Event) -> bool:
        while True:
            counts.requests += 1
            try:
                await self._sender.send(body)
            except Refused as refused:
                counts.refused += 1
                counts.refused_without_hint += not refused.hint
            except NoAnswer:
                counts.no_answer += 1
            except Unexpected as answer:
                counts.unexpected.append(str(answer))
                if len(counts.unexpected) >= MOST_UNEXPECTED:
                    return False
            else:
                return True
            if stop.is_set():
                return False
            await _pause(RETRY_DELAY_S * (0.5 + random.random()), stop)

    def _request(self) -> bytes:
        message = ExportTraceServiceRequest()
        resource = message.resource_spans.add()
        service = resource.resource.attributes.add(key="service.name")
        service.value.string_value = "ledger"
        spans = resource.scope_spans.add().spans
        now = time.time_ns()
        for number in range(self.taken, self.taken + self._spans):
            span = spans.add(
                trace_id=self._trace_id(number),
                span_id=(number + 1).to_bytes(8, "big"),
                name=f"{self._name}-{number}",
                kind=2,
                start_time_unix_nano=now - 10**6,
                end_time_unix_nano=now,
            )
            span.attributes.add(key="padding").value.string_value = self._padding
        return message.SerializeToString()

    def _trace_id(self, number: int) -> bytes:
        text = f"{self._name}/{number // SPANS_PER_TRACE}"
        return hashlib.sha256(text.encode()).digest()[:16]


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


def _say(kind: str, values: object) -> None:
    print(json.dumps([kind, values]), flush=True)


async def _tell_progress(counts: Counts) -> None:
    while True:
        _say("counts", asdict(counts))
        await asyncio.sleep(PROGRESS_S)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True, help="makes the trace ids its own")
    parser.add_argument("--http", required=True, metavar="URL")
    parser.add_argument("--grpc", required=True, metavar="HOST:PORT")
    parser.add_argument("--rate", type=float, required=True, help="spans a second")
    parser.add_argument("--spans", type=int, required=True, help="spans a request")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--padding", type=int, required=True, help="bytes of text in each span")
    options = parser.parse_args()

    counts, stop = Counts(), asyncio.Event()
    senders = [
        GrpcSender(options.grpc) if number % 2 else HttpSender(options.http)
        for number in range(options.workers)
    ]
    workers = [Worker(f"{options.run}-{n}", sender, options) for n, sender in enumerate(senders)]
    orders = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    orders.add_done_callback(lambda _: stop.set())
    progress = asyncio.create_task(_tell_progress(counts))
    await asyncio.gather(*(worker.work(counts, stop) for worker in workers))
    progress.cancel()
    for sender in senders:
        await sender.close()
    _say("counts", asdict(counts))
    _say("traces", [trace for worker in workers for trace in worker.traces()])


if __name__ == "__main__":
    asyncio.run(main())
