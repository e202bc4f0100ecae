"""A condition as SQL that lets every span through for which it can hold, and some more.

SQLite looks at the columns and at the bytes of the message, which is many times faster than
parsing it in Python; what passes is judged by the condition itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.embedded.conditions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Constant,
    Contains,
    Exists,
    Matches,
)
from gateway.embedded.messages import Scalar, serialized_value
from gateway.embedded.stored import Field, Origin, Row, StoredSpan

MAX_ORIGINS = 200
"""In one list; with as many conditions as a query may have it stays below SQLite's limit of 32,766
parameters.
"""

_COLUMNS = {
    "name": "s.name",
    "status": "s.status",
    "kind": "s.kind",
    "duration": "s.duration_ns",
    "traceDuration": "(t.end_ns - t.start_ns)",
    "rootName": "t.root_name",
    "rootServiceName": "t.root_service",
}
_IDS = {"trace:id": "t.trace_id", "span:id": "s.span_id"}
_IN_BODY = frozenset(["statusMessage", "event:name"])


class Sql(NamedTuple):
    """An expression and its parameters. ``EVERYTHING`` filters nothing."""

    text: str
    parameters: tuple[Scalar | bytes, ...] = ()


_NO_SPAN = Row(0, b"", 0, 0, "", "", b"", 0, 0, "", 0, 0, 0, b"")
EVERYTHING = Sql("1")
NOTHING = Sql("0")


class Prefilter:
    """``origins`` are those of the tenant by their key."""

    def __init__(self, origins: Mapping[int, Origin], check: Callable[[], None]) -> None:
        self._origins = origins
        self._check = check

    def sql(self, condition: Condition) -> Sql:
        match condition:
            case Constant(value):
                return EVERYTHING if value else NOTHING
            case AllOf(parts):
                return all_of([self.sql(part) for part in parts])
            case AnyOf(parts):
                return any_of([self.sql(part) for part in parts])
            case Compare(field, sign, operand) if field.is_intrinsic:
                return _intrinsic(field.name, sign, operand)
            case Compare(field, "=", operand):
                return self._attribute(condition, field, serialized_value(operand))
            case Compare(field) | Matches(field) | Contains(field) | Exists(field, True):
                return EVERYTHING if field.is_intrinsic else self._attribute(condition, field)
            case _:
                return EVERYTHING

    def _attribute(self, condition: Condition, field: Field, value: bytes = b"") -> Sql:
        """A key, and a value that it has to equal, stand in the message as they are."""
        in_body = all_of([_contains(field.name.encode()), _contains(value)])
        match field.scope:
            case "resource" | "instrumentation":
                return self._of_origins(condition)
            case "":
                return any_of([in_body, self._of_origins(condition)])
            case _:
                return in_body

    def _of_origins(self, condition: Condition) -> Sql:
        """Those of the origins for which the condition holds already."""
        keys = tuple(
            key
            for key, origin in self._origins.items()
            if condition.holds(StoredSpan(_NO_SPAN, origin, self._check))
        )
        if len(keys) > MAX_ORIGINS:
            return EVERYTHING
        return Sql(f"s.origin IN ({', '.join('?' * len(keys))})", keys) if keys else NOTHING


def _intrinsic(name: str, sign: str, operand: Scalar) -> Sql:
    if name in _COLUMNS:
        return Sql(f"{_COLUMNS[name]} {sign} ?", (operand,))
    if sign == "=" and isinstance(operand, str):
        if name in _IN_BODY:
            return _contains(operand.encode())
        if name in _IDS:
            return _same_id(_IDS[name], operand)
    return EVERYTHING


def _same_id(column: str, digits: str) -> Sql:
    try:
        return Sql(f"{column} = ?", (bytes.fromhex(digits),))
    except ValueError:
        return NOTHING


def _contains(part: bytes) -> Sql:
    return Sql("instr(s.body, ?)", (part,)) if part else EVERYTHING


def all_of(parts: list[Sql]) -> Sql:
    parts = [part for part in parts if part != EVERYTHING]
    return _join(" AND ", parts) if parts else EVERYTHING


def any_of(parts: list[Sql]) -> Sql:
    if EVERYTHING in parts:
        return EVERYTHING
    parts = [part for part in parts if part != NOTHING]
    return _join(" OR ", parts) if parts else NOTHING


def _join(word: str, parts: list[Sql]) -> Sql:
    if len(parts) == 1:
        return parts[0]
    text = word.join(f"({part.text})" for part in parts)
    return Sql(text, tuple(value for part in parts for value in part.parameters))
