"""Guards over all tests: no blocking call on the event loop, no task left behind, no timing."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx
from grpc import aio
from hypothesis import settings

settings.register_profile("gateway", deadline=None)  # a busy machine is no fault
settings.load_profile("gateway")


@pytest.fixture(scope="session", autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A call that waits for disk, socket or clock fails where code of the gateway makes it while
    the event loop runs. Threads may block, and so may tests.
    """
    with blockbuster_ctx("gateway") as guard:
        for blocking in guard.functions.values():
            # An import inside a function of a library, such as a codec's on first use.
            blocking.can_block_in("<frozen importlib._bootstrap>", {"_find_and_load"})
            # Asks the binary for its version, before anybody is served.
            blocking.can_block_in("gateway/tempo/backends.py", {"make_backend"})
            # The spool writes small groups on the loop, by the rule of docs/durability.md.
            blocking.can_block_in("gateway/pipeline/segment_file.py", {"_write_all"})
        yield


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest) -> None:
    """Set up first, so checked last: after all other fixtures of the test have cleaned up."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_tasks_end_with_their_test")


@pytest_asyncio.fixture
async def _tasks_end_with_their_test():
    before = asyncio.all_tasks()
    yield
    for _ in range(3):  # what has just been cancelled or finished may end by itself
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"left behind: {sorted(task.get_name() for task in left)}"


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
