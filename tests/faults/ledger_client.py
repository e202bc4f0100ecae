"""A client with a ledger: sends numbered spans until told to stop, and remembers each answer.

Runs as a child process so that it shares nothing with what it tests. Reads its orders from stdin
(end of file: finish what is under way, print the ledger as JSON, exit). Behaves as SDKs do: what
was refused or got no answer is sent again; only what was answered with success counts as
acknowledged.

Usage: python ledger_client.py --http URL --grpc HOST:PORT --rate SPANS_PER_S --spans PER_REQUEST
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
from dataclasses import dataclass, field

import aiohttp
import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPANS_PER_TRACE = 200
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PADDING = "x" * 120
RETRY_DELAY_S = 0.2
"""Much shorter than an SDK waits, so that recovery after a fault is met at full load."""


@dataclass
class Ledger:
    """What was answered."""

    acknowledged: dict[str, list[int]] = field(default_factory=dict)
    """Trace id in hex -> numbers of the spans answered with success."""
    requests: int = 0
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


def trace_id(run: str, worker: int, number: int) -> bytes:
    text = f"{run}/{worker}/{number // SPANS_PER_TRACE}"
    return hashlib.sha256(text.encode()).digest()[:16]


def request(run: str, worker: int, first: int, count: int) -> bytes:
    """Spans ``first`` to ``first + count - 1`` of one worker."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    service = resource.resource.attributes.add(key="service.name")
    service.value.string_value = "ledger"
    spans = resource.scope_spans.add().spans
    now = time.time_ns()
    for number in range(first, first + count):
        span = spans.add(
            trace_id=trace_id(run, worker, number),
            span_id=(number + 1).to_bytes(8, "big"),
            name=f"{worker}-{number}",
            kind=2,
            start_time_unix_nano=now - 10**6,
            end_time_unix_nano=now,
        )
        span.attributes.add(key="padding").value.string_value = PADDING
    return message.SerializeToString()


class GrpcSender:
    def __init__(self, address: str) -> None:
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._call = self._channel.unary_unary(EXPORT)

    async def send(self, body: bytes) -> None:
        try:
            await self._call(body, timeout=30)
        except grpc.aio.AioRpcError as error:
            details = dict(error.trailing_metadata() or ())
            hint = b"RetryInfo" in details.get("grpc-status-details-bin", b"")
            if error.code() is grpc.StatusCode.UNAVAILABLE and hint:
                raise Refused(hint=True) from None
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise NoAnswer from None
            raise

    async def close(self) -> None:
        await self._channel.close()


class HttpSender:
    def __init__(self, url: str) -> None:
        self._url = url + "/v1/traces"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    async def send(self, body: bytes) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        try:
            async with self._session.post(self._url, data=body, headers=headers) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            raise NoAnswer from None
        if answer.status == 503:
            raise Refused(hint="Retry-After" in answer.headers)
        if answer.status != 200 or text:
            raise AssertionError(f"HTTP {answer.status}: {text!r}")

    async def close(self) -> None:
        await self._session.close()


async def work(run: str, worker: int, sender, ledger: Ledger, options, stop: asyncio.Event) -> None:
    """Send request after request at this worker's share of the rate."""
    share_s = options.spans * options.workers / options.rate
    number = 0
    due = time.monotonic() + random.random() * share_s
    while not stop.is_set():
        await asyncio.sleep(max(0, due - time.monotonic()))
        due = max(due + share_s, time.monotonic() - 1)
        body = request(run, worker, number, options.spans)
        if not await send_until_taken(sender, body, ledger, stop):
            return
        for n in range(number, number + options.spans):
            key = trace_id(run, worker, n).hex()
            ledger.acknowledged.setdefault(key, []).append(n)
        number += options.spans


async def send_until_taken(sender, body: bytes, ledger: Ledger, stop: asyncio.Event) -> bool:
    while True:
        ledger.requests += 1
        try:
            await sender.send(body)
        except Refused as refused:
            ledger.refused += 1
            ledger.refused_without_hint += not refused.hint
        except NoAnswer:
            ledger.no_answer += 1
        except Exception as error:  # noqa: BLE001 - the test reports it and fails
            ledger.unexpected.append(repr(error))
            return False
        else:
            return True
        if stop.is_set():
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), RETRY_DELAY_S * (0.5 + random.random()))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--http", required=True)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--rate", type=float, required=True, help="spans a second")
    parser.add_argument("--spans", type=int, default=20, help="spans a request")
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()

    ledger, stop = Ledger(), asyncio.Event()
    senders = [
        GrpcSender(options.grpc) if worker % 2 else HttpSender(options.http)
        for worker in range(options.workers)
    ]
    loop = asyncio.get_running_loop()
    orders = loop.run_in_executor(None, sys.stdin.read)
    orders.add_done_callback(lambda _: stop.set())
    await asyncio.gather(
        *(work(options.run, n, sender, ledger, options, stop) for n, sender in enumerate(senders))
    )
    for sender in senders:
        await sender.close()
    print(json.dumps(vars(ledger)))


if __name__ == "__main__":
    asyncio.run(main())
