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
    # Joined parts, which only a started gateway shows.
    "__main__.py": "e2e/test_clients.py",
    "app.py": "e2e/test_clients.py",
    # The table of refusals is tested where it is answered, and rendered into docs/refusals.md.
    "errors.py": "otlp/test_reply.py",
}
"""Modules of the gateway whose tests have another name, and which."""

IMPORT_EACH = """
import importlib, os, sys, traceback

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

sys.exit(", ".join(name for name in sys.argv[1:] if not import_alone(name)))
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
    assert done.returncode == 0, f"{done.stderr}\ndo not import alone: {done.stdout}"


def test_each_module_with_logic_has_its_tests():
    missing = []
    for path in filter(has_logic, MODULES):
        module = path.relative_to(ROOT / "gateway")
        tests = TESTED_ELSEWHERE.get(str(module), str(module.with_name(f"test_{module.name}")))
        if not (ROOT / "tests" / tests).is_file():
            missing.append(f"{module}: no tests/{tests}")
    assert not missing, "\n".join(missing)


def test_no_exception_to_the_rule_is_stale():
    for module, tests in TESTED_ELSEWHERE.items():
        path = Path(module)
        assert (ROOT / "gateway" / path).is_file(), f"{module} is gone"
        assert not (ROOT / "tests" / path.with_name(f"test_{path.name}")).exists()
        assert (ROOT / "tests" / tests).is_file(), f"tests/{tests} is gone"


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
