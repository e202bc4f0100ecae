"""The share of the memory budget that one request holds."""

from __future__ import annotations

from gateway.access.budget import MemoryBudget
from gateway.errors import Cause, Refused
from gateway.otlp.media import Media

RETRY_AFTER_S = 1.0
"""Requests hold memory for milliseconds; what fills the budget for longer is the pipeline's queue,
and the pipeline names a delay of its own."""

LEAST_FACTOR = 2
"""Any body is held in pieces and once whole, then whole and cut into pieces."""

_PARSED_FACTOR = 4
_MOST_PARSED_BYTES = 14 * 2**20
"""Protobuf is parsed a piece at a time: measured up to 3.7 times the size of a piece, and pieces
have up to 3 MiB, so bodies of 14 and 27 MB took no more than one of 3 MB beside their copy."""

_JSON_FACTOR = 4
_JSON_ELEMENT_BYTES = 220
"""JSON takes 3.5 times its size as SDKs write it, and far more where it consists of tiny elements:
each, and so each comma, has become up to this much."""


def decoding_bytes(body: bytes, media: Media) -> int:
    """Most memory that decoding takes at once, ``body`` included; an estimate from above."""
    if media is Media.PROTOBUF:
        return LEAST_FACTOR * len(body) + min(_PARSED_FACTOR * len(body), _MOST_PARSED_BYTES)
    return _JSON_FACTOR * len(body) + _JSON_ELEMENT_BYTES * body.count(b",")


class Reservation:
    """Bytes held of a budget: grown while the request comes in, released when it is answered."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.size = 0
        """Bytes held."""

    def check_possible(self, size: int) -> None:
        """Raises Refused for a size that the budget cannot hold even when nothing else does."""
        if size > self._budget.limit:
            raise Refused(
                Cause.TOO_LARGE,
                f"a request such as this takes {size} bytes of memory to handle, and the gateway"
                f" may use {self._budget.limit} (GATEWAY_MEMORY_BYTES); send smaller batches",
            )

    def check_room(self, size: int) -> None:
        """Raises Refused for a size that the budget has no room for at present."""
        if size > self._budget.limit - self._budget.used:
            raise _no_room()

    def grow(self, size: int) -> None:
        """Hold at least ``size`` bytes from now on. Raises Refused, then holding what it held."""
        more = size - self.size
        if more <= 0:
            return
        if not self._budget.try_reserve(more):
            raise _no_room()
        self.size = size

    def shrink(self, size: int) -> None:
        """Hold at most ``size`` bytes from now on."""
        less = self.size - size
        if less > 0:
            self._budget.release(less)
            self.size = size

    def release(self) -> None:
        self.shrink(0)


def _no_room() -> Refused:
    return Refused(
        Cause.MEMORY_FULL,
        "all memory for requests is in use (GATEWAY_MEMORY_BYTES); send again later",
        retry_after_s=RETRY_AFTER_S,
    )
