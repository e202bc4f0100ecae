"""One life of a child process, with real processes."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from gateway.tempo.child import Child, Program, read_usage
from tests.kit.gateway import is_gone

ENV = {"PATH": os.environ["PATH"]}


async def start(code: str, **env: str) -> Child:
    return await Child.start(Program([sys.executable, "-c", code], ENV | env))


async def test_output_is_both_streams_and_the_code_is_told():
    child = await start(
        "import sys; print('out', flush=True); print('err', file=sys.stderr); exit(3)"
    )
    text = await child.output.read()
    assert (text.split(), await child.wait()) == ([b"out", b"err"], 3)


async def test_the_environment_is_what_is_given_and_nothing_else():
    child = await start("import os; print(os.environ)", COLOUR="blue")
    text = (await child.output.read()).decode()
    assert "blue" in text
    assert "PYTEST_CURRENT_TEST" not in text
    assert await child.wait() == 0


async def test_ctrl_c_in_our_terminal_does_not_reach_it():
    child = await start("import os; print(os.getsid(0) == os.getpid())")
    assert await child.output.read() == b"True\n"
    assert await child.wait() == 0


@pytest.mark.parametrize(("end", "code"), [(Child.terminate, -15), (Child.kill, -9)])
async def test_signals_end_it_and_no_zombie_is_left(end, code):
    child = await start("import time; print('up', flush=True); time.sleep(60)")
    await child.output.readline()
    end(child)
    assert await child.wait() == code
    assert is_gone(child.pid)
    end(child)  # also of one that is gone
    await child.output.read()


async def test_a_program_that_cannot_be_run_is_a_child_that_ends():
    child = await Child.start(Program(["/nonexistent/tempo"], ENV))
    assert b"cannot run the program" in await child.output.read()
    assert await child.wait() == 1


async def test_usage_is_read_from_the_kernel():
    child = await start(
        "import time; x = b'x' * 50_000_000; sum(range(3_000_000)); print(flush=True);"
        "time.sleep(60)"
    )
    await child.output.readline()
    usage = await asyncio.to_thread(read_usage, child.pid)
    child.kill()
    await child.wait()
    await child.output.read()
    assert usage is not None
    assert usage.rss_bytes > 50_000_000
    assert 0.01 < usage.cpu_s < 30
    assert await asyncio.to_thread(read_usage, 2**22 + 1) is None
