"""The head and the framing of a request, by llhttp (the parser of Node.js); pure.

llhttp is strict as we use it: it refuses what two parsers could read in two ways (both or two
lengths, a bare LF, folded lines, blanks before the colon, chunked not last).
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from gateway.access.handovers import HEADER as HANDOVER_HEADER
from gateway.receivers.books import Sender
from gateway.receivers.frontdoor.http1.chunks import Chunks
from gateway.receivers.ingest import Head

REQUEST_LINE = b"POST /v1/traces HTTP/1.1\r\n"
MAX_HEAD_BYTES = 32 * 2**10
_MAX_FIELDS = 100

# What changes how a request is to be handled; whoever sends one of these goes to the general
# server: CORS, Expect: 100-continue, Upgrade, what a gateway hands over at its end.
_UNUSUAL = frozenset({b"origin", b"expect", b"upgrade", b"te", HANDOVER_HEADER.encode()})


class UnusualError(Exception):
    """A request for the general server."""


class RequestReader:
    """Reads one request after the other. ``body`` gets the pieces of each body."""

    def __init__(self, peer: str, body: Callable[[bytes], None]) -> None:
        self._peer = peer
        self._sender = Sender("http", peer)
        self._on_body = body
        self._parser: httptools.HttpRequestParser | None = None
        self._chunks: Chunks | None = None
        self._left = 0
        self._fields: dict[bytes, bytes] = {}
        self._tenants: list[str] = []
        self._authorization: list[str] = []
        self._count = 0
        self.keep_alive = True

    def head(self, data: bytes) -> Head:
        """``data`` is a whole head that begins with REQUEST_LINE. Raises UnusualError."""
        self._chunks = None
        self._fields = {}
        self._tenants = []
        self._authorization = []
        self._count = 0
        self._parser = httptools.HttpRequestParser(self)  # a new one, which expects no body
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise UnusualError(str(error)) from error
        finally:
            self._parser = None
        return self._read_head()

    def expect(self, size: int) -> None:
        """A head that is known by other means announced a body of ``size`` bytes."""
        self._chunks = None
        self._left = size

    def feed(self, data: bytes) -> int:
        """How much of ``data`` belongs to the body. Raises MalformedError."""
        if self._chunks is not None:
            return self._chunks.feed(data)
        left = self._left
        if left < len(data):
            data = data[:left]
        self._left = left - len(data)
        self._on_body(data)
        return len(data)

    @property
    def complete(self) -> bool:
        """True once the body has come whole."""
        return not self._left if self._chunks is None else self._chunks.complete

    def _read_head(self) -> Head:
        fields = self._fields
        if not _UNUSUAL.isdisjoint(fields) or self._count > _MAX_FIELDS:
            raise UnusualError("a field that changes how the request is handled")
        length: int | None = None
        if b"transfer-encoding" in fields:
            if fields[b"transfer-encoding"].lower() != b"chunked":
                raise UnusualError("a transfer coding")
            self._chunks = Chunks(self._on_body)
        else:
            self._left = length = int(fields.get(b"content-length", b"0"))
        content_type = fields.get(b"content-type")
        request_id = fields.get(b"x-request-id")
        return Head(
            self._sender if request_id is None else Sender("http", self._peer, _text(request_id)),
            "POST",
            "/v1/traces",
            None if content_type is None else _text(content_type),
            _text(fields.get(b"content-encoding", b"")),
            length,
            self._tenants,
            self._authorization,
        )

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._parser is not None:
            self.keep_alive = self._parser.should_keep_alive()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._count += 1
        name = name.lower()
        value = value.strip(b" \t")
        if name == b"x-scope-orgid":
            self._tenants.append(_text(value))
        elif name == b"authorization":
            self._authorization.append(_text(value))
        elif name == b"content-encoding" and name in self._fields:
            self._fields[name] += b", " + value
        else:
            self._fields.setdefault(name, value)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
