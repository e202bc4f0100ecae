"""How much memory there is to share, and the gateway's part of it."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.settings import Settings

_CGROUP_FILES = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")

SHARE = 0.25
LEAST, MOST = 32 * 2**20, 2**30
"""The budget that is taken when none is set: a quarter of the container, so that Tempo (80 MiB
idle, 200 MiB under load) and the fixed part of the gateway fit beside it in 512 MB."""


def memory_limit(told: int | None, *, root: Path = Path("/")) -> int:
    """Bytes that this container may use: what the platform told, else the cgroup's limit (v2, then
    v1), else the machine's memory. ``root`` is where the kernel's files are looked for.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if told:
        return told
    for name in _CGROUP_FILES:
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # "max" means no limit; v1 writes a huge number for that
            return min(int(text), machine)
    return machine


def default_budget(limit: int) -> int:
    """The gateway's memory budget in a container of ``limit`` bytes."""
    return max(LEAST, min(MOST, int(limit * SHARE)))


def budget_of(settings: Settings) -> int:
    """The memory budget of a gateway, of all its processes."""
    return settings.memory_bytes or default_budget(memory_limit(settings.container_memory))
