"""The repository's own rules."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from blockbuster import BlockingError

from gateway.pipeline.dead_letters import DeadLetterFolder

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "gateway").rglob("*.py"))

TESTED_ELSEWHERE = {
    "otlp/test_protobuf.py": [
        "otlp/clean",
        "otlp/decode",
        "otlp/rules",
        "otlp/strict",
    ],
    "otlp/test_json.py": ["otlp/json_scalars", "otlp/json_spans", "otlp/json_values"],
    "embedded/test_regex.py": ["embedded/regex_syntax"],
    "embedded/test_traceql.py": ["embedded/comparisons", "embedded/conditions"],
    "embedded/test_decode.py": ["embedded/messages"],
    "embedded/test_search.py": ["embedded/stored"],
    "embedded/test_server.py": [
        "embedded/__main__",
        "embedded/api",
        "embedded/metrics",
        "embedded/queries",
    ],
    "otlp/test_reply.py": ["errors"],
    "query/test_proxy.py": ["query/backend", "query/failure", "query/form"],
    "receivers/test_listeners.py": ["receivers/address"],
    "pipeline/test_adoption.py": ["pipeline/data_directory"],
    "tempo/test_supervisor.py": ["tempo/backoff"],
    "workers/test_parent.py": [
        "workers/process",
        "workers/seat",
        "workers/shared",
    ],
    "test_app.py": ["query/status", "roles", "tempo/voice"],
    "tempo/test_external.py": ["tempo/probe"],
    "receivers/frontdoor/test_door.py": [
        "receivers/frontdoor/connection",
        "receivers/frontdoor/wire",
    ],
    "receivers/frontdoor/test_porch.py": ["receivers/frontdoor/plaintext"],
    "receivers/frontdoor/http2/test_speaker.py": [
        "receivers/frontdoor/http2/blocks",
        "receivers/frontdoor/http2/lifetime",
        "receivers/frontdoor/http2/outgoing",
        "receivers/frontdoor/http2/register",
    ],
    "receivers/frontdoor/rpc/test_export.py": [
        "receivers/frontdoor/rpc/calls",
        "receivers/frontdoor/rpc/messages",
        "receivers/frontdoor/rpc/status",
    ],
}
"""Modules whose tests bear another name, by the tests: parts of one idea that are tested through
its face, so that the tests hold while the parts are cut anew."""

IMPORT_EACH = """
import importlib, os, sys, traceback
# What is not ours is imported once for all of them: it takes most of the time.
import aiohttp.web, google.protobuf.message, grpc.aio, lark, msgspec, prometheus_client, uvloop

def import_alone(name):
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

sys.exit(" ".join(name for name in sys.argv[1:] if not import_alone(name)) or 0)
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def has_logic(path: Path) -> bool:
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return any(isinstance(node, functions) for node in ast.walk(ast.parse(path.read_text())))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_each_module_imports_alone():
    """Each in a process of its own that has imported nothing of ours before, so that no module
    relies on another having been imported first.
    """
    names = [module_name(path) for path in MODULES if path.name != "__main__.py"]
    done = run("-c", IMPORT_EACH, *names)
    assert done.returncode == 0, f"these do not import alone: {done.stderr}"


def test_each_module_with_logic_has_its_tests():
    elsewhere = {module for modules in TESTED_ELSEWHERE.values() for module in modules}
    missing = []
    for path in filter(has_logic, MODULES):
        module = path.relative_to(ROOT / "gateway").with_suffix("")
        tests = ROOT / "tests" / module.with_name(f"test_{module.name.strip('_')}.py")
        if str(module) in elsewhere:
            assert not tests.is_file(), f"{module} has tests of its own"
        elif not tests.is_file():
            missing.append(f"{module}: no {tests.relative_to(ROOT)}")
    assert not missing, "\n".join(missing)


def test_no_exception_to_that_is_stale():
    for tests, modules in TESTED_ELSEWHERE.items():
        assert (ROOT / "tests" / tests).is_file(), f"tests/{tests} is gone"
        for module in modules:
            assert (ROOT / "gateway" / f"{module}.py").is_file(), f"gateway/{module}.py is gone"


def test_imports_follow_the_contracts():
    done = run("-c", "from importlinter.cli import lint_imports_command as run; run()")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "command", [("-m", "proto_stubs.generate", "--check"), ("docs/render.py", "--check")]
)
def test_no_generated_file_is_stale(command):
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_a_blocking_call_of_the_gateway_fails_a_test(tmp_path):
    folder = DeadLetterFolder(tmp_path / "letters", max_bytes=10_000)
    with pytest.raises(BlockingError):
        folder._keep("", b"payload", 1, "bad")
    await asyncio.to_thread(folder._keep, "", b"payload", 1, "bad")
