"""Why a child has probably died, read from what it said. Pure.

The texts are those of Tempo 2.4.0, 2.10.8 and 3.0.3, of Go's runtime and of Python.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_REASONS = (
    ("port", r"address already in use", "a port that it needs is taken"),
    ("key", r"field \S+ not found in type", "its configuration has a key it does not know"),
    ("config", r"failed parsing config|yaml: ", "its configuration cannot be read"),
    ("disk", r"no space left on device|disk quota exceeded", "the disk is full"),
    ("readonly", r"read-only file system", "the disk is read-only"),
    ("permission", r"permission denied", "it may not use one of its files"),
    ("memory", r"out of memory|cannot allocate memory|MemoryError", "it ran out of memory"),
    ("stack", r"stack exceeds \d+-byte limit|stack overflow", "it overflowed its stack"),
    (
        "bucket",
        r"NoSuchBucket|specified bucket does not exist",
        "its bucket does not exist (TEMPO_S3_BUCKET)",
    ),
    (
        "keys",
        r"AccessKeyId|SignatureDoesNotMatch|Access ?Denied|failed to get credentials",
        "its object storage refuses the keys (TEMPO_S3_ACCESS_KEY, TEMPO_S3_SECRET_KEY)",
    ),
    (
        "tls",
        r"HTTP response to HTTPS client|TLS handshake|x509: ",
        "its object storage does not speak TLS that it trusts (TEMPO_S3_ENDPOINT, SSL_CERT_FILE)",
    ),
    (
        "storage",
        r"unexpected error from ListObjects",
        "its object storage cannot be reached (TEMPO_S3_ENDPOINT)",
    ),
    ("binary", r"cannot run the program|exec format error", "the program cannot be run here"),
    ("crash", r"^panic: |^fatal error: |^Traceback ", "it crashed"),
)
"""In the order in which they are believed."""

_ANY = re.compile("|".join(pattern for _, pattern, _ in _REASONS), re.IGNORECASE)
_EACH = {key: re.compile(pattern, re.IGNORECASE) for key, pattern, _ in _REASONS}
_RANKS = {key: rank for rank, key in enumerate(_EACH)}
_WORDS = {key: words for key, _, words in _REASONS}


class Clue(NamedTuple):
    """A line that tells why."""

    key: str
    """``port``, ``disk`` and so on."""
    line: str
    at: float
    """When it was said, seconds of a monotonic clock."""


CLUE_LIFE_S = 10.0
"""A clue older than this at the child's end has nothing to do with it."""


def weigh(best: Clue | None, line: str, now: float) -> Clue | None:
    """The best clue after one more line. The decisive line is often the first of many: a port
    clash is followed by the complaints of all that has to stop, a panic by pages of stacks.
    """
    if not _ANY.search(line):  # nearly all lines
        return best
    clue = Clue(next(key for key, pattern in _EACH.items() if pattern.search(line)), line, now)
    if best is None or now - best.at > CLUE_LIFE_S or _RANKS[clue.key] < _RANKS[best.key]:
        return clue
    return best


def likely_reason(clue: Clue | None, exit_code: int, now: float) -> str:
    """Words for people; ``exit_code`` is negative for a signal, as Python gives it."""
    if clue is not None and now - clue.at <= CLUE_LIFE_S:
        return _WORDS[clue.key]
    if exit_code == -9:
        return "it was killed, perhaps since memory ran out"
    if exit_code < 0:
        return f"it was ended by signal {-exit_code}"
    if exit_code == 0:
        return "it ended by itself, which Tempo does with code 0 even when its start has failed"
    return f"it ended with code {exit_code}"
