"""Requests in JSON: read into typed structures, checked, and written in protobuf.

OTLP/JSON is proto3's JSON mapping with hex ids and integer enums (OTLP specification, "JSON
Protobuf Encoding").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import msgspec

from gateway.errors import Cause, Refused
from gateway.otlp.depth import too_deep
from gateway.otlp.fields import delimited
from gateway.otlp.json_attributes import NO_ATTRIBUTES
from gateway.otlp.json_scalars import Number, Object, Problem, Repairs
from gateway.otlp.json_spans import Span, Spans, count, text
from gateway.otlp.json_values import read_all
from gateway.otlp.media import Decoded
from gateway.otlp.memo import Memo
from gateway.otlp.report import Report
from gateway.otlp.wire import Piece

_BOM = b"\xef\xbb\xbf"
_LARGE_BYTES = 1024 * 1024
"""What may cost more memory than eight times its size is done up to here only."""
_LEAST_OBJECT_BYTES = 20
"""Smallest mean size of the objects in a large body: an attribute has two in 37 bytes or more."""
_SPANS_AT_ONCE = 512
_RESOURCES = Memo(1024 * 1024, longest=8192)
_SCOPES = Memo(1024 * 1024, longest=8192)
"""Their fields by their JSON text, since a service sends the same with each request."""
_ABSENT = msgspec.Raw(b"null")
_DROPPED = ".droppedAttributesCount"
_UNDERSCORE = re.compile("_([a-z])")


class Scope(Object):
    name: str | None = None
    version: str | None = None
    attributes: msgspec.Raw = NO_ATTRIBUTES
    dropped_attributes_count: Number = None


class ScopeSpans(Object):
    scope: msgspec.Raw = _ABSENT
    spans: list[Span] | None = None
    schema_url: str | None = None


class EntityRef(Object):
    schema_url: str | None = None
    type: str | None = None
    id_keys: list[str] | None = None
    description_keys: list[str] | None = None


class Resource(Object):
    attributes: msgspec.Raw = NO_ATTRIBUTES
    dropped_attributes_count: Number = None
    entity_refs: list[EntityRef] | None = None


class ResourceSpans(Object):
    resource: msgspec.Raw = _ABSENT
    scope_spans: list[ScopeSpans] | None = None
    schema_url: str | None = None


class Request(Object):
    resource_spans: list[ResourceSpans] | None = None
    snake_case: msgspec.Raw = msgspec.field(name="resource_spans", default=msgspec.Raw())


_read = msgspec.json.Decoder(Request, strict=False).decode
_read_resource = msgspec.json.Decoder(Resource | None, strict=False).decode
_read_scope = msgspec.json.Decoder(Scope | None, strict=False).decode
_read_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode_json(body: bytes, latest_ns: int, max_spans: int, max_bytes: int) -> Decoded:
    """See ``gateway.otlp.decode.decode``; ``latest_ns`` is the last start that is taken."""
    repairs, report = Repairs(), Report()
    writer = _Writer(Spans(report, repairs, latest_ns), repairs)
    piece = Piece(max_spans, max_bytes, source_bytes=len(body))
    try:
        request = _parsed(body.removeprefix(_BOM), repairs, report)
        payloads = tuple(writer.payloads(request.resource_spans or [], piece))
    except Problem as problem:
        _malformed(problem.under(writer.place()))
    except RecursionError:
        too_deep()
    accepted = sum(spans for _, spans in payloads)
    return Decoded(payloads, accepted, report.rejected, report.message(), report.trace_id, repairs)


def _parsed(body: bytes, repairs: Repairs, report: Report) -> Request:
    large = len(body) > _LARGE_BYTES
    if large and body.count(b"{") > len(body) // _LEAST_OBJECT_BYTES:
        raise Problem("most objects are too small to be spans or attributes")
    try:
        request = _read(body)
        if request.resource_spans is None and bytes(request.snake_case) and not large:
            repairs["snake_case"] += 1
            return _read(msgspec.json.encode(_camel_case(msgspec.json.decode(body))))
        if request.resource_spans is None:
            _warn_of_other_keys(["(many)"] if large else list(_read_keys(body)), report)
    except ValueError as error:
        raise Problem.of(error) from None
    return request


def _warn_of_other_keys(keys: list[str], report: Report) -> None:
    """Unknown keys are to be ignored, but where they are all there is, the sender should know."""
    if not keys or keys == ["resourceSpans"]:
        return
    shown = [key[:64] for key in keys[:5]]
    report.warn(f"no spans found: the request has no resourceSpans, only {shown}")


class _Writer:
    """Writes resources and scopes, and keeps the place in the request for messages."""

    def __init__(self, spans: Spans, repairs: Repairs) -> None:
        self._spans = spans
        self._repairs = repairs
        self._resource = self._scope = self._span = -1

    def place(self) -> str:
        """The JSON path of what is being written."""
        names = (
            ("resourceSpans", self._resource),
            ("scopeSpans", self._scope),
            ("spans", self._span),
        )
        return "$" + "".join(f".{name}[{index}]" for name, index in names if index >= 0)

    def payloads(self, resources: list[ResourceSpans], piece: Piece) -> Iterator[tuple[bytes, int]]:
        """Payloads of the good spans, with their numbers of spans."""
        for self._resource, resource_spans in enumerate(resources):
            piece.open_resource(self._resource_head(resource_spans))
            for self._scope, scope_spans in enumerate(resource_spans.scope_spans or ()):
                piece.open_scope(self._scope_head(scope_spans))
                for spans in self._written(scope_spans.spans or []):
                    yield from piece.fill(spans)
            self._scope = -1
        if piece.spans:
            yield piece.take()

    def _written(self, spans: list[Span]) -> Iterator[list[bytes]]:
        """The good ones as fields, some at a time."""
        write = self._spans.write
        for start in range(0, len(spans), _SPANS_AT_ONCE):
            fields = []
            for self._span, span in enumerate(spans[start : start + _SPANS_AT_ONCE], start):
                field = write(span)
                if field is not None:
                    fields.append(field)
            yield fields
        self._span = -1

    def _resource_head(self, resource_spans: ResourceSpans) -> bytes:
        """The fields of a resource_spans beside its scopes."""
        document = bytes(resource_spans.resource)
        field = _RESOURCES.recent.get(document)
        if field is None:
            field = self._learned(_RESOURCES, document, _resource_field, ".resource")
        return field + text(b"\x1a", resource_spans.schema_url)

    def _scope_head(self, scope_spans: ScopeSpans) -> bytes:
        """The fields of a scope_spans beside its spans."""
        document = bytes(scope_spans.scope)
        field = _SCOPES.recent.get(document)
        if field is None:
            field = self._learned(_SCOPES, document, _scope_field, ".scope")
        return field + text(b"\x1a", scope_spans.schema_url)

    def _learned(
        self, memo: Memo, document: bytes, write: Callable[[bytes, Repairs], bytes], path: str
    ) -> bytes:
        """What is repaired is not kept, since repairs are counted each time."""
        known = memo.find(document)
        if known is not None:
            return known
        repairs = Repairs()
        try:
            field = write(document, repairs)
        except ValueError as error:
            raise Problem.of(error).under(path) from None
        except Problem as problem:
            raise problem.under(path) from None
        for kind, times in repairs.items():
            self._repairs[kind] += times
        if not repairs:
            memo.keep(document, field)
        return field


def _resource_field(document: bytes, repairs: Repairs) -> bytes:
    resource = _read_resource(document)
    if resource is None:
        return b""
    return delimited(
        b"\x0a",
        read_all(b"\x0a", bytes(resource.attributes), repairs)
        + count(b"\x10", resource.dropped_attributes_count, repairs, _DROPPED)
        + b"".join(_entity_ref(ref) for ref in resource.entity_refs or ()),
    )


def _scope_field(document: bytes, repairs: Repairs) -> bytes:
    scope = _read_scope(document)
    if scope is None:
        return b""
    return delimited(
        b"\x0a",
        text(b"\x0a", scope.name)
        + text(b"\x12", scope.version)
        + read_all(b"\x1a", bytes(scope.attributes), repairs)
        + count(b"\x20", scope.dropped_attributes_count, repairs, _DROPPED),
    )


def _entity_ref(ref: EntityRef) -> bytes:
    keys = [delimited(b"\x1a", key.encode()) for key in ref.id_keys or ()]
    keys += [delimited(b"\x22", key.encode()) for key in ref.description_keys or ()]
    return delimited(
        b"\x1a", text(b"\x0a", ref.schema_url) + text(b"\x12", ref.type) + b"".join(keys)
    )


def _camel_case(value: Any) -> Any:
    """The value with the keys of all its objects in lowerCamelCase."""
    if isinstance(value, list):
        return [_camel_case(item) for item in value]
    if isinstance(value, dict):
        return {_UNDERSCORE.sub(_upper, key): _camel_case(item) for key, item in value.items()}
    return value


def _upper(match: re.Match[str]) -> str:
    return match[1].upper()


def _malformed(problem: Problem) -> NoReturn:
    raise Refused(
        Cause.MALFORMED,
        f"the body is no ExportTraceServiceRequest in JSON: at {problem.path}: {problem.problem};"
        " send one object in UTF-8 as the OTLP specification has it under JSON Protobuf Encoding",
    )
