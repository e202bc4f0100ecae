"""With Tempo behind: what the gateway and Tempo use together, beside Tempo taking requests itself.

One gateway runs Tempo as its child. Spans go in turn to the gateway, where the CPU of both counts,
and straight to the child, where only its own counts. They come at a fixed rate that both can keep,
one span a request, each of a trace of its own: traces that repeat would cost Tempo much less.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import statistics
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

from grpc import aio

from benchmarks.peers import systems
from benchmarks.peers.cases import EXPORT, realistic
from benchmarks.peers.processes import HOST, BenchError, System, cpu_s

_PER_S = 500
_SECONDS = 8
_SETTLE_S = 5.0
"""After the last request: Tempo then writes what it has to its disk."""
_WAIT_S = 60.0
_RECEIVED = re.compile(
    r"^tempo_distributor_spans_received_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE
)


class Round(NamedTuple):
    """CPU us a request."""

    alone: float
    tempo_behind: float
    gateway: float


def wanted() -> bool:
    return "TEMPO_BIN" in os.environ


def measure(directory: Path, core: int, runs: int) -> list[Round]:
    env = {"TEMPO_MODE": "managed", "TEMPO_BIN": os.environ["TEMPO_BIN"]}
    system = systems.gateway("gateway with tempo", directory, core, env)
    try:
        system.wait_until_listening()
        _wait_until_ready(system)
        return [_round(system) for _ in range(runs)]
    except BenchError as error:
        raise BenchError(f"{error}\n{system.log}") from error
    finally:
        system.stop()


def _round(system: System) -> Round:
    child, port = _child(system)
    _, alone = _cost(system, child, port)
    gateway, behind = _cost(system, child, system.ports["grpc"])
    return Round(alone, behind, gateway)


def _cost(system: System, child: int, port: int) -> tuple[float, float]:
    """CPU us a request of the gateway and of Tempo."""
    before = _received(system)
    used = [cpu_s(system.process.pid), cpu_s(child)]
    asyncio.run(_send(port))
    time.sleep(_SETTLE_S)
    now = [cpu_s(system.process.pid), cpu_s(child)]
    come = _received(system) - before
    if come != _PER_S * _SECONDS:
        raise BenchError(f"of {_PER_S * _SECONDS} spans Tempo has {come:.0f}")
    gateway, tempo = (
        (after - earlier) / (_PER_S * _SECONDS) * 1e6
        for earlier, after in zip(used, now, strict=True)
    )
    return gateway, tempo


async def _send(port: int) -> None:
    """Requests in time with the clock, each with a trace id of its own."""
    body = realistic(1)
    at = body.index(b"\x0a\x10") + 2  # the span's first field: a trace id of 16 bytes
    before, after = body[:at], body[at + 16 :]
    chance = random.Random()
    async with aio.insecure_channel(f"{HOST}:{port}") as channel:
        export: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)
        began = time.monotonic()
        calls = []
        for number in range(_PER_S * _SECONDS):
            await asyncio.sleep(began + number / _PER_S - time.monotonic())
            calls.append(export(before + chance.randbytes(16) + after, timeout=30))
        try:
            await asyncio.gather(*calls)
        except aio.AioRpcError as error:
            raise BenchError(f"not every request succeeded: {error.details()}") from error


def _child(system: System) -> tuple[int, int]:
    """Tempo's process and its OTLP port, which the gateway tells it in its environment."""
    for pid in system.pids[1:]:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if port := re.search(rb"(?:^|\0)OTLP_PORT=(\d+)", environment):
            return pid, int(port[1])
    raise BenchError("Tempo is not running")


def _get(system: System, path: str) -> str:
    address = f"http://{HOST}:{system.ports['http']}{path}"
    with urllib.request.urlopen(address, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def _wait_until_ready(system: System) -> None:
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            _get(system, "/ready")
        except OSError:
            if time.monotonic() > deadline:
                raise BenchError(f"Tempo does not become ready:\n{system.log}") from None
            time.sleep(0.2)
        else:
            return


def _received(system: System) -> float:
    """Spans that Tempo has taken, by its own count."""
    return sum(map(float, _RECEIVED.findall(_get(system, "/metrics"))))


def markdown(rounds: list[Round]) -> str:
    alone, behind, gateway = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median((each.tempo_behind + each.gateway) / each.alone for each in rounds)
    return (
        f"| {_PER_S} gRPC requests/s of 1 span, CPU us a request | Tempo | gateway | together |\n"
        "| --- | --- | --- | --- |\n"
        f"| Tempo alone | {alone:.0f} | | {alone:.0f} |\n"
        f"| Tempo behind the gateway | {behind:.0f} | {gateway:.0f} | {behind + gateway:.0f}"
        f" ({ratio:.2f} of Tempo alone) |"
    )
