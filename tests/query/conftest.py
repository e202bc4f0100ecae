from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.query.scripted import Backend, scripted_backend


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Proxying leans on how the loop ends connections, so it is tried on the one of production."""
    asked = {"asyncio": asyncio.new_event_loop}
    return asked | {"uvloop": uvloop.new_event_loop} if item.path.stem == "test_proxy" else asked


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with scripted_backend() as started:
        yield started
