"""The head of the last request, and what it meant; pure.

A client sends the same head again and again, but for the value of Content-Length. So a head is kept
as the bytes around that value, and its like is compared instead of parsed and judged. (A head of
140 bytes: 0.6 us instead of 6.)
"""

from __future__ import annotations

import hmac
import re
from typing import NamedTuple

from gateway.receivers.ingest import Head
from gateway.receivers.whole import Pass

_MAX_HEAD_BYTES = 1024
"""Kept for each connection as long as that lasts."""

_MAX_DIGITS = 9
"""Of a length that is surely one number for everybody."""

# A value cannot hold a line break (llhttp refuses folded lines), so this is the field, and llhttp
# has seen to it that there is only one.
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)


class KnownHead(NamedTuple):
    """A head that was found in order."""

    before: bytes
    """All up to the value of Content-Length."""
    after: bytes
    """All from there to the body."""
    head: Head
    passed: Pass | None

    @classmethod
    def of(cls, data: bytes, head: Head, passed: Pass | None) -> KnownHead | None:
        """``data`` was parsed and is ``head``. None where it is not worth keeping."""
        length = _LENGTH.search(data)
        if length is None or len(data) > _MAX_HEAD_BYTES:
            return None
        return cls(data[: length.start(1)], data[length.end(1) :], head, passed)

    def find(self, data: bytes) -> tuple[int, int] | None:
        """Where the body begins, and its size, if ``data`` begins with this head."""
        before = self.before
        if not self._is_at(0, before, data):
            return None
        at = len(before)
        end = data.find(b"\r", at, at + _MAX_DIGITS + 1)
        digits = data[at:end]
        if end < 0 or not digits.isdigit() or not self._is_at(end, self.after, data):
            return None
        return end + len(self.after), int(digits)

    def _is_at(self, start: int, wanted: bytes, data: bytes) -> bool:
        # A proxy may send requests of several clients on one connection, and how long it takes
        # shall tell none of them how much it has in common with the token of another.
        if self.head.authorization:
            return hmac.compare_digest(data[start : start + len(wanted)], wanted)
        return data.startswith(wanted, start)
