"""The tests on sockets run on both event loops: production uses uvloop, and both must do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop
from grpc import aio

ON_BOTH_LOOPS = {"test_door.py"}


def pytest_asyncio_loop_factories(config, item):
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ON_BOTH_LOOPS:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(scope="session", autouse=True)
def grpcio_stays() -> Iterator[None]:
    """Else grpcio shuts down with its last channel, which waits for a thread, and the garbage
    collector may let that happen in the middle of our code.
    """
    on_a_loop(aio.init_grpc_aio)
    yield
    on_a_loop(aio.shutdown_grpc_aio)


def on_a_loop(call: Callable[[], None]) -> None:
    """grpcio asks for the current event loop, and other tests may have left none."""

    async def run() -> None:
        call()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
