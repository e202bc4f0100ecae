"""A child's lines in our log."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc

import pytest

from gateway.tempo.relay import LINE_BYTES, LINES_PER_S, LogRelay, parse


@pytest.mark.parametrize(
    ("line", "level", "message", "fields"),
    [
        (
            'level=warn ts=2026-11-22T15:28:50Z caller=wal.go:116 msg="unowned file" file=blocks',
            logging.WARNING,
            "unowned file",
            {"file": "blocks"},
        ),
        (
            r'level=error msg="module \"x\" failed" err="a=b \"c\""',
            logging.ERROR,
            'module "x" failed',
            {"err": 'a=b "c"'},
        ),
        ("level=info caller=x.go:1 err=null", logging.INFO, None, {"err": "null"}),
        ("level=debug msg=hi", logging.DEBUG, "hi", {}),
        ('level=info msg="broken \\q quote"', logging.INFO, "broken \\q quote", {}),
    ],
)
def test_logfmt_is_taken_apart(line, level, message, fields):
    assert parse(line) == (level, message or line, fields)


@pytest.mark.parametrize(
    "line", ["panic: oh no", "goroutine 1 [running]:", "failed parsing config"]
)
def test_a_line_without_a_level_is_a_warning(line):
    assert parse(line) == (logging.WARNING, line, {})


async def relayed(data: bytes) -> tuple[LogRelay, list[str]]:
    heard: list[str] = []
    relay = LogRelay("tempo", heard.append)
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    await relay.relay(reader)
    return relay, heard


async def test_lines_keep_their_level_and_fields(caplog):
    caplog.set_level(logging.DEBUG)
    await relayed(b'level=error msg="disk full" disk=/data\nlevel=debug msg=x\npanic: y')
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("tempo", "ERROR", "disk full"),
        ("tempo", "DEBUG", "x"),
        ("tempo", "WARNING", "panic: y"),
    ]
    assert caplog.records[0].facts == {"disk": "/data"}


async def test_a_flood_is_heard_but_not_logged(caplog):
    caplog.set_level(logging.INFO)
    count = 50 * LINES_PER_S
    relay, heard = await relayed(b"level=info msg=flood\n" * count)
    assert len(heard) == count
    assert LINES_PER_S <= len(caplog.records) < count / 2
    assert len(relay.last) < 100


async def test_a_long_line_is_cut_and_the_next_one_whole(caplog):
    caplog.set_level(logging.INFO)
    _, heard = await relayed(b"x" * 300_000 + b"\nlevel=info msg=after\n")
    assert [len(line) for line in heard] == [LINE_BYTES, len("level=info msg=after")]


async def test_bytes_that_are_no_text_are_taken():
    _, heard = await relayed(b"\xff\xfe\x00 \n\n\n")
    assert len(heard) == 1


async def test_a_line_without_end_takes_no_memory():
    class Endless(asyncio.StreamReader):
        left = 1000

        async def read(self, n: int = -1) -> bytes:
            self.left -= 1
            return b"x" * n if self.left else b""

    tracemalloc.start()
    await LogRelay("tempo", lambda line: None).relay(Endless())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20
