"""One connection of HTTP/1.1: requests one after the other, each answered before the next."""

from __future__ import annotations

import re
import time
from enum import Enum, auto

from gateway.errors import Cause, Refused
from gateway.receivers import whole
from gateway.receivers.frontdoor.gather import Gathered
from gateway.receivers.frontdoor.http1.answers import Answers
from gateway.receivers.frontdoor.http1.chunks import MalformedError
from gateway.receivers.frontdoor.http1.known import KnownHead
from gateway.receivers.frontdoor.http1.request import (
    MAX_HEAD_BYTES,
    REQUEST_LINE,
    RequestReader,
    UnusualError,
)
from gateway.receivers.frontdoor.wire import Timing, Wire
from gateway.receivers.ingest import Exchange, Head, Ingest
from gateway.receivers.replies import Reply

_MAX_AHEAD_BYTES = 64 * 2**10
"""How much of further requests is read while one waits for its answer."""

_BARE_LF = re.compile(rb"(?<!\r)\n")


class _Stage(Enum):
    HEAD = auto()
    BODY = auto()
    WAITING = auto()
    """The request is whole, and its answer is not there yet."""
    OVER = auto()


# Bound once: looking up a member of an enum costs as much as a call.
_HEAD, _BODY, _WAITING, _OVER = _Stage


