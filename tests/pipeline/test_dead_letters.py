from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from gateway.pipeline.dead_letters import PAYLOAD_SUFFIX, REASON_SUFFIX, DeadLetterFolder
from tests.kit.disks import file_size_limit


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "dead-letters"


@pytest.fixture
def folder(directory):
    return DeadLetterFolder(directory, max_bytes=120_000)


async def keep(folder: DeadLetterFolder, payload: bytes, *, reason: str = "bad") -> None:
    await folder.keep("shop", payload, spans=3, reason=reason)


def payloads(directory: Path) -> list[bytes]:
    """Oldest first."""
    return [path.read_bytes() for path in sorted(directory.glob("*" + PAYLOAD_SUFFIX))]


def assert_in_pairs(directory: Path) -> None:
    names = {path.name for path in directory.iterdir()}
    stems = {name.rpartition(".")[0] for name in names}
    assert names == {stem + suffix for stem in stems for suffix in (PAYLOAD_SUFFIX, REASON_SUFFIX)}


async def test_a_payload_is_kept_as_it_is_with_the_reason_beside_it(directory, folder):
    await folder.keep("shop", b"\x00payload", spans=3, reason="INVALID_ARGUMENT: bad id")
    (path,) = directory.glob("*" + PAYLOAD_SUFFIX)
    assert path.read_bytes() == b"\x00payload"
    told = json.loads(path.with_suffix(REASON_SUFFIX).read_text())
    assert told.pop("at")
    assert told == {"tenant": "shop", "spans": 3, "reason": "INVALID_ARGUMENT: bad id"}
    assert_in_pairs(directory)


async def test_only_the_owner_may_read_it(directory, folder):
    await keep(folder, b"payload")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


async def test_beyond_the_limit_the_oldest_go_with_their_reasons(directory, folder):
    for number in range(10):
        await keep(folder, b"%d" % number * 30_000)
    assert [payload[:1] for payload in payloads(directory)] == [b"7", b"8", b"9"]
    assert_in_pairs(directory)


async def test_many_small_ones_are_bounded_too_by_what_they_take_on_disk(directory, folder):
    for number in range(100):
        await keep(folder, b"%d" % number)
    kept = payloads(directory)
    assert len(kept) == 14
    assert kept[-1] == b"99"
    assert_in_pairs(directory)


async def test_what_is_given_up_again_replaces_itself(directory, folder):
    await keep(folder, b"payload", reason="first")
    await keep(folder, b"other")
    await keep(folder, b"payload", reason="second")
    assert payloads(directory) == [b"other", b"payload"]
    newest = max(directory.glob("*" + REASON_SUFFIX))
    assert json.loads(newest.read_text())["reason"] == "second"
    assert_in_pairs(directory)


async def test_one_that_is_larger_than_the_folder_costs_the_others_nothing(
    directory, folder, caplog
):
    await keep(folder, b"payload")
    await keep(folder, b"x" * 120_001)
    assert payloads(directory) == [b"payload"]
    (record,) = caplog.records
    assert record.getMessage() == "dead letter not stored"
    assert record.facts["spans"] == 3
    assert "120001 bytes" in record.facts["error"]


async def test_a_disk_that_fails_is_logged_and_leaves_no_half_letter(directory, folder, caplog):
    await keep(folder, b"payload")
    with file_size_limit(2**14):
        await keep(folder, b"x" * 2**15)
    assert [record.getMessage() for record in caplog.records] == ["dead letter not stored"]
    assert payloads(directory) == [b"payload"]
    await keep(folder, b"y" * 2**15)
    assert len(payloads(directory)) == 2
    assert_in_pairs(directory)


async def test_a_folder_that_cannot_be_made_is_logged(tmp_path, caplog):
    (tmp_path / "file").touch()
    await keep(DeadLetterFolder(tmp_path / "file" / "letters", max_bytes=1000), b"payload")
    assert [record.getMessage() for record in caplog.records] == ["dead letter not stored"]


async def test_many_at_once_do_not_get_into_each_others_way(directory, folder, caplog):
    await asyncio.gather(*(keep(folder, b"%d" % (n % 8) * 20_000) for n in range(64)))
    assert caplog.records == []
    assert len(payloads(directory)) == 4
    assert_in_pairs(directory)


async def test_files_of_others_are_left_alone(directory, folder):
    directory.mkdir()
    (directory / "README").write_text("mine")
    for number in range(10):
        await keep(folder, b"%d" % number * 30_000)
    assert (directory / "README").read_text() == "mine"
