"""Logs: one event a line on stderr, in logfmt or JSON.

An event is a short lower-case message and its facts: ``logger.info("listening", extra=facts(
protocol="grpc", port=4317))``. The message is chosen from a small vocabulary, so that people can
grep for it; what varies is in the facts.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
import time
from typing import Any, TextIO

_PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")
_LEVELS = {"WARNING": "warn", "CRITICAL": "error"}


def facts(**values: Any) -> dict[str, Any]:
    """The ``extra`` of a log call. ``None`` is left out."""
    return {"facts": {key: value for key, value in values.items() if value is not None}}


def _event(record: logging.LogRecord) -> dict[str, Any]:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    event: dict[str, Any] = {
        "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": _LEVELS.get(record.levelname, record.levelname.lower()),
        "msg": record.getMessage(),
        "logger": record.name,
    }
    event |= getattr(record, "facts", {})
    if record.exc_info and record.exc_info[1] is not None:
        event["exception"] = logging.Formatter().formatException(record.exc_info)
    return event


class LogfmtFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_logfmt(value)}" for key, value in _event(record).items())


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_event(record), default=str, ensure_ascii=False)


def _logfmt(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def configure(level: str, form: str, stream: TextIO | None = None, **always: Any) -> None:
    """Send everything that is logged in this process to ``stream`` (stderr) in this form. Each
    event has the facts ``always``.
    """

    def add_facts(record: logging.LogRecord) -> bool:
        record.facts = {**always, **getattr(record, "facts", {})}
        return True

    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(add_facts)
    handler.setFormatter(JsonFormatter() if form == "json" else LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These tell of each request or of their own retries at info; what matters of it we say.
    for chatty in ("aiohttp.access", "grpc", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Throttle:
    """Lets one event of a kind through per interval and counts the others.

    ``ready(kind)`` returns None when the event shall be kept quiet, else how many of its kind were
    kept quiet since the last. ``kind`` comes from a fixed set, so the memory is bounded.
    """

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._last: dict[str, float] = {}
        self._quiet: dict[str, int] = {}

    def ready(self, kind: str) -> int | None:
        now = time.monotonic()
        if now - self._last.get(kind, float("-inf")) < self._interval_s:
            self._quiet[kind] = self._quiet.get(kind, 0) + 1
            return None
        self._last[kind] = now
        return self._quiet.pop(kind, 0)
