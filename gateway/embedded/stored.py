"""A stored span as a query sees it, and where its fields are found."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from gateway.embedded.messages import ResourceSpans, Scalar, Span, Value, attribute, text

STATUS_NAMES = ("unset", "ok", "error")
KIND_NAMES = ("unspecified", "internal", "server", "client", "producer", "consumer")


class Field(NamedTuple):
    """An attribute (``scope`` is where to look, "" is span, then resource) or an intrinsic."""

    scope: str
    name: str

    @property
    def is_intrinsic(self) -> bool:
        return self.scope == "intrinsic"


class Origin:
    """The resource and instrumentation scope that spans came from, decoded."""

    def __init__(self, header: bytes) -> None:
        self.message = ResourceSpans.FromString(header)
        self.resource = self.message.resource.attributes
        self.scope = self.message.scope_spans[0].scope

    @cached_property
    def service_name(self) -> str:
        """As in Tempo a resource without a name has the empty one."""
        names = attribute(self.resource, b"service.name")
        return names[0] if names and isinstance(names[0], str) else ""

    def values(self, scope: str, name: str) -> list[Value]:
        """Of the resource, or of the scope where ``scope`` is "instrumentation"."""
        if scope == "instrumentation":
            return attribute(self.scope.attributes, name.encode())
        if name == "service.name":
            return [self.service_name]
        return attribute(self.resource, name.encode())


class Row(NamedTuple):
    """One row of the join of spans and traces; times are Unix nanoseconds."""

    trace: int
    trace_id: bytes
    trace_start_ns: int
    trace_end_ns: int
    root_name: str
    root_service: str
    span_id: bytes
    kind: int
    origin: int
    name: str
    start_ns: int
    duration_ns: int
    status: int
    body: bytes


ROW_COLUMNS = """t.id, t.trace_id, t.start_ns, t.end_ns, t.root_name, t.root_service,
    s.span_id, s.kind, s.origin, s.name, s.start_ns, s.duration_ns, s.status, s.body"""


class StoredSpan:
    """A row with its message, parsed when first asked for."""

    __slots__ = ("_message", "check", "origin", "row")

    def __init__(self, row: Row, origin: Origin, check: Callable[[], None]) -> None:
        self.row = row
        self.origin = origin
        self.check = check
        """To be called now and then in long work; raises when the query has run out of time."""
        self._message: Any = None

    @property
    def message(self) -> Any:
        if self._message is None:
            self._message = Span.FromString(self.row.body)
        return self._message

    def values(self, field: Field) -> list[Value]:
        """What is stored under ``field``; nothing if it is not there."""
        if field.is_intrinsic:
            return _INTRINSICS[field.name](self)
        name = field.name.encode()
        match field.scope:
            case "span":
                return attribute(self.message.attributes, name)
            case "resource" | "instrumentation":
                return self.origin.values(field.scope, field.name)
            case "event":
                return _in_each(self.message.events, name)
            case "link":
                return _in_each(self.message.links, name)
            case _:
                resource = self.origin.values("resource", field.name)
                return attribute(self.message.attributes, name) + resource

    def scalars(self, field: Field) -> list[Scalar]:
        """The values with arrays taken apart: a condition holds if it does for an element."""
        found: list[Scalar] = []
        for value in self.values(field):
            if isinstance(value, list):
                found += value
            else:
                found.append(value)
        return found


def _in_each(messages: Any, name: bytes) -> list[Value]:
    return [value for message in messages for value in attribute(message.attributes, name)]


def _parent_id(span: StoredSpan) -> list[Value]:
    parent_id: bytes = span.message.parent_span_id
    return [parent_id.hex()] if any(parent_id) else []


_INTRINSICS: dict[str, Callable[[StoredSpan], list[Value]]] = {
    "name": lambda span: [span.row.name],
    "status": lambda span: [span.row.status],
    "statusMessage": lambda span: [text(span.message.status.message)],
    "kind": lambda span: [span.row.kind],
    "duration": lambda span: [span.row.duration_ns],
    "traceDuration": lambda span: [span.row.trace_end_ns - span.row.trace_start_ns],
    "rootName": lambda span: [span.row.root_name],
    "rootServiceName": lambda span: [span.row.root_service],
    "trace:id": lambda span: [span.row.trace_id.hex()],
    "span:id": lambda span: [span.row.span_id.hex()],
    "span:parentID": _parent_id,
    "event:name": lambda span: [text(event.name) for event in span.message.events],
    "event:timeSinceStart": lambda span: [
        event.time_unix_nano - span.row.start_ns for event in span.message.events
    ],
    "link:traceID": lambda span: [link.trace_id.hex() for link in span.message.links],
    "link:spanID": lambda span: [link.span_id.hex() for link in span.message.links],
    "instrumentation:name": lambda span: [text(span.origin.scope.name)],
    "instrumentation:version": lambda span: [text(span.origin.scope.version)],
}
INTRINSICS = frozenset(_INTRINSICS)
