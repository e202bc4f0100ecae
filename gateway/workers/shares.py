"""What each of several workers gets. Pure.

Ports are shared, all else is divided: each worker has a part of the memory, and a spool of its own
with a part of the disk. The first has the directory that a gateway of one process has, so that
nothing is left behind when the number of workers changes to one and back.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from gateway.settings import Settings

_SPOOL = "spool"
_ANOTHER = re.compile(r"spool-([1-9]\d*)")


def share_of(settings: Settings, count: int, *, memory_bytes: int) -> Settings:
    """The settings of one of ``count`` workers; ``memory_bytes`` is the budget of all of them."""
    return dataclasses.replace(
        settings,
        memory_bytes=memory_bytes // count,
        spool_bytes=settings.spool_bytes // count,
    )


def spool_name(number: int) -> str:
    """Directory under the data directory of worker ``number``, the first of which is 0."""
    return f"{_SPOOL}-{number}" if number else _SPOOL


def orphans(names: Iterable[str], number: int, count: int) -> list[str]:
    """Those of ``names`` that are spools of workers beyond ``count``, which there were once, as far
    as worker ``number`` is to take them over: they are shared out.
    """
    found = []
    for name in names:
        match = _ANOTHER.fullmatch(name)
        if match and (owner := int(match[1])) >= count and owner % count == number:
            found.append((owner, name))
    return [name for _, name in sorted(found)]
