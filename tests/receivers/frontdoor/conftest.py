"""The tests on sockets run on both event loops: production uses uvloop, and both must do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

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
    aio.init_grpc_aio()
    yield
    aio.shutdown_grpc_aio()
