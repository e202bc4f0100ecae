from __future__ import annotations

import pytest

from gateway.access.container import LEAST, MOST, default_budget, memory_limit

MIB = 2**20


def test_what_the_platform_tells_comes_first(tmp_path):
    assert memory_limit(512 * MIB, root=tmp_path) == 512 * MIB


@pytest.mark.parametrize(
    "name", ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"]
)
def test_the_limit_of_the_cgroup_is_found_in_both_versions(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(f"{256 * MIB}\n")
    assert memory_limit(None, root=tmp_path) == 256 * MIB


@pytest.mark.parametrize("text", ["max\n", f"{2**63 - 4096}\n"])
def test_a_cgroup_without_a_limit_leaves_the_machine(tmp_path, text):
    path = tmp_path / "sys/fs/cgroup/memory.max"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    machine = memory_limit(None, root=tmp_path / "nothing")
    assert memory_limit(None, root=tmp_path) == machine > LEAST


def test_the_budget_is_a_share_within_bounds():
    assert default_budget(512 * MIB) == 128 * MIB
    assert default_budget(64 * MIB) == LEAST
    assert default_budget(64 * 2**30) == MOST
