"""Passes the lines of a child on to the log, at their level and at a bounded rate."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from gateway.telemetry.logs import facts

LINES_PER_S = 100
LAST_LINES = 20
LINE_BYTES = 2000
_READ_BYTES = 65536

_PAIR = re.compile(r'([\w.]+)=("(?:[^"\\]|\\.)*"|\S*)')
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.ERROR,
}
_OURS = frozenset({"ts", "level", "msg", "logger", "caller"})
"""Fields that our own line has already, or that speak of the child's source code."""


class Line(NamedTuple):
    """One line of a child's log."""

    level: int
    message: str
    fields: dict[str, str]


def parse(text: str) -> Line:
    """Logfmt as its fields; a line without a level as it is, at WARNING: programs that speak in
    levels fall out of them only in trouble (a panic, a traceback, a fault in the settings).
    """
    fields = {key: _plain(value) for key, value in _PAIR.findall(text)}
    level = _LEVELS.get(fields.get("level", "").lower())
    if level is None:
        return Line(logging.WARNING, text, {})
    message = fields.get("msg") or text
    return Line(level, message, {k: v for k, v in fields.items() if k not in _OURS})


def _plain(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value.strip('"')


class LogRelay:
    """Relays one child's output. Keeps its last lines, for telling why it died."""

    def __init__(self, name: str, heard: Callable[[str], None]) -> None:
        """``heard`` is called with each line, also with those that the log is spared."""
        self._logger = logging.getLogger(name)
        self._heard = heard
        self._second = 0
        self._in_second = 0
        self._kept_quiet = 0
        self.last: deque[str] = deque(maxlen=LAST_LINES)

    async def relay(self, stream: asyncio.StreamReader) -> None:
        """Until the child closes ``stream``. Longer lines are cut."""
        rest = b""
        while data := await stream.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line)
            rest = rest[:LINE_BYTES]
        self._take(rest)

    def _take(self, raw: bytes) -> None:
        text = raw[:LINE_BYTES].decode(errors="replace").strip()
        if not text:
            return
        self.last.append(text)
        self._heard(text)
        if self._too_fast():
            self._kept_quiet += 1
            return
        line = parse(text)
        quiet, self._kept_quiet = self._kept_quiet, 0
        self._logger.log(
            line.level, line.message, extra=facts(**line.fields | {"kept_quiet": quiet or None})
        )

    def _too_fast(self) -> bool:
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second > LINES_PER_S
