"""Lets processes have only a part of a core each, by Linux's cgroups; needs root.

On a machine without free cores it stands in for them: who may use a fifth of a core is as fast
whether or not there are others, as long as that fifth is to be had.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.peers.processes import BenchError

PERIOD_US = 20_000
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def limited(pids: Sequence[int], share: float) -> Iterator[None]:
    """Each of them; the processes have to be gone at the end."""
    groups = [_group(pid) for pid in pids]
    try:
        for pid, group in zip(pids, groups, strict=True):
            _limit(group, int(PERIOD_US * share))
            (group / "cgroup.procs").write_text(str(pid))
        yield
    except OSError as error:
        raise BenchError(f"no quota of CPU can be set here: {error}") from error
    finally:
        for group in groups:
            _remove(group)


def _group(pid: int) -> Path:
    group = (_V1 if _V1.is_dir() else _V2) / f"gateway-bench-{os.getpid()}-{pid}"
    try:
        group.mkdir()
    except OSError as error:
        raise BenchError(f"no cgroup can be made here: {error}") from error
    return group


def _limit(group: Path, quota_us: int) -> None:
    if (group / "cpu.max").exists():
        (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))


def _remove(group: Path) -> None:
    for _ in range(50):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.1)  # the last of its processes is about to go
        else:
            return
