"""Comparisons of fields and literals, with the type rules of TraceQL."""

from __future__ import annotations

from typing import NamedTuple

from gateway.embedded.conditions import (
    Compare,
    CompareFields,
    Condition,
    Constant,
    Exists,
    Matches,
    compare,
)
from gateway.embedded.messages import Scalar
from gateway.embedded.regex import Regex
from gateway.embedded.regex_syntax import RegexError
from gateway.embedded.stored import KIND_NAMES, STATUS_NAMES, Field


class TraceqlError(ValueError):
    """The query cannot be answered; the text is for the one who wrote it."""


# What may stand on both sides of an operator.
_EQUALITY = frozenset(["=", "!="])
_ORDER = _EQUALITY | {"<", "<=", ">", ">="}
_OPERATORS = {
    "string": _ORDER | {"=~", "!~"},
    "int": _ORDER,
    "float": _ORDER,
    "duration": _ORDER,
    "bool": _EQUALITY,
    "status": _EQUALITY,
    "kind": _EQUALITY,
    "nil": _EQUALITY,
    "id": _EQUALITY,
}
_COMPARABLE = {"int": "number", "float": "number", "duration": "number", "id": "string"}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_INTRINSIC_TYPES = {
    "status": "status",
    "kind": "kind",
    "duration": "duration",
    "traceDuration": "duration",
    "event:timeSinceStart": "duration",
    "trace:id": "id",
    "span:id": "id",
    "span:parentID": "id",
    "link:traceID": "id",
    "link:spanID": "id",
}


class Literal(NamedTuple):
    type: str
    value: Scalar | None
    text: str


def _type_of(operand: Field | Literal) -> str:
    """A type of ``_OPERATORS``, or "" for an attribute, which can be of any."""
    if isinstance(operand, Literal):
        return operand.type
    return _INTRINSIC_TYPES.get(operand.name, "string") if operand.is_intrinsic else ""


def _shown(operand: Field | Literal) -> str:
    if isinstance(operand, Literal):
        return operand.text
    return operand.name if operand.is_intrinsic else f"{operand.scope}.{operand.name}"


def keyword(word: str) -> Literal | None:
    """``true``, ``nil``, a status or a kind; None for any other word."""
    if word in {"true", "false"}:
        return Literal("bool", word == "true", word)
    if word in STATUS_NAMES:
        return Literal("status", STATUS_NAMES.index(word), word)
    if word in KIND_NAMES:
        return Literal("kind", KIND_NAMES.index(word), word)
    return Literal("nil", None, word) if word == "nil" else None


def comparison(left: Field | Literal, sign: str, right: Field | Literal) -> Condition:
    """``left sign right`` as a condition. Raises TraceqlError where Tempo refuses the types."""
    if isinstance(right, Field) and sign in {"=~", "!~"}:
        raise TraceqlError(f"invalid type for =~ or !~: {_shown(right)}")
    _check_types(left, sign, right)
    if isinstance(left, Field):
        if isinstance(right, Field):
            return CompareFields(left, sign, right)
        return _field_and_literal(left, sign, right)
    if isinstance(right, Field):
        return _field_and_literal(right, _FLIPPED.get(sign, sign), left)
    return _constant(left, sign, right)


def _check_types(left: Field | Literal, sign: str, right: Field | Literal) -> None:
    types = [_type_of(left), _type_of(right)]
    shown = f"{_shown(left)} {sign} {_shown(right)}"
    if len({_COMPARABLE.get(each, each) for each in types} - {"", "nil"}) > 1:
        raise TraceqlError(f"binary operations must operate on the same type: {shown}")
    if any(each and sign not in _OPERATORS[each] for each in types):
        raise TraceqlError(f"illegal operation for the given types: {shown}")


def _constant(left: Literal, sign: str, right: Literal) -> Condition:
    if sign in {"=~", "!~"}:
        return Constant(_regex(str(right.value)).matches(str(left.value)) is (sign == "=~"))
    if left.value is None or right.value is None:
        return Constant(value=False)
    return Constant(compare(left.value, sign, right.value))


def _field_and_literal(field: Field, sign: str, literal: Literal) -> Condition:
    if literal.value is None:
        if sign == "=" and (field.is_intrinsic or field == Field("resource", "service.name")):
            raise TraceqlError(f"{_shown(field)}=nil is not valid because it cannot be nil")
        return Exists(field, expected=sign == "!=")
    if sign in {"=~", "!~"}:
        return Matches(field, _regex(str(literal.value)), expected=sign == "=~")
    if _type_of(field) == "id":
        return _same_id(field, sign, str(literal.value))
    if not field.is_intrinsic and literal.type in {"duration", "status", "kind"}:
        return Constant(value=False)  # no attribute is of these types
    return Compare(field, sign, literal.value)


def _same_id(field: Field, sign: str, digits: str) -> Condition:
    """Ids compare as numbers in hex: leading zeros may be left out."""
    width = 32 if field.name in {"trace:id", "link:traceID"} else 16
    return Compare(field, sign, digits.lower().rjust(width, "0"))


def _regex(pattern: str) -> Regex:
    try:
        return Regex(pattern)
    except RegexError as error:
        raise TraceqlError(f"invalid regex: `{pattern}`: {error}") from None
