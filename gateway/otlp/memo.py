"""What was worked out lately, bounded in bytes."""

from __future__ import annotations

_ENTRY_BYTES = 150
"""What an entry takes beside its content: two objects and their place in a table."""


class Memo(dict[bytes, bytes | None]):
    """Results by their sources: ``memo[source]`` is None for what is not known. A dict, since
    finding something in it then runs no Python code.

    When half of ``max_bytes`` is taken, what was not asked for since that happened last is
    forgotten: what is in use stays, however much comes by that is never seen again.
    """

    __slots__ = ("_half_bytes", "_longest", "_older", "_size")

    def __init__(self, max_bytes: int, *, longest: int) -> None:
        """Sources of more than ``longest`` bytes are not kept."""
        self._half_bytes = max_bytes // 2
        self._longest = longest
        self._older: dict[bytes, bytes | None] = {}
        self._size = 0

    def __missing__(self, source: bytes) -> bytes | None:
        known = self._older.get(source)
        if known is not None:
            self.keep(source, known)
        return known

    def keep(self, source: bytes, result: bytes) -> None:
        if len(source) > self._longest:
            return
        size = len(source) + len(result) + _ENTRY_BYTES
        if self._size + size > self._half_bytes:
            self._older = dict(self)
            self.clear()
            self._size = 0
        self._size += size
        self[source] = result