class Http1:
    """Takes requests for ``/v1/traces``, and hands the connection over at the first other one."""

    def __init__(
        self,
        wire: Wire,
        ingest: Ingest,
        answers: Answers,
        timing: Timing,
        now: float,
        *,
        retire_at: float,
    ) -> None:
        self._wire = wire
        self._ingest = ingest
        self._answers = answers
        self._timing = timing
        self._retire_at = retire_at
        self._reader = RequestReader(wire.peer, self._on_body)
        self._gathered = Gathered()
        self._stage = _HEAD
        self._input = b""
        self._known: KnownHead | None = None
        self._exchange: Exchange | None = None
        self._answered = False
        self._closing = False
        """The connection ends with the answer to the request in hand."""
        self._running = False
        self._held = False
        """Nothing is read until the request in hand is answered."""
        self._now = self._since = self._heard_at = now

    @property
    def busy(self) -> bool:
        return self._exchange is not None or bool(self._input)

    # -- what happens to the connection -------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        self._now = self._heard_at = now
        if self._stage is _OVER:
            return
        if self._input:
            data = self._input + data
        elif self._stage is _HEAD:
            self._since = now
        self._input = data
        if self._stage is _WAITING:
            if len(data) > _MAX_AHEAD_BYTES:
                self._held = True
                self._wire.hold()
            return
        self._run()

    def resumed(self) -> None:
        self._run()

    def half_closed(self) -> bool:
        if self._stage is not _WAITING:
            return False
        self._closing = True
        return True

    def lost(self) -> None:
        self._stage = _OVER
        if self._exchange is not None:
            self._exchange.abandon()

    def check(self, now: float) -> None:
        self._now = now
        if self._stage is _HEAD:
            limit_s = self._timing.head_s if self._input else self._timing.keepalive_s
            if now - self._since > limit_s:
                self._leave()
        elif self._stage is _BODY:
            self._check_body(now)

    def drain(self, now: float) -> None:
        self._now = now
        if self._stage is _HEAD and not self._input:
            self._leave()
        self._closing = True

    # -- from input to exchanges --------------------------------------------------------------

    def _run(self) -> None:
        """Go on as far as input, answers and the peer allow."""
        if self._running:
            return
        self._running = True
        try:
            while self._input and not self._wire.paused:
                if self._stage is _HEAD:
                    if not self._read_head():
                        break
                elif self._stage is _BODY:
                    self._read_body()
                else:
                    break
        finally:
            self._running = False

    def _read_head(self) -> bool:
        """False if more input is needed, or none of it is for us."""
        known = self._known
        found = None if known is None else known.find(self._input)
        if known is None or found is None:
            return self._read_new_head()
        self._begin(known.head, known.passed, *found)
        return True

    def _read_new_head(self) -> bool:
        data = self._input
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > MAX_HEAD_BYTES or not data[:1].isupper() or _BARE_LF.search(data):
                self._hand_over()
            return False
        if not data.startswith(REQUEST_LINE) or end > MAX_HEAD_BYTES:
            self._hand_over()
            return False
        try:
            head = self._reader.head(data[:end])
        except UnusualError:
            self._hand_over()
            return False
        passed = whole.judge(self._ingest, head)
        if self._reader.keep_alive:
            self._known = KnownHead.of(data[:end], head, passed)
        else:
            self._closing = True
        self._begin(head, passed, end, head.content_length)
        return True

    def _begin(self, head: Head, passed: whole.Pass | None, start: int, size: int | None) -> None:
        """The body begins at ``start`` of the input; ``size`` is None if it is chunked."""
        data = self._input
        self._answered = False
        self._since = self._now
        if self._now > self._retire_at:
            self._closing = True
        if passed is not None and size and start + size <= len(data):
            self._stage = _WAITING
            self._input = data[start + size :]
            if whole.take(self._ingest, passed, data[start : start + size], self._answer):
                if self._answered:
                    self._next()
                return
        self._stage = _BODY
        self._input = data[start:]
        if size is not None:
            self._reader.expect(size)
        head = head._replace(content_length=size)
        self._exchange = self._ingest.begin(head, self._answer)
        if self._reader.complete:
            self._end()

    def _read_body(self) -> None:
        data = self._input
        reader = self._reader
        try:
            used = reader.feed(data)
        except MalformedError as error:
            self._closing = True
            self._refuse(Cause.MALFORMED, str(error))
            self._finish()
            return
        self._input = data[used:] if used < len(data) else b""
        if reader.complete:
            self._end()

    def _on_body(self, data: bytes) -> None:
        """Called by the reader."""
        exchange = self._exchange
        if exchange is None:
            return
        if piece := self._gathered.add(data):
            exchange.feed(piece)

    def _end(self) -> None:
        """The request is whole."""
        exchange = self._exchange
        self._stage = _WAITING
        if exchange is not None:
            if rest := self._gathered.rest():
                exchange.feed(rest)
            exchange.end()
        if self._answered:
            self._next()

    # -- answers ------------------------------------------------------------------------------

    def _answer(self, reply: Reply) -> None:
        """Called by ``Ingest``, once; maybe before the body has come, maybe before ``begin`` is
        through.
        """
        self._answered = True
        if self._stage is _OVER:
            return
        if reply.ends_connection:
            self._closing = True
        close = self._closing
        self._wire.write(self._answers.write(reply, time.time(), close=close))
        if self._stage is _WAITING:
            if not self._running:
                self._next()
                if self._input:
                    self._run()
        elif close:
            self._finish()

    def _next(self) -> None:
        """The request is whole and answered."""
        if self._stage is _OVER:
            return
        self._exchange = None
        if self._closing:
            self._finish()
            return
        self._stage = _HEAD
        self._since = self._now
        if self._held:
            self._held = False
            self._wire.go_on()

    def _refuse(self, cause: Cause, message: str) -> None:
        if self._exchange is not None:
            self._exchange.refuse(Refused(cause, message))

    # -- time and the end ---------------------------------------------------------------------

    def _check_body(self, now: float) -> None:
        timing = self._timing
        if self._answered:
            if now - self._since > timing.discard_s:
                self._finish()
        elif now - self._heard_at > timing.body_idle_s or now - self._since > timing.body_s:
            self._closing = True
            self._refuse(
                Cause.SLOW_CLIENT,
                f"the body did not come in time: {timing.body_idle_s:g} s without a byte or"
                f" {timing.body_s:g} s in all; send smaller batches or compress them",
            )
            self._finish()

    def _hand_over(self) -> None:
        self._stage = _OVER
        data, self._input = self._input, b""
        self._wire.hand_over(data)

    def _leave(self) -> None:
        """Nothing is in hand."""
        self._stage = _OVER
        self._input = b""
        self._wire.close()

    def _finish(self) -> None:
        if self._stage is _OVER:
            return
        self._stage = _OVER
        self._input = b""
        if self._exchange is not None:
            self._exchange.abandon()
        self._wire.finish()
