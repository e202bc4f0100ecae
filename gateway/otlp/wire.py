"""Cutting spans out of a serialized request, and splitting it by spans.

Works on byte ranges: what is kept is copied as it stands, never parsed and written anew.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterator, Sequence
from itertools import count

from google.protobuf.message import DecodeError

from gateway.errors import Cause, Refused
from gateway.otlp.fields import (
    RESOURCE_SPANS,
    SCOPE_SPANS,
    SPANS,
    TAGS,
    Field,
    delimited,
    fields,
    malformed,
)
from proto_stubs.view_pb2 import Census, Span

_PATH = (RESOURCE_SPANS, SCOPE_SPANS, SPANS)
_LEAST_BYTES = 32
"""A valid link has 32 bytes or more, a valid span 48: ids, times, and their tags."""
_SPARE = 1000
_MOST_FIELDS = 128 * 1024
_HEADER_BYTES = 6
"""Most that tag and length of a message on the path take."""
_MOST_GROWTH = 4
_SPARE_BYTES = 1024 * 1024


def without(payload: bytes, bad: Container[int]) -> bytes:
    """The request less the spans whose index is in ``bad``, counted in order over the request.

    A scope or resource that loses its last span goes too; everything else stays as it is.
    """
    return _Cut(payload, bad).message(0, len(payload), level=0) or b""


def split(
    payload: bytes, *, max_spans: int, max_bytes: int | None = None
) -> Iterator[tuple[bytes, int]]:
    """The request in pieces, each with the number of its spans; all spans in their order.

    Each piece repeats the resource and the scope of its spans, and keeps within the limits unless
    it holds a single span. Scopes and resources without spans are left out. Raises Refused where
    ``payload`` is malformed, or where repeating large resources would multiply it.
    """
    size = len(payload)
    piece = Piece(max_spans, size if max_bytes is None else max_bytes, source_bytes=size)
    for spans in _Split(payload).scopes(piece):
        for start, stop in _pairs(spans):
            if not piece.has_room(stop - start):
                yield piece.take()
            piece.add(payload[start:stop])
    if piece.spans:
        yield piece.take()


def trace_ids(payload: bytes, limit: int) -> list[str]:
    """The first ``limit`` different trace ids in hex; fewer, or none, of a damaged payload."""
    found: dict[str, None] = {}
    try:
        for span in Census.FromString(payload).resource_spans.scope_spans.spans:
            found[Span.FromString(span).trace_id.hex()] = None
            if len(found) == limit:
                break
    except DecodeError:
        return list(found)
    return list(found)


def check_density(count: int, size: int, what: str) -> None:
    """Refuse floods of things so small that none can be valid: they would cost far more memory and
    time than their bytes.
    """
    if count > _SPARE + size // _LEAST_BYTES:
        malformed(f"it has {count} {what} in {size} bytes, too small to be {what}")


def check_fields(span: bytes) -> None:
    """Refuse a huge span that consists of a flood of fields."""
    for index, _ in enumerate(fields(span)):
        if index >= _MOST_FIELDS:
            malformed(f"a span of {len(span)} bytes has more than {_MOST_FIELDS} fields")


class _Walk:
    """Reads the messages on the path to the spans, as long as their fields make sense."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self._read = [0] * len(_PATH)

    def fields(self, start: int, stop: int, level: int) -> Iterator[Field]:
        """The fields of a request (level 0), a resource_spans (1) or a scope_spans (2)."""
        for field in fields(self.payload, start, stop, _PATH[level]):
            self._read[level] += 1
            if self._read[level] > _SPARE + field[4] // _LEAST_BYTES:
                check_density(self._read[level], field[4], "spans")
            yield field


class _Cut(_Walk):
    """Cuts spans out of a request."""

    def __init__(self, payload: bytes, bad: Container[int]) -> None:
        super().__init__(payload)
        self._bad = bad
        self._index = count()

    def message(self, start: int, stop: int, level: int) -> bytes | None:
        """The message between two offsets less bad spans; None if it had children and lost all."""
        kept: list[bytes] = []
        had = has = False
        for number, _, begin, value, end in self.fields(start, stop, level):
            if number != _PATH[level]:
                kept.append(self.payload[begin:end])
                continue
            had = True
            if level < 2:
                content = self.message(value, end, level + 1)
                child = None if content is None else delimited(TAGS[level], content)
            else:
                child = None if next(self._index) in self._bad else self.payload[begin:end]
            if child is not None:
                has = True
                kept.append(child)
        return None if had and not has else b"".join(kept)


