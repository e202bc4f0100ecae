"""The head and the framing of a request, by llhttp (the parser of Node.js); pure.

llhttp is strict as we use it: it refuses what two parsers could read in two ways (both or two
lengths, a bare LF, folded lines, blanks before the colon, chunked not last).
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from gateway.receivers.books import Sender
from gateway.receivers.ingest import Head

REQUEST_LINE = b"POST /v1/traces HTTP/1.1\r\n"
MAX_HEAD_BYTES = 32 * 2**10
_MAX_FIELDS = 100
_MAX_FRAMING_BYTES = 16 * 2**10
"""Of what is neither head nor body: sizes of chunks and their extensions, trailers."""

# What changes how a request is to be handled; whoever sends one of these goes to the general
# server: CORS, Expect: 100-continue, Upgrade.
_UNUSUAL = frozenset({b"origin", b"expect", b"upgrade", b"te"})


class UnusualError(Exception):
    """A request for the general server."""


class MalformedError(Exception):
    """A body that is not framed as its head says; the message is for the sender."""


class RequestReader:
    """Reads one request after the other. ``body`` gets the pieces of each body."""

    def __init__(self, peer: str, body: Callable[[bytes], None]) -> None:
        self._peer = peer
        self._sender = Sender("http", peer)
        self._body = body
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._complete = False
        self.next_began = False
        self.left: int | None = 0
        """Bytes of the body still to come; None where only its chunks tell."""

    def head(self, data: bytes) -> Head:
        """``data`` is a whole head that begins with REQUEST_LINE. Raises UnusualError."""
        if self.left is None:
            self._begin()  # a chunked body may have left the parser in the middle of something
        self._fields: dict[bytes, bytes] = {}
        self._tenants: list[str] = []
        self._count = 0
        self._in_head = True
        self._complete = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise UnusualError(str(error)) from error
        return self._read_head()

    def feed(self, data: bytes) -> int:
        """Take of ``data`` what belongs to the body; how much that is. Raises MalformedError."""
        left = self.left
        if left is None:
            self._feed_chunked(data)
            return len(data)
        if left >= len(data):
            self.left = left - len(data)
            self._parser.feed_data(data)
            return len(data)
        self.left = 0
        self._parser.feed_data(memoryview(data)[:left])
        return left

    @property
    def complete(self) -> bool:
        """True once the body has come whole."""
        return self._complete

    def _feed_chunked(self, data: bytes) -> None:
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._complete:  # else it is not this request that is wrong
                message = f"the chunks of the body are not framed as HTTP/1.1 asks: {error}"
                raise MalformedError(message) from error
            self.next_began = True
        if self._framing > _MAX_FRAMING_BYTES and not self._complete:
            raise MalformedError("the chunks of the body carry more framing than content")

    def _read_head(self) -> Head:
        fields = self._fields
        if not fields.keys().isdisjoint(_UNUSUAL) or self._count > _MAX_FIELDS:
            raise UnusualError("a field that changes how the request is handled")
        if b"transfer-encoding" in fields:
            if fields[b"transfer-encoding"].lower() != b"chunked":
                raise UnusualError("a transfer coding")
            self.left = length = None
            self._framing = 0
        else:
            self.left = length = int(fields.get(b"content-length", b"0"))
        self.keep_alive = self._parser.should_keep_alive()
        content_type = fields.get(b"content-type")
        request_id = fields.get(b"x-request-id")
        return Head(
            sender=self._sender
            if request_id is None
            else Sender("http", self._peer, _text(request_id)),
            method="POST",
            path="/v1/traces",
            content_type=None if content_type is None else _text(content_type),
            content_encoding=_text(fields.get(b"content-encoding", b"")),
            content_length=length,
            tenants=self._tenants,
        )

    # -- called by the parser -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete and not self._in_head:
            self.next_began = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # trailers
        self._count += 1
        name = name.lower()
        value = value.strip(b" \t")
        if name == b"x-scope-orgid":
            self._tenants.append(_text(value))
        elif name == b"content-encoding" and name in self._fields:
            self._fields[name] += b", " + value
        else:
            self._fields.setdefault(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False

    def on_body(self, data: bytes) -> None:
        if self._complete:
            return  # of the next request
        self._framing = 0
        self._body(data)

    def on_message_complete(self) -> None:
        self._complete = True


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
