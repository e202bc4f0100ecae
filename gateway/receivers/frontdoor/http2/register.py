"""The streams of one connection, those that live and those that still matter; pure."""

from __future__ import annotations

from gateway.receivers.frontdoor.http2.frames import ConnectionFault, ErrorCode, StreamFault
from gateway.receivers.frontdoor.http2.streams import ENDS, MOVES, Input, State, Stream

MAX_DISCARDED = 1000
"""How many streams we remember to have reset while the peer was sending."""

_DISCARDED = State.DISCARDED


class Register:
    """Knows the state of every stream that a frame may name."""

    def __init__(self) -> None:
        self.living: dict[int, Stream] = {}
        self.last_id = 0
        """The largest number that the peer has used; those below it are not idle any more."""
        self._discarded: dict[int, None] = {}

    def move(self, stream: Stream, what: Input) -> None:
        """The peer did this to a stream that lives. Raises StreamFault."""
        state = MOVES[stream.state][what]
        if isinstance(state, ErrorCode):
            raise StreamFault(state, f"{what.name} when {stream.state.name}")
        stream.state = state

    def stray(self, stream_id: int, what: Input) -> None:
        """The peer did this to a stream that does not live. Raises ConnectionFault."""
        if stream_id > self.last_id or not stream_id & 1:
            before = State.IDLE  # what was never opened, number 0 too
        elif stream_id in self._discarded:
            before = State.DISCARDED
        else:
            before = State.CLOSED
        state = MOVES[before][what]
        if isinstance(state, ErrorCode):
            raise ConnectionFault(state, f"{what.name} for stream {stream_id}, {before.name}")
        if before is State.DISCARDED and state is State.CLOSED:
            del self._discarded[stream_id]

    def end(self, stream: Stream, what: Input) -> None:
        """We have ended a stream: ANSWERED or DROPPED."""
        stream.state = ENDS[stream.state][what]
        self.remove(stream)

    def remove(self, stream: Stream) -> None:
        """The stream has ended."""
        del self.living[stream.id]
        if stream.state is _DISCARDED:
            self.discard(stream.id)

    def discard(self, stream_id: int) -> None:
        """We have reset a stream while the peer may be sending on it."""
        self._discarded[stream_id] = None
        if len(self._discarded) > MAX_DISCARDED:
            del self._discarded[next(iter(self._discarded))]
