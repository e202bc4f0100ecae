"""The tests on sockets run on both event loops: production uses uvloop, and both must do."""

from __future__ import annotations

import asyncio

import uvloop

ON_BOTH_LOOPS = {"test_door.py", "test_porch.py"}


def pytest_asyncio_loop_factories(config, item):
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ON_BOTH_LOOPS:
        factories["uvloop"] = uvloop.new_event_loop
    return factories
