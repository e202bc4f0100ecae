"""Drives the ledger client from a test and checks its ledger against what the backend has."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kit.gateway import RunningGateway

CLIENT = Path(__file__).with_name("ledger_client.py")


@dataclass
class Result:
    """The client's ledger at its end."""

    acknowledged: dict[str, list[int]]
    requests: int
    refused: int
    refused_without_hint: int
    no_answer: int
    unexpected: list[str]

    @property
    def spans(self) -> int:
        return sum(map(len, self.acknowledged.values()))


class LedgerClient:
    """A client under way. ``finish`` ends it and gives its ledger."""

    def __init__(self, gateway: RunningGateway, *, rate: int, spans: int, workers: int) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, str(CLIENT), "--run", os.urandom(4).hex(),
                "--http", gateway.url, "--grpc", gateway.grpc_address,
                "--rate", str(rate), "--spans", str(spans), "--workers", str(workers),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def finish(self) -> Result:
        output, _ = self._process.communicate(timeout=90)
        assert self._process.returncode == 0
        result = Result(**json.loads(output))
        assert result.unexpected == []
        return result

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        self._process.wait()


@contextlib.contextmanager
def ledger_client(
    gateway: RunningGateway, *, rate: int = 2000, spans: int = 20, workers: int = 8
) -> Iterator[LedgerClient]:
    client = LedgerClient(gateway, rate=rate, spans=spans, workers=workers)
    try:
        yield client
    finally:
        client.kill()


def missing_spans(gateway: RunningGateway, result: Result, *, timeout_s: float = 60) -> int:
    """How many acknowledged spans the backend still lacks when all have been asked for until they
    are there, or the time is over.
    """
    left = {trace: set(numbers) for trace, numbers in result.acknowledged.items()}
    deadline = time.monotonic() + timeout_s
    while left:
        for trace in list(left):
            left[trace] -= stored_numbers(gateway, trace)
            if not left[trace]:
                del left[trace]
        if time.monotonic() > deadline:
            break
        if left:
            time.sleep(0.2)
    return sum(map(len, left.values()))


def stored_numbers(gateway: RunningGateway, trace_id: str) -> set[int]:
    """Numbers of the spans that the backend has of one trace."""
    status, body, _ = gateway.get(f"/api/traces/{trace_id}")
    if status != 200:
        return set()
    return {
        int.from_bytes(base64.b64decode(span["spanId"]), "big") - 1
        for batch in json.loads(body)["batches"]
        for scope in batch.get("scopeSpans", ())
        for span in scope.get("spans", ())
    }
