from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateway.pipeline.directory_lock import DirectoryLock, SpoolLocked

HOLDER = """
import sys
from pathlib import Path
from gateway.pipeline.directory_lock import DirectoryLock
DirectoryLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path):
    lock = DirectoryLock(tmp_path)
    yield lock
    lock.release()


def test_names_the_process_that_holds_the_directory_and_is_free_after_its_sigkill(tmp_path, lock):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SpoolLocked, match=f"is in use by process {holder.pid}") as refused:
            lock.acquire()
        assert refused.value.pid == holder.pid
        holder.kill()
        holder.wait()

    lock.acquire()

    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_holds_against_the_same_process(tmp_path, lock):
    lock.acquire()

    with pytest.raises(SpoolLocked):
        DirectoryLock(tmp_path).acquire()


def test_is_free_after_release_which_is_safe_twice(tmp_path, lock):
    lock.acquire()
    lock.release()
    lock.release()

    again = DirectoryLock(tmp_path)
    again.acquire()
    again.release()


def test_a_lock_file_without_a_process_id_still_locks(tmp_path, lock):
    lock.acquire()
    (tmp_path / "lock").write_bytes(b"")

    with pytest.raises(SpoolLocked, match="is in use by another process") as refused:
        DirectoryLock(tmp_path).acquire()
    assert refused.value.pid is None


def test_a_directory_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        DirectoryLock(tmp_path / "missing").acquire()
