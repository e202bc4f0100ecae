"""One connection: its socket, its first bytes, and the speaker that they ask for."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol, cast

from gateway.receivers.address import shown
from gateway.receivers.frontdoor.sniff import PREFACE, TLS_ALERT, Spoken, sniff
from gateway.receivers.frontdoor.wire import Speaker, Timing
from gateway.telemetry.logs import Throttle, facts

logger = logging.getLogger(__name__)

_HIGH_WATER_BYTES = 64 * 2**10
"""Written and not yet taken by the socket; beyond it nothing more is read or made."""


class Host(Protocol):
    """The door, as its connections see it."""

    timing: Timing
    throttle: Throttle

    def joined(self, connection: Connection) -> None: ...
    def left(self, connection: Connection) -> None: ...
    def http1(self, connection: Connection, now: float) -> Speaker: ...
    def http2(self, connection: Connection, now: float) -> Speaker: ...
    def refuse_http1(self, connection: Connection) -> bytes:
        """What to tell one that has come in plain and shall not."""

    def refuse_http2(self, connection: Connection, now: float) -> Speaker: ...
    def general(self) -> asyncio.Protocol:
        """A connection of the general HTTP server."""


class Connection(asyncio.Protocol):
    """Carries bytes between a socket and a speaker; the speaker's ``Wire``."""

    def __init__(
        self, host: Host, loop: asyncio.AbstractEventLoop, *, must_refuse: bool = False
    ) -> None:
        """``must_refuse``: it has come in plain to a port that takes TLS only."""
        self.peer = ""
        self.paused = False
        self._host = host
        self._loop = loop
        self._must_refuse = must_refuse
        self._speaker: Speaker | None = None
        self._first = b""
        """Input before it is known what is spoken."""
        self._out: list[bytes] = []
        self._flushing = False
        """True while somebody is going to flush what is written."""
        self._held = False
        self._reading = True
        self._since = 0.0
        """When it was accepted, then when writing was paused, then when it began to end."""
        self._ending = False
        self._heard = False
        """True where the peer has sent something since time last passed, while it is to end."""

    def __repr__(self) -> str:
        return f"<Connection {self.peer}, {self._speaker}>"

    # -- called by the event loop -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._over_tls = transport.get_extra_info("sslcontext") is not None
        peer = transport.get_extra_info("peername")
        self.peer = shown(peer) if peer else ""
        self._since = self._loop.time()
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self._host.joined(self)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            self._heard = True
            return
        now = self._loop.time()
        self._flushing = True
        try:
            if self._speaker is not None:
                self._speaker.receive(data, now)
            else:
                self._begin(data, now)
        except Exception:
            logger.exception("connection failed", extra=facts(peer=self.peer))
            self.abort()
        self._flush()

    def eof_received(self) -> bool:
        self._flush()  # an answer may have been made in this pass, and what is closed takes none
        if self._ending or self._speaker is None or self._over_tls:
            return False  # over TLS both ways end together, whatever is said here
        return self._speaker.half_closed()

    def pause_writing(self) -> None:
        self.paused = True
        self._since = self._loop.time()
        self._read_or_not()

    def resume_writing(self) -> None:
        self.paused = False
        self._read_or_not()
        if self._speaker is not None:
            self._speaker.resumed()

    def connection_lost(self, _error: Exception | None) -> None:
        self._ending = True
        self._host.left(self)
        if self._speaker is not None:
            self._speaker.lost()

    # -- called by the door -------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Time passes."""
        timing = self._host.timing
        if self._ending:
            if now - self._since > timing.linger_s:
                self._transport.abort()
            elif self._over_tls and not self._heard:
                self._close_transport()
            self._heard = False
        elif self.paused:
            if now - self._since > timing.stall_s:
                self.abort()
        elif self._speaker is not None:
            self._speaker.check(now)
        elif now - self._since > timing.head_s:
            self.abort()

    def drain(self, now: float) -> None:
        """Finish what is in hand, then end."""
        if self._ending:
            return
        if self._speaker is None:
            self.close()
        else:
            self._speaker.drain(now)

    # -- the wire of the speaker --------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def hold(self) -> None:
        self._held = True
        self._read_or_not()

    def go_on(self) -> None:
        if self._held:
            self._held = False
            self._read_or_not()

    def close(self) -> None:
        self._end()
        self._close_transport()

    def finish(self) -> None:
        self._end()
        transport = self._transport
        if transport.is_closing():
            return
        if self._over_tls:  # one way alone cannot end, so ``check`` waits until the peer is quiet
            self._heard = True
            self._held = False
            self._read_or_not()
            return
        try:
            transport.write_eof()
        except OSError:  # the peer has gone already
            transport.abort()
            return
        self._held = False
        self._read_or_not()

    def abort(self) -> None:
        self._end()
        self._transport.abort()

    def note(self, event: str, code: str, message: str) -> None:
        quiet = self._host.throttle.ready(code)
        if quiet is not None:
            told = facts(peer=self.peer, code=code, message=message, like_it=quiet or None)
            logger.warning(event, extra=told)

    def hand_over(self, data: bytes) -> None:
        self._flush()
        self._ending = True
        self._host.left(self)
        self._speaker = None
        if self._transport.is_closing():
            return
        protocol = self._host.general()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    # -- inside -------------------------------------------------------------------------------

    def _begin(self, data: bytes, now: float) -> None:
        data = self._first + data
        spoken = sniff(data)
        if spoken is None:
            self._first = data
            return
        self._first = b""
        if spoken is Spoken.TLS:
            self._refuse_tls()
        elif self._must_refuse:
            self._refuse_plain(spoken, data, now)
        elif spoken is Spoken.HTTP2:
            self._speaker = self._host.http2(self, now)
            self._speaker.receive(data[len(PREFACE) :], now)
        else:
            self._speaker = self._host.http1(self, now)
            self._speaker.receive(data, now)

    def _refuse_plain(self, spoken: Spoken, data: bytes, now: float) -> None:
        if spoken is Spoken.HTTP2:
            self._speaker = self._host.refuse_http2(self, now)
            self._speaker.receive(data[len(PREFACE) :], now)
        else:
            self.write(self._host.refuse_http1(self))
            self.finish()

    def _refuse_tls(self) -> None:
        self.note(
            "tls on plaintext port",
            "TLS",
            "the client wants TLS, and there is none on this port: use http:// or insecure=True",
        )
        self.write(TLS_ALERT)
        self.finish()

    def _close_transport(self) -> None:
        # Of asyncio's TLS transport a second close() turns a later abort() into nothing.
        if not self._transport.is_closing():
            self._transport.close()

    def _end(self) -> None:
        self._flush()
        self._ending = True
        self._since = self._loop.time()

    def _flush(self) -> None:
        self._flushing = False
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if not self._transport.is_closing():
            self._transport.write(data)

    def _read_or_not(self) -> None:
        wanted = not (self._held or self.paused)
        if wanted is self._reading or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
