"""Names and values of attributes, for autocompletion.

Looked up in the spans of the newest traces, not in an index: enough for what is offered to
someone who types, and it costs nothing when spans arrive.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.embedded.conditions import AllOf, Both, Either, Exists, Filter, Spanset
from gateway.embedded.messages import Scalar, text
from gateway.embedded.search import Reader, Window
from gateway.embedded.stored import KIND_NAMES, STATUS_NAMES, Field

MAX_SPANS = 20_000
"""Looked at for one answer; takes a tenth of a second."""

SCOPES = ("span", "resource", "event", "link", "instrumentation")
INTRINSIC_TAGS = (
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
)
_KEYWORDS = {"status": STATUS_NAMES, "kind": KIND_NAMES}
_LISTED_INTRINSICS = frozenset(
    [
        *("name", "statusMessage", "rootName", "rootServiceName", "event:name"),
        *("instrumentation:name", "instrumentation:version"),
    ]
)
_TYPES = {str: "string", bool: "bool", int: "int", float: "float"}


def tag_names(
    reader: Reader, tenant: str, window: Window, spanset: Spanset
) -> dict[str, list[str]]:
    """The names by scope, sorted; a scope without any is not there."""
    names: dict[str, set[bytes]] = {scope: set() for scope in SCOPES}
    origins = {}
    for span in reader.spans(tenant, window, spanset, MAX_SPANS):
        origins[span.row.origin] = span.origin
        _add(names["span"], span.message.attributes)
        for event in span.message.events:
            _add(names["event"], event.attributes)
        for link in span.message.links:
            _add(names["link"], link.attributes)
    for origin in origins.values():
        names["resource"].add(b"service.name")  # as in Tempo: it is there, be it empty
        _add(names["resource"], origin.resource)
        _add(names["instrumentation"], origin.scope.attributes)
    return {scope: sorted(map(text, found)) for scope, found in names.items() if found}


def _add(names: set[bytes], attributes: Iterable[Any]) -> None:
    names.update(pair.key for pair in attributes)


def tag_values(
    reader: Reader, tenant: str, window: Window, fields: list[Field], spanset: Spanset
) -> list[tuple[str, str]]:
    """(type, value) of what is under any of the fields in spans that match, sorted."""
    found: set[tuple[str, str]] = set()
    for field in fields:
        if field.is_intrinsic and field.name in _KEYWORDS:
            found |= {("keyword", value) for value in _KEYWORDS[field.name]}
        elif not field.is_intrinsic or field.name in _LISTED_INTRINSICS:
            for span in reader.spans(tenant, window, _having(field, spanset), MAX_SPANS):
                found |= {_typed(value) for value in span.scalars(field)}
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


def _having(field: Field, spanset: Spanset) -> Spanset:
    """The same with only those spans that have the field."""
    if isinstance(spanset, Filter):
        return Filter(AllOf((spanset.condition, Exists(field, expected=True))))
    left, right = _having(field, spanset.left), _having(field, spanset.right)
    return Both(left, right) if isinstance(spanset, Both) else Either(left, right)


def _typed(value: Scalar) -> tuple[str, str]:
    shown = str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
    return _TYPES[type(value)], str(value) if isinstance(value, str) else shown
