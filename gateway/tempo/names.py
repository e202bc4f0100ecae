"""One name with several addresses as one exporter.

The libraries have ways of their own for that, and neither of them does: grpcio looks a name up
again only when a connection breaks, so it finds no new address while the old ones serve, and
aiohttp keeps to the connection that it has. Here the name is looked up every few seconds,
deliveries go round all addresses, and one that is away rests.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Collection

from gateway.envelope import Outcome
from gateway.errors import GrpcCode
from gateway.tempo.balance import BalancedExporter
from gateway.tempo.client import OtlpExporter
from gateway.tempo.outcomes import outcome_of

LOOKUP_S = 5.0
"""Between two looks, as long as a platform's private network lets its records live."""
LOOKUP_TIMEOUT_S = 2.0
MOST_ADDRESSES = 64

Lookup = Callable[[str, int], Awaitable[Collection[str]]]
"""The addresses of a host that is to be reached on a port. Raises OSError."""


async def look_up(host: str, port: int) -> Collection[str]:
    """As the system does, in its order."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return dict.fromkeys(str(address[0]) for *_, address in found)


class NamedExporter:
    """Delivers to all the addresses of ``host``. Where a look fails, the addresses stay that were
    found before.
    """

    def __init__(
        self,
        host: str,
        port: int,
        make: Callable[[str], OtlpExporter],
        *,
        lookup: Lookup = look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``make`` gives the exporter to one address."""
        self._host = host
        self._port = port
        self._make = make
        self._lookup = lookup
        self._clock = clock
        self._balanced = BalancedExporter({}, clock)
        self._looking = asyncio.Lock()
        self._look_at = 0.0

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        fault = await self._refresh()
        if not self._is_known:
            return outcome_of(GrpcCode.UNAVAILABLE, f"{self._host} has no address: {fault}")
        return await self._balanced.export(tenant, payload, timeout_s=timeout_s)

    async def close(self) -> None:
        await self._balanced.close()

    async def _refresh(self) -> str:
        """Look the name up if it is time to; says what went wrong. Whoever comes meanwhile goes
        on with what is known, if anything is.
        """
        if self._is_known and (self._clock() < self._look_at or self._looking.locked()):
            return ""
        async with self._looking:
            if self._is_known and self._clock() < self._look_at:
                return ""  # somebody else has just looked
            self._look_at = self._clock() + LOOKUP_S
            try:
                async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                    found = list(await self._lookup(self._host, self._port))
            except TimeoutError:
                return f"no answer to the look-up in {LOOKUP_TIMEOUT_S:g} s"
            except OSError as error:
                return error.strerror or str(error)
            await self._follow(found[:MOST_ADDRESSES])
        return "" if self._is_known else "the look-up found none"

    @property
    def _is_known(self) -> bool:
        """Whether there is an address to deliver to."""
        return len(self._balanced) > 0

    async def _follow(self, found: Collection[str]) -> None:
        if not found:
            return
        known = set(self._balanced)
        for address in found:
            if address not in known:
                self._balanced.add(address, self._make(address))
        for address in known - set(found):
            await self._balanced.remove(address)
