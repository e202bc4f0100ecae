"""What was worked out lately, bounded in bytes."""

from __future__ import annotations

_ENTRY_BYTES = 150
"""What an entry takes beside its content: two objects and their place in a table."""


class Memo:
    """Results by their sources.

    When half of ``max_bytes`` is taken, what was not asked for since that happened last is
    forgotten: what is in use stays, however much comes by that is never seen again.
    """

    __slots__ = ("_half_bytes", "_longest", "_older", "_size", "recent")

    def __init__(self, max_bytes: int, *, longest: int) -> None:
        """Sources of more than ``longest`` bytes are not kept."""
        self.recent: dict[bytes, bytes] = {}
        """To be asked first: what is not found here may still be found by ``find``."""
        self._half_bytes = max_bytes // 2
        self._longest = longest
        self._older: dict[bytes, bytes] = {}
        self._size = 0

    def find(self, source: bytes) -> bytes | None:
        """What is known of a source that is not in ``recent``, where it is from now on."""
        if source not in self._older:
            return None
        known = self._older[source]
        self.keep(source, known)
        return known

    def keep(self, source: bytes, result: bytes) -> None:
        """Of a source that was not known."""
        if len(source) > self._longest:
            return
        size = len(source) + len(result) + _ENTRY_BYTES
        if self._size + size > self._half_bytes:
            self._older, self.recent = self.recent, {}
            self._size = 0
        self._size += size
        self.recent[source] = result
