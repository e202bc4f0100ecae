"""Small pieces of a body, joined; pure."""

from __future__ import annotations

_WORTH_BYTES = 512


class Gathered:
    """Pieces of a body, joined until they are worth passing on.

    A peer may send a byte at a time; kept one by one such pieces would take forty times their
    size in memory.
    """

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces = bytearray()

    def add(self, piece: bytes) -> bytes:
        """What is to be passed on now; empty if nothing is yet."""
        if not self._pieces and len(piece) >= _WORTH_BYTES:
            return piece
        self._pieces += piece
        return self.rest() if len(self._pieces) >= _WORTH_BYTES else b""

    def rest(self) -> bytes:
        rest = bytes(self._pieces)
        self._pieces.clear()
        return rest
