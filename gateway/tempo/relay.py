"""Passes the lines of a child on to the log, at their level and at a bounded rate."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque

from gateway.telemetry.logs import facts

LINES_PER_S = 100
LAST_LINES = 20
LINE_CHARS = 2000

_LEVEL = re.compile(r"\blevel=(\w+)")
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.ERROR,
}


class LogRelay:
    """Relays one child's output. Keeps its last lines, for telling why it died."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger = logging.getLogger(name)
        self._second = 0
        self._in_second = 0
        self._kept_quiet = 0
        self.last: deque[str] = deque(maxlen=LAST_LINES)

    async def relay(self, stream: asyncio.StreamReader) -> None:
        """Until the child closes ``stream``. Lines of any length, in pieces of LINE_CHARS."""
        rest = b""
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line)
            while len(rest) > LINE_CHARS:
                self._take(rest[:LINE_CHARS])
                rest = rest[LINE_CHARS:]
        if rest:
            self._take(rest)

    def _take(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").strip()[:LINE_CHARS]
        if not line:
            return
        self.last.append(line)
        if self._too_fast():
            self._kept_quiet += 1
            return
        match = _LEVEL.search(line)
        level = _LEVELS.get(match[1].lower() if match else "", logging.INFO)
        quiet, self._kept_quiet = self._kept_quiet, 0
        self._logger.log(level, self._name, extra=facts(line=line, kept_quiet=quiet or None))

    def _too_fast(self) -> bool:
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second > LINES_PER_S
