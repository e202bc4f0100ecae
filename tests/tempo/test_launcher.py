"""A child that cannot outlive its parent, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.tempo import launcher
from tests.kit.gateway import eventually, is_gone

LAUNCHER = launcher.__file__
PARENT = f"""
import os, subprocess, sys, time
command = [sys.executable, "-S", "-E", {LAUNCHER!r}, str(os.getpid()), "", "sleep", "60"]
child = subprocess.Popen(command)
print(child.pid, flush=True)
time.sleep(60)
"""


def launch(
    *arguments: str, parent: int | None = None, oom_score: str = launcher.AS_PARENT
) -> subprocess.CompletedProcess[str]:
    command = [*launcher.launch(oom_score), *arguments]
    if parent is not None:
        command[command.index(str(os.getpid()))] = str(parent)
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def test_becomes_the_program_with_its_arguments():
    done = launch(sys.executable, "-c", "import os, sys; print(sys.argv, os.getppid())", "a b", "c")
    assert done.stdout.split("\n")[0] == f"['-c', 'a b', 'c'] {os.getpid()}"


def test_hands_on_the_exit_code():
    assert launch("sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_dies_with_its_parent(number):
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        eventually(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
        parent.send_signal(number)
    eventually(lambda: is_gone(child))


def test_a_parent_that_is_dead_already_gets_no_child():
    done = launch("echo", "alive", parent=1)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_program_that_cannot_be_run_is_told(tmp_path):
    done = launch(str(tmp_path / "absent"))
    assert done.returncode == 1
    assert "cannot run the program" in done.stderr
    assert "No such file" in done.stderr
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    assert "Exec format error" in launch(str(broken)).stderr


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux")
def test_where_memory_runs_out_the_child_goes_first_if_wanted():
    read, ours = ("cat", "/proc/self/oom_score_adj"), Path("/proc/self/oom_score_adj").read_text()
    assert launch(*read, oom_score=launcher.GOES_FIRST).stdout.strip() == launcher.GOES_FIRST
    assert launch(*read).stdout == ours


def test_signals_are_as_a_new_program_expects_them():
    done = launch("grep", "SigIgn", "/proc/self/status")
    assert int(done.stdout.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0
