"""Tempo's WAL seen from outside. That Tempo reads a mended block is shown in test_managed."""

from __future__ import annotations

import datetime
import json

import pytest

from gateway.tempo.wal import WIDEST, Wal

BLOCK = "64c048c1-18dd-48bc-9ae3-9fe683721fb6+single-tenant+vParquet4"
META = {
    "format": "vParquet4",
    "startTime": "2026-11-22T15:26:49Z",
    "dedicatedColumns": [{"n": "a"}],
}


@pytest.fixture
def wal(tmp_path):
    wal = Wal(tmp_path / "wal", tmp_path / "copies")
    (wal.folder / "blocks").mkdir(parents=True)  # finished blocks, not part of the log
    return wal


def add_block(wal: Wal, name: str = BLOCK, *, meta: str | None = json.dumps(META)):
    block = wal.folder / name
    block.mkdir()
    (block / "0000000001").write_bytes(b"")
    if meta is not None:
        (block / "meta.json").write_text(meta)
    return block


def test_a_new_file_in_a_block_is_the_end_of_a_flush(wal):
    block = add_block(wal)
    before = wal.pages()
    (block / "0000000010").write_bytes(b"")
    assert before == {"single-tenant": {BLOCK: 1}}
    assert wal.pages() == {"single-tenant": {BLOCK: 10}}


def test_writing_to_what_is_there_is_no_end_of_a_flush(wal):
    block = add_block(wal, meta=None)
    before = wal.pages()
    (block / "0000000001").write_bytes(b"data")
    (block / "meta.json").write_text("{}")
    assert wal.pages() == before


def test_blocks_are_told_by_tenant(wal):
    for name in ("1+a+b+vParquet4", "2+a+b+vParquet4", "3+c+vParquet3"):
        add_block(wal, name)
    (wal.folder / "4+c+vParquet3").mkdir()
    assert wal.pages() == {
        "a+b": {"1+a+b+vParquet4": 1, "2+a+b+vParquet4": 1},
        "c": {"3+c+vParquet3": 1, "4+c+vParquet3": 0},
    }


def test_without_a_wal_there_is_nothing_to_see_or_mend(tmp_path):
    wal = Wal(tmp_path / "absent", tmp_path / "copies")
    assert wal.pages() == {}
    wal.keep_copies()
    wal.mend()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("torn", ["", '{"format":"vPar', "[1]", None])
def test_a_torn_meta_is_put_back_with_the_widest_time_range(wal, torn):
    block = add_block(wal)
    wal.keep_copies()
    (block / "meta.json").unlink()
    if torn is not None:
        (block / "meta.json").write_text(torn)
    wal.mend()
    mended = json.loads((block / "meta.json").read_text())
    assert mended["dedicatedColumns"] == META["dedicatedColumns"]
    start, end = (datetime.datetime.fromisoformat(mended[k]) for k in ("startTime", "endTime"))
    assert end - start == WIDEST
    assert abs((datetime.datetime.now(datetime.UTC) - end).total_seconds()) < 100
    assert sorted(path.name for path in block.iterdir()) == ["0000000001", "meta.json"]


def test_a_whole_meta_is_left_alone(wal):
    block = add_block(wal)
    wal.keep_copies()
    newer = json.dumps(META | {"totalObjects": 7})
    (block / "meta.json").write_text(newer)
    wal.mend()
    assert (block / "meta.json").read_text() == newer


def test_a_torn_meta_is_not_copied(wal):
    block = add_block(wal, meta="")
    wal.keep_copies()
    wal.mend()
    assert (block / "meta.json").read_text() == ""
    (block / "meta.json").write_text(json.dumps(META))
    wal.keep_copies()
    assert json.loads((wal.copies / BLOCK).read_text()) == META


def test_copies_of_blocks_that_are_gone_are_forgotten(wal):
    block = add_block(wal)
    wal.keep_copies()
    for path in block.iterdir():
        path.unlink()
    block.rmdir()
    wal.keep_copies()
    assert not list(wal.copies.iterdir())
