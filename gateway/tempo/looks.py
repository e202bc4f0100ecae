"""One look at a child: does it answer, is it ready, does it bring its memory to disk in time?"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiohttp

from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

TIMEOUT_S = 2.0
_REASON_BYTES = 300

Check = Callable[[aiohttp.ClientSession, str], Awaitable[bool]]
"""Given a session and the child's base URL."""


class Look(NamedTuple):
    """What one look has shown."""

    answered: bool
    fault: str | None
    """Why it is not ready, None where it is."""
    flushing: bool = False
    """It keeps up with bringing its memory to disk."""


def open_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))


async def look_at(session: aiohttp.ClientSession, base_url: str, keeps_up: Check | None) -> Look:
    """Ask ``/ready`` and, of a ready child, ``keeps_up``. Never raises for what it finds."""
    try:
        async with session.get(f"{base_url}/ready") as answer:
            text = (await answer.content.read(_REASON_BYTES)).decode(errors="replace").strip()
    except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
        return Look(answered=False, fault=f"it does not answer ({type(error).__name__})")
    if answer.status != 200:
        return Look(answered=True, fault=text or f"it answers {answer.status}")
    if keeps_up is None:
        return Look(answered=True, fault=None, flushing=True)
    try:
        return Look(answered=True, fault=None, flushing=await keeps_up(session, base_url))
    except (aiohttp.ClientError, OSError) as error:
        logger.debug("flushes not seen", extra=facts(error=repr(error)))
        return Look(answered=True, fault=None)
