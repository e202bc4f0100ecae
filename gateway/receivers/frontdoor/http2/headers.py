"""Header blocks: what a request's mean, and how an answer's are written (RFC 7541, RFC 9113 8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from gateway.receivers.frontdoor.http2.frames import ConnectionFault, ErrorCode, StreamFault

MAX_LIST_BYTES = 64 * 2**10
"""Of one header block decoded, counted as RFC 9113 section 6.5.2 asks; beyond it we stop decoding,
which is the end of the connection, since its compression state is lost."""

_KNOWN_BLOCKS = 64
_KNOWN_BLOCK_BYTES = 512

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_REQUIRED = (b":method", b":scheme", b":path")
_OF_HTTP1 = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)

Fields = Sequence[tuple[bytes, bytes]]


class RequestHead:
    """A request's well-formed header block."""

    __slots__ = ("content_length", "fields", "memo", "method", "path")

    def __init__(
        self, method: str, path: str, fields: Sequence[tuple[str, str]], content_length: int | None
    ) -> None:
        self.method = method
        self.path = path
        self.fields = fields
        """Without the pseudo-header fields; names in lower case."""
        self.content_length = content_length
        self.memo: object = None
        """Whatever the application made of this head, kept as long as the head is."""


class HeaderDecoder:
    """Decodes the header blocks of one connection.

    A client repeats itself: by its second call most of a block are references to HPACK's table.
    So blocks are remembered with what they meant, until the table changes; then the same bytes
    can mean something else. (Decoding ten fields costs 10 us, remembering 0.1.)
    """

    def __init__(self) -> None:
        self._decoder = Decoder(MAX_LIST_BYTES)
        self._table = _CountingTable()
        self._decoder.header_table = self._table
        self._known: dict[bytes, RequestHead] = {}

    def request(self, block: bytes) -> RequestHead:
        """Raises ConnectionFault for what cannot be decoded, StreamFault for what is malformed."""
        known = self._known.get(block)
        if known is not None:
            return known
        changes = self._table.changes
        fields = self._decode(block)
        if self._table.changes != changes:
            self._known.clear()
            return read_request(fields)
        head = read_request(fields)
        if len(block) <= _KNOWN_BLOCK_BYTES:
            if len(self._known) >= _KNOWN_BLOCKS:
                self._known.clear()
            self._known[block] = head
        return head

    def decode(self, block: bytes) -> Fields:
        """The fields of a block that begins no request: trailers, or a block that nobody wants but
        that may change the table. Raises ConnectionFault.
        """
        changes = self._table.changes
        fields = self._decode(block)
        if self._table.changes != changes:
            self._known.clear()
        return fields

    def _decode(self, block: bytes) -> Fields:
        try:
            return self._decoder.decode(block, raw=True)  # type: ignore[return-value] # raw: bytes
        except OversizedHeaderListError as error:
            message = f"a header list of more than {MAX_LIST_BYTES} bytes"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message) from error
        except (HPACKError, IndexError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "undecodable headers") from error


class _CountingTable(HeaderTable):
    """HPACK's dynamic table, which counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined] # a property


def read_request(fields: Fields) -> RequestHead:
    """RFC 9113, sections 8.2 and 8.3. Raises StreamFault."""
    pseudo: dict[bytes, bytes] = {}
    regular: list[tuple[str, str]] = []
    content_length = None
    for name, value in fields:
        if name.startswith(b":"):
            if name not in _PSEUDO or name in pseudo or regular:
                raise _malformed("pseudo-header fields: known ones, each once, before all others")
            if _BAD_VALUE.search(value):
                raise _malformed("a field value with blanks around it or control characters")
            pseudo[name] = value
            continue
        _check_field(name, value)
        if name == b"content-length":
            content_length = _length(value, content_length)
        regular.append((_text(name), _text(value)))
    if not all(pseudo.get(name) for name in _REQUIRED):
        raise _malformed(":method, :scheme and :path are required")
    return RequestHead(_text(pseudo[b":method"]), _text(pseudo[b":path"]), regular, content_length)


def check_trailers(fields: Fields) -> None:
    """Raises StreamFault for trailers that are malformed."""
    for name, value in fields:
        _check_field(name, value)


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise _malformed("a field name that is empty, in upper case, or has odd characters")
    if _BAD_VALUE.search(value):
        raise _malformed("a field value with blanks around it or control characters")
    if name in _OF_HTTP1 or (name == b"te" and value.lower() != b"trailers"):
        raise _malformed("a field that belongs to a connection of HTTP/1.1")


def _length(value: bytes, before: int | None) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", value) or before not in (None, int(value)):
        raise _malformed("content-length is one number")
    return int(value)


def _malformed(message: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, message)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals that are not indexed.

    It depends on no table, so it can be made once and sent on every connection; the constant
    blocks of an answer stay below 100 bytes even so.
    """
    return b"".join(_literal(name.encode(), value.encode()) for name, value in fields)


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    return _integer(len(text)) + text


def _integer(value: int) -> bytes:
    """With a 7-bit prefix and no Huffman flag (RFC 7541, section 5.1)."""
    if value < 0x7F:
        return bytes((value,))
    out = bytearray((0x7F,))
    value -= 0x7F
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
