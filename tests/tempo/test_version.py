"""Which Tempo a binary is."""

from __future__ import annotations

import pytest

from gateway.tempo.version import BinaryError, Version, read_version

TEXT = "tempo, version {} (branch: HEAD, revision: 0cd27c7)\\n  build user:\\n"


def make_binary(path, script: str):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("told", "version"), [("2.4.0", (2, 4, 0)), ("v2.10.8", (2, 10, 8)), ("3.0.3-rc1", (3, 0, 3))]
)
def test_the_binary_tells(tmp_path, told, version):
    binary = make_binary(tmp_path / "tempo", f"printf '{TEXT.format(told)}'")
    assert read_version(binary) == version


def test_a_version_reads_as_people_write_it():
    assert str(Version(2, 10, 8)) == "2.10.8"


@pytest.mark.parametrize(
    ("script", "words"), [("echo hello", "does not say that it is Tempo"), ("exit 1", "Tempo")]
)
def test_another_program_is_none(tmp_path, script, words):
    with pytest.raises(BinaryError, match=words):
        read_version(make_binary(tmp_path / "other", script))


def test_what_cannot_be_run_is_none(tmp_path):
    with pytest.raises(BinaryError, match=r"absent cannot be run: No such file or directory$"):
        read_version(tmp_path / "absent")
    (tmp_path / "plain").write_text("text")
    with pytest.raises(BinaryError, match="cannot be run"):
        read_version(tmp_path / "plain")
