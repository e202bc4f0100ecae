"""Drives the ledger client from a test, and holds its ledger against what the backend has."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.faults.ledger_client import Counts
from tests.kit.gateway import RunningGateway
from tests.kit.sink import SpanKey

CLIENT = Path(__file__).with_name("ledger_client.py")
END_TIMEOUT_S = 60


class Ledger(NamedTuple):
    """The client's ledger at its end."""

    counts: Counts
    traces: dict[str, range]
    """Trace id in hex -> numbers of its spans that were acknowledged."""

    def keys(self) -> set[SpanKey]:
        return {
            (bytes.fromhex(trace), (number + 1).to_bytes(8, "big"))
            for trace, numbers in self.traces.items()
            for number in numbers
        }


class LedgerClient:
    """A client under way. ``finish`` ends it and gives its ledger."""

    def __init__(
        self, http: str, grpc: str, *, rate: float, spans: int, workers: int, padding: int
    ) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, str(CLIENT), "--run", os.urandom(4).hex(),
                "--http", http, "--grpc", grpc, "--rate", str(rate), "--spans", str(spans),
                "--workers", str(workers), "--padding", str(padding),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.counts = Counts()
        """As of a tenth of a second ago."""
        self._traces: dict[str, range] | None = None
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            kind, values = json.loads(line)
            with self._changed:
                if kind == "counts":
                    self.counts = Counts(**values)
                else:
                    self._traces = {trace: range(first, last) for trace, first, last in values}
                self._changed.notify_all()

    def wait_until(self, reached: Callable[[Counts], object], timeout_s: float = 60) -> None:
        with self._changed:
            done = self._changed.wait_for(
                lambda: reached(self.counts) or self.counts.unexpected, timeout_s
            )
        assert done, f"not reached in {timeout_s} s: {self.counts}"
        assert not self.counts.unexpected, self.counts.unexpected

    def wait_for_more(self, spans: int, timeout_s: float = 60) -> None:
        """Until so many more spans are acknowledged."""
        wanted = self.counts.acknowledged + spans
        self.wait_until(lambda counts: counts.acknowledged >= wanted, timeout_s)

    def finish(self) -> Ledger:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(END_TIMEOUT_S) == 0
        self._reader.join(timeout=10)
        assert self.counts.unexpected == []
        assert self._traces is not None
        return Ledger(self.counts, self._traces)

    def kill(self) -> None:
        """Safe after ``finish`` and twice."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._reader.join(timeout=10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()


@contextlib.contextmanager
def ledger_client(
    gateway: RunningGateway,
    *,
    rate: float = 2000,
    spans: int = 20,
    workers: int = 8,
    padding: int = 120,
) -> Iterator[LedgerClient]:
    """Half of the workers send over HTTP, half over gRPC."""
    client = LedgerClient(
        gateway.url, gateway.grpc_address, rate=rate, spans=spans, workers=workers, padding=padding
    )
    try:
        yield client
    finally:
        client.kill()


def missing_spans(
    read: Callable[[str], Collection[int]], ledger: Ledger, *, timeout_s: float = 60
) -> int:
    """How many acknowledged spans the backend still lacks when all have been asked for until they
    are there, or the time is over.
    """
    left = {trace: set(numbers) for trace, numbers in ledger.traces.items()}
    deadline = time.monotonic() + timeout_s
    while True:
        for trace in list(left):
            left[trace] -= set(read(trace))
            if not left[trace]:
                del left[trace]
        if not left or time.monotonic() > deadline:
            return sum(map(len, left.values()))
        time.sleep(0.2)


def numbers_at(url: str) -> Callable[[str], set[int]]:
    """Reads the numbers of the spans of a trace from Tempo's API, also through a gateway."""

    def read(trace_id: str) -> set[int]:
        try:
            with urllib.request.urlopen(f"{url}/api/traces/{trace_id}", timeout=30) as answer:
                trace = json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            return set()
        return {
            int.from_bytes(base64.b64decode(span["spanId"]), "big") - 1
            for batch in trace["batches"]
            for scope in batch.get("scopeSpans", ())
            for span in scope.get("spans", ())
        }

    return read
