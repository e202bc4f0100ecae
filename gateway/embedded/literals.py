"""Go's and TraceQL's ways to write strings, names and durations."""

from __future__ import annotations

import re

DURATION_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,  # micro sign
    "\u03bcs": 10**3,  # Greek mu
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
    "w": 7 * 86400 * 10**9,
    "y": 365 * 86400 * 10**9,
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?)([a-z\u00b5\u03bc]+)")
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPES |= {'"': '"', "\\": "\\"}
_QUOTED_PART = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)


def unquote_string(quoted: str) -> str:
    """A string in double quotes, with Go's escapes. Raises ValueError."""

    def character(match: re.Match[str]) -> str:
        byte, octal, short, long, other = match.groups()
        if other is not None:
            if other not in _ESCAPES:
                raise ValueError(f"invalid char escape \\{other}")
            return _ESCAPES[other]
        code = int(octal, 8) if octal else int(byte or short or long, 16)
        is_character = code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF
        return chr(code) if is_character else "\ufffd"

    return _ESCAPE.sub(character, quoted[1:-1])


def unquote_name(name: str) -> str:
    """``http."status code"`` -> ``http.status code``"""
    return _QUOTED_PART.sub(lambda part: re.sub(r'\\(["\\])', r"\1", part[1]), name)


def duration_ns(text: str) -> int:
    """``1h30m``, ``1.5ms`` -> nanoseconds. The text has been checked."""
    return sum(
        round(float(number) * DURATION_UNITS_NS[unit])
        for number, unit in _DURATION_PART.findall(text)
    )


def show_duration(nanoseconds: int) -> str:
    """As Go prints it: ``1h0m0.5s``, ``10ms``, ``1.5µs``, ``0s``."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, size in (("ns", 1), ("\u00b5s", 10**3), ("ms", 10**6)):
        if 0 < rest < size * 1000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, seconds = divmod(rest, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    prefix = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{prefix}{_decimal(seconds, 10**9)}s"


def _decimal(count: int, unit: int) -> str:
    whole, fraction = divmod(count, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{fraction:0{digits}d}".rstrip("0") if fraction else str(whole)
