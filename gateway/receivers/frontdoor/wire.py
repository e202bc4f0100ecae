"""What stands between a protocol and its socket.

A speaker (HTTP/1.1 or HTTP/2) is told what happens and acts through its wire, and knows neither
sockets nor clocks. ``now`` is the time of the event loop in seconds.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Wire(Protocol):
    """What a speaker may do with its connection."""

    peer: str
    """Address and port of the other end."""
    paused: bool
    """True while the peer does not read what was written; a speaker then makes nothing new."""

    def write(self, data: bytes) -> None:
        """Send ``data``; what is written while input is handled goes out in one piece."""

    def hold(self) -> None:
        """Read no more for now."""

    def go_on(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Send what was written, then end the connection; for a peer that is not sending."""

    def finish(self) -> None:
        """The same for a peer that may be sending: input is thrown away until the peer has read
        our last words and gone. (To close with input unread is to reset, and words get lost.)
        """

    def abort(self) -> None:
        """End the connection at once."""

    def note(self, event: str, code: str, message: str) -> None:
        """Tell the operator. Of each code not more than one a few seconds is logged."""

    def hand_over(self, data: bytes) -> None:
        """Give the connection, and the input not yet used, to the general HTTP/1.1 server."""


class Speaker(Protocol):
    """One protocol on one connection."""

    @property
    def busy(self) -> bool:
        """True while the peer waits for something."""

    def receive(self, data: bytes, now: float) -> None:
        """Take what came in."""

    def resumed(self) -> None:
        """The peer reads again after ``wire.paused``."""

    def half_closed(self) -> bool:
        """The peer sends no more; False if there is nothing left to tell it either."""

    def lost(self) -> None:
        """The connection is gone."""

    def check(self, now: float) -> None:
        """Time passes; called about twice a second."""

    def drain(self, now: float) -> None:
        """Finish what is in hand, take nothing new, then end the connection."""


class Timing(NamedTuple):
    """Every time limit of a connection, in seconds."""

    tick_s: float = 0.5
    """How often limits are looked at, so how late they may be noticed."""
    head_s: float = 10.0
    """For the first bytes, and for the head of a request, once begun."""
    body_idle_s: float = 10.0
    """Longest pause inside a body; SDKs give up on a whole export after 10 s."""
    body_s: float = 60.0
    """For a whole body: 64 MiB at 9 Mbit/s."""
    discard_s: float = 30.0
    """For the rest of a body that was answered early, so that the client reads the answer."""
    keepalive_s: float = 75.0
    """An idle HTTP/1.1 connection lives longer than the 60 s of common load balancers, so that they
    and not we end a connection, which they may be about to use."""
    ping_after_s: float = 60.0
    """Silence on HTTP/2 after which we ask whether the peer is there; keeps NAT entries alive."""
    ping_timeout_s: float = 20.0
    """For the answer to our ping."""
    idle_s: float = 600.0
    """An HTTP/2 connection without calls is given up after this time."""
    max_age_s: float = 1800.0
    """Connections are renewed, so that load spreads after a scale-out; a tenth more or less each,
    so that they do not all come back at once."""
    age_grace_s: float = 60.0
    """For calls in hand on a connection that is to end."""
    stall_s: float = 30.0
    """Longest time in which a peer reads nothing of what waits for it."""
    linger_s: float = 2.0
    """For the peer to read our last words."""
