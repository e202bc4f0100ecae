"""Why a child has probably died, read from its last lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_REASONS = (
    (r"address already in use|bind: ", "a port it needs is taken"),
    (r"field \S+ not found in type", "its configuration has a key that this version does not know"),
    (r"failed parsing config|error loading config|yaml: ", "its configuration cannot be read"),
    (r"no space left on device", "the disk is full"),
    (r"permission denied", "it may not read or write one of its files"),
    (r"read-only file system", "the disk is read-only"),
    (r"out of memory|cannot allocate memory", "it ran out of memory"),
    (r"stack exceeds|goroutine stack", "it overflowed its stack"),
    (r"unknown (block|encoding)|unsupported.*vParquet", "its blocks are of a newer version"),
    (
        r"no such bucket|NoSuchBucket|InvalidAccessKeyId|SignatureDoesNotMatch",
        "its S3 storage refuses",
    ),
    (r"No module named|exec format error|No such file", "the program cannot be run here"),
    (r"^panic:|fatal error:", "it crashed"),
)
"""Patterns in the order in which they are believed."""

SIGKILL_REASON = "it was killed, perhaps since the container ran out of memory"


def likely_reason(lines: Sequence[str], exit_code: int) -> str:
    """Words for people; ``exit_code`` is negative for a signal, as Python gives it."""
    if exit_code == -9:
        return SIGKILL_REASON
    for pattern, reason in _REASONS:
        expression = re.compile(pattern, re.IGNORECASE)
        if any(expression.search(line) for line in lines):
            return reason
    if exit_code < 0:
        return f"it was ended by signal {-exit_code}"
    if exit_code == 0:
        return "it ended by itself, which Tempo does with code 0 even when its start has failed"
    return f"it ended with code {exit_code}"