class Piece:
    """A request that is being put together, from the inside out. Taken when it is full, it goes on
    under the same resource and scope.
    """

    def __init__(self, max_spans: int, max_bytes: int, *, source_bytes: int) -> None:
        self.spans = 0
        self._max_spans = max_spans
        self._max_bytes = max_bytes
        self._source_bytes = source_bytes
        self._made_bytes = 0
        self._size = 0
        self._resource_head = b""
        self._scope_head = b""
        self._open_scope: list[bytes] = []
        self._open_resource: list[bytes] = []
        self._resources: list[bytes] = []

    def open_resource(self, head: bytes) -> None:
        """The scopes that follow stand under a resource_spans with these other fields."""
        self._close_resource()
        self._resource_head = head
        self._size += _HEADER_BYTES + len(head)

    def open_scope(self, head: bytes) -> None:
        """The spans that follow stand under a scope_spans with these other fields."""
        self._close_scope()
        self._scope_head = head
        self._size += _HEADER_BYTES + len(head)

    def has_room(self, size: int) -> bool:
        """Whether a span of this many bytes fits; the first one always does."""
        return not self.spans or (
            self.spans < self._max_spans and self._size + size <= self._max_bytes
        )

    def add(self, span: bytes) -> None:
        """``span`` is a whole field, with tag and length."""
        self._open_scope.append(span)
        self._size += len(span)
        self.spans += 1

    def fill(self, spans: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
        """Add spans, and take what is full before the next one is added."""
        size = sum(map(len, spans))
        if self.spans + len(spans) <= self._max_spans and self._size + size <= self._max_bytes:
            self._open_scope += spans
            self._size += size
            self.spans += len(spans)
            return
        for span in spans:
            if not self.has_room(len(span)):
                yield self.take()
            self.add(span)

    def take(self) -> tuple[bytes, int]:
        """What was put together, and its spans. Raises Refused where repeating large resources
        would multiply the source.
        """
        self._close_resource()
        done = b"".join(self._resources), self.spans
        self._made_bytes += len(done[0])
        self._check_growth()
        self._resources.clear()
        self.spans = 0
        self._size = 2 * _HEADER_BYTES + len(self._resource_head) + len(self._scope_head)
        return done

    def _check_growth(self) -> None:
        if self._made_bytes > _MOST_GROWTH * self._source_bytes + _SPARE_BYTES:
            raise Refused(
                Cause.TOO_LARGE,
                f"the request has {self._source_bytes} bytes and must be split, but its resources"
                " and scopes are so large that repeating them in each part would multiply it; send"
                " smaller batches or fewer resource attributes",
            )

    def _close_scope(self) -> None:
        if self._open_scope:
            content = self._scope_head + b"".join(self._open_scope)
            self._open_resource.append(delimited(TAGS[1], content))
            self._open_scope.clear()

    def _close_resource(self) -> None:
        self._close_scope()
        if self._open_resource:
            content = self._resource_head + b"".join(self._open_resource)
            self._resources.append(delimited(TAGS[0], content))
            self._open_resource.clear()


class _Split(_Walk):
    """Takes a request apart."""

    def scopes(self, piece: Piece) -> Iterator[array[int]]:
        """Open each resource and scope in ``piece``, and give the scope's spans as offsets."""
        for number, _, _, value, stop in self.fields(0, len(self.payload), 0):
            if number == RESOURCE_SPANS:
                head, scopes = self._parted(value, stop, 1)
                piece.open_resource(head)
                for start, end in _pairs(scopes):
                    ((_, _, _, content, _),) = fields(self.payload, start, end)
                    head, spans = self._parted(content, end, 2)
                    piece.open_scope(head)
                    yield spans

    def _parted(self, start: int, stop: int, level: int) -> tuple[bytes, array[int]]:
        """What a message holds beside the fields on the path, and the offsets of those: from, to,
        from, to. An array, since a request may have a million spans.
        """
        head: list[bytes] = []
        offsets = array("Q")
        for number, _, begin, _, end in self.fields(start, stop, level):
            if number == _PATH[level]:
                offsets.append(begin)
                offsets.append(end)
            else:
                head.append(self.payload[begin:end])
        return b"".join(head), offsets


def _pairs(offsets: array[int]) -> Iterator[tuple[int, int]]:
    return zip(offsets[::2], offsets[1::2], strict=True)
