"""An envelope with its place in the spool."""

from __future__ import annotations

from typing import NamedTuple

from gateway.envelope import Envelope


class Record(NamedTuple):
    """``sequence`` grows by one with each accepted envelope, over restarts too where there is a
    disk spool.
    """

    sequence: int
    envelope: Envelope
