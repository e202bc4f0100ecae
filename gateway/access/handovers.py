"""What a stopping gateway hands over to another: how it is marked, and taken once. Pure.

A request so marked holds spans that were counted when the first gateway took them, so the second
one counts them as recovered, as it does those of a spool that it finds. Its answer is the receipt:
the first one then lets go of them. Where the answer is lost they are sent again, with the same
mark, and the second gateway knows it.

There are no loops to be cut: a gateway hands over once, at its end, when it takes nothing any more.
So spans go from one to the next no more often than gateways end, and each of those hops is wanted,
since the disk ends too.
"""

from __future__ import annotations

import hashlib

HEADER = "x-gateway-handover"

REMEMBERED = 4096
"""Handovers that are known again: 12 GiB of whole batches, far more than one stop has time for."""
_ID_CHARS = 64


def id_of(payload: bytes) -> str:
    """The same for the same spans, so that each attempt has it."""
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


class Handovers:
    """Those taken lately, by tenant and id. The oldest are forgotten."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._taken: dict[tuple[str, str], None] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def knows(self, tenant: str, handover: str) -> bool:
        return (tenant, handover) in self._taken

    def note(self, tenant: str, handover: str) -> None:
        """It is taken. Ids that are longer than ours are not remembered."""
        if len(handover) > _ID_CHARS:
            return
        self._taken[tenant, handover] = None
        if len(self._taken) > self._most:
            del self._taken[next(iter(self._taken))]
