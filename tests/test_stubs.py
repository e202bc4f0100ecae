"""The generated code in proto_stubs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proto_stubs import generate

ROOT = Path(__file__).parent.parent


def test_generated_files_are_current():
    assert generate.main(["--check"]) == 0


def test_check_names_what_is_stale(tmp_path, monkeypatch, capsys):
    for path in generate.FOLDER.glob("*.proto"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "left_over_pb2.py").write_text("")
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "answers_pb2.py, answers_pb2.pyi, left_over_pb2.py" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert not (tmp_path / "left_over_pb2.py").exists()
    assert generate.main(["--check"]) == 0


def test_change_of_protocs_output_is_noticed():
    with pytest.raises(ValueError, match="with_private_pool"):
        generate.with_private_pool("DESCRIPTOR = None")


def test_nothing_is_registered_in_the_shared_pool():
    """So that pip's packages can be loaded beside it, before or after."""
    program = """
import proto_stubs.view_pb2, proto_stubs.answers_pb2
from google.protobuf.descriptor_pool import Default
for module in (proto_stubs.view_pb2, proto_stubs.answers_pb2):
    try:
        Default().FindFileByName(module.DESCRIPTOR.name)
    except KeyError:
        continue
    raise SystemExit(module.DESCRIPTOR.name)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)
