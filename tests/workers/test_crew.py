"""Workers kept alive, with real processes that this one is the parent of."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.receivers.address import Address
from gateway.tempo.backoff import Backoff
from gateway.workers import crew as crew_module
from gateway.workers.crew import Crew
from gateway.workers.ports import ReservedPorts
from tests.kit.gateway import is_gone

TIMEOUT_S = 30


@pytest.fixture
async def crew(tmp_path, monkeypatch):
    """One worker with a backend of its own, which nobody needs."""
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "TEMPO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TEMPO_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("GATEWAY_DRAIN_TIMEOUT", "2s")
    monkeypatch.setattr(crew_module, "LOOK_S", 0.2)
    monkeypatch.setattr(crew_module, "SILENT_S", 2.0)
    ports = ReservedPorts()
    address = ports.reserve(Address("127.0.0.1", 0, 0))

    def arguments(number: int) -> list[str]:
        told = {"number": number, "count": 2, "http-port": address.http_port}
        told["grpc-port"] = address.grpc_port
        return ["worker", "--role", "serve", *(f"--{k}={v}" for k, v in told.items())]

    def introduce(worker) -> None:
        async def terms(_):
            return None, None

        worker.link.answer("terms", terms)

    crew = Crew(1, arguments, introduce, backoff=Backoff(first_s=0.01))
    crew.start()
    yield crew
    await crew.stop(0.0)
    ports.close()


async def test_one_that_is_too_busy_to_answer_speaks_by_its_last_answer(crew, monkeypatch):
    assert await asyncio.wait_for(crew.wait_until_listening(), TIMEOUT_S)
    told = await crew.ask("families", or_last=True)
    assert told.keys() == {0}
    monkeypatch.setattr(crew_module, "ASK_TIMEOUT_S", 0.1)
    os.kill(crew.living[0].pid, signal.SIGSTOP)
    assert await crew.ask("families", or_last=True) == told
    assert await crew.ask("families") == {}
    assert await crew.ask("status", or_last=True) == {}


async def test_one_that_hangs_is_replaced_and_all_end_in_order(crew):
    assert await asyncio.wait_for(crew.wait_until_listening(), TIMEOUT_S)
    hung = crew.living[0].pid
    os.kill(hung, signal.SIGSTOP)
    async with asyncio.timeout(TIMEOUT_S):
        while 0 not in crew.living or crew.living[0].pid == hung:
            await asyncio.sleep(0.05)
        while not crew.living[0].is_listening:
            await asyncio.sleep(0.05)
    assert is_gone(hung)
    assert (await crew.ask("alive")) == {0: True}
    await crew.drain(TIMEOUT_S)
    await crew.stop(TIMEOUT_S)
    assert crew.living == {}
    assert crew.left == 0
