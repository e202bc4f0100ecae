"""When a connection has to do something because time has passed; pure."""

from __future__ import annotations

from enum import Enum, auto

from gateway.receivers.frontdoor.wire import Timing

_DRAIN_ANSWER_S = 1.0
"""For the peer to answer the ping behind the first GOAWAY."""


class Due(Enum):
    """What is to be done now."""

    GIVE_UP = auto()
    """The peer does not finish what it has begun."""
    ABORT = auto()
    """The peer is gone."""
    PING = auto()
    DRAIN = auto()
    """Send the first GOAWAY."""
    LAST_WORD = auto()
    """Send the second GOAWAY."""
    CUT = auto()
    """End the calls that still go on."""


class Lifetime:
    """The clocks of one connection."""

    def __init__(self, timing: Timing, now: float, *, retire_at: float) -> None:
        self._timing = timing
        self._began = now
        self._retire_at = retire_at
        self._unfinished_since: float | None = None
        self._pinged_at: float | None = None
        self.heard_at = now
        """When the last bytes came."""
        self.used_at = now
        """When the last call began."""
        self.drain_at: float | None = None
        """When the first GOAWAY was sent."""

    def heard(self, now: float, *, finished: bool, progress: bool) -> None:
        """Bytes came; whether no frame is left unfinished, and whether one was finished."""
        self.heard_at = now
        self._pinged_at = None
        if finished:
            self._unfinished_since = None
        elif progress or self._unfinished_since is None:
            self._unfinished_since = now

    def due(self, now: float, *, busy: bool, greeted: bool, block_since: float | None) -> list[Due]:
        """What is to be done, in order. ``block_since``: when an unfinished header block began."""
        if self._is_too_slow(now, greeted=greeted, block_since=block_since):
            return [Due.GIVE_UP]
        return [*self._ping(now), *self._drain(now, busy=busy)]

    def _is_too_slow(self, now: float, *, greeted: bool, block_since: float | None) -> bool:
        timing, since = self._timing, self._unfinished_since
        if block_since is not None:
            return now - block_since > timing.head_s
        if not greeted:
            return now - self._began > timing.head_s
        if since is None:
            return False
        return now - since > timing.body_s or now - self.heard_at > timing.body_idle_s

    def _ping(self, now: float) -> list[Due]:
        if self._pinged_at is None:
            if now - self.heard_at <= self._timing.ping_after_s:
                return []
            self._pinged_at = now
            return [Due.PING]
        return [Due.ABORT] if now - self._pinged_at > self._timing.ping_timeout_s else []

    def _drain(self, now: float, *, busy: bool) -> list[Due]:
        if self.drain_at is None:
            idle = not busy and now - self.used_at > self._timing.idle_s
            return [Due.DRAIN] if idle or now > self._retire_at else []
        draining_s = now - self.drain_at
        if busy and draining_s > self._timing.age_grace_s:
            return [Due.LAST_WORD, Due.CUT]
        return [Due.LAST_WORD] if draining_s > _DRAIN_ANSWER_S else []
