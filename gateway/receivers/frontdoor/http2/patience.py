"""How much work without use a peer may make; pure.

Frames such as PING, SETTINGS, RST_STREAM and WINDOW_UPDATE cost us work and bring no request
nearer. Each has honest uses (a client measures its bandwidth with a ping per answer, and cancels
calls whose deadline has passed), so they are counted against time and against answers, and only
what is left over is held against the peer: rapid reset (CVE-2023-44487), floods of PING, SETTINGS,
empty frames.
"""

from __future__ import annotations

_BURST = 1000
_PER_SECOND = 100
_PER_ANSWER = 4


class Patience:
    """Counts the chores of one connection. ``answers`` is all that the connection has answered."""

    __slots__ = ("_answers", "_chores", "_since")

    def __init__(self, now: float) -> None:
        self._chores = 0
        self._since = now
        self._answers = 0

    def is_over(self, now: float, answers: int) -> bool:
        """Count one chore; True if it is one too many."""
        self._chores += 1
        if self._chores <= _BURST:
            return False
        earned = (now - self._since) * _PER_SECOND + (answers - self._answers) * _PER_ANSWER
        self._chores -= min(self._chores, int(earned))
        self._since, self._answers = now, answers
        return self._chores > _BURST
