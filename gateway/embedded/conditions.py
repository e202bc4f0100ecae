"""What a query asks of a span, as a tree that can be applied to one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gateway.embedded.messages import Scalar
from gateway.embedded.regex import Regex
from gateway.embedded.stored import Field, StoredSpan

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare(left: Scalar, sign: str, right: Scalar) -> bool:
    """Both are of types that can be compared so."""
    return _COMPARE[sign](left, right)


@dataclass(frozen=True, slots=True)
class Constant:
    value: bool

    def holds(self, _span: StoredSpan) -> bool:
        return self.value


@dataclass(frozen=True, slots=True)
class Compare:
    """Some value of the field is of the operand's type and compares so.

    The types have to be the same, as in Tempo: 200 is not 200.0. A field that is not there
    compares to nothing, not even with ``!=``.
    """

    field: Field
    operator: str
    operand: Scalar

    def holds(self, span: StoredSpan) -> bool:
        return bool(self.matches(span))

    def matches(self, span: StoredSpan) -> list[Scalar]:
        """The values for which it holds."""
        values = span.scalars(self.field)
        if not self.field.is_intrinsic:
            values = [value for value in values if type(value) is type(self.operand)]
        return [value for value in values if compare(value, self.operator, self.operand)]


@dataclass(frozen=True, slots=True)
class Contains:
    """Some value of the field is a string with the operand in it. Only ``tags=`` has it."""

    field: Field
    operand: str

    def holds(self, span: StoredSpan) -> bool:
        return any(
            isinstance(value, str) and self.operand in value for value in span.scalars(self.field)
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """Some value of the field is a string that the expression matches, or does not."""

    field: Field
    regex: Regex
    expected: bool

    def holds(self, span: StoredSpan) -> bool:
        return bool(self.matches(span))

    def matches(self, span: StoredSpan) -> list[Scalar]:
        """The values for which it holds."""
        return [
            value
            for value in span.scalars(self.field)
            if isinstance(value, str) and self.regex.matches(value, span.check) is self.expected
        ]


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there, or it is not."""

    field: Field
    expected: bool

    def holds(self, span: StoredSpan) -> bool:
        return bool(span.values(self.field)) is self.expected


@dataclass(frozen=True, slots=True)
class CompareFields:
    """The first values of both fields are of one type and compare so."""

    left: Field
    operator: str
    right: Field

    def holds(self, span: StoredSpan) -> bool:
        left, right = span.scalars(self.left)[:1], span.scalars(self.right)[:1]
        return any(
            type(one) is type(other) and compare(one, self.operator, other)
            for one, other in zip(left, right, strict=False)
        )


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Condition, ...]

    def holds(self, span: StoredSpan) -> bool:
        return all(part.holds(span) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Condition, ...]

    def holds(self, span: StoredSpan) -> bool:
        return any(part.holds(span) for part in self.parts)


Condition = Constant | Compare | Contains | Matches | Exists | CompareFields | AllOf | AnyOf


def leaves(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, AllOf | AnyOf):
        for part in condition.parts:
            yield from leaves(part)
    else:
        yield condition


# Spansets: which spans of one trace are meant.


@dataclass(frozen=True, slots=True)
class Filter:
    """The spans for which the condition holds."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Both:
    """The spans of both, if neither is empty."""

    left: Spanset
    right: Spanset


@dataclass(frozen=True, slots=True)
class Either:
    """The spans of both."""

    left: Spanset
    right: Spanset


Spanset = Filter | Both | Either


def filters(spanset: Spanset) -> list[Filter]:
    """Its filters from left to right."""
    if isinstance(spanset, Filter):
        return [spanset]
    return filters(spanset.left) + filters(spanset.right)
