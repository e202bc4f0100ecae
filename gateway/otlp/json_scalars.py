"""Scalars of OTLP/JSON: numbers, ids and enums as clients write them.

What clients are known to send is taken where it is unambiguous; what departs from the
specification is counted as a repair. What cannot be understood raises Problem.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import msgspec

UINT32 = (0, 2**32 - 1)
UINT64 = (0, 2**64 - 1)
INT64 = (-(2**63), 2**63 - 1)

BAD_ID = b"?"
"""Stands for an id that is neither hex nor base64: of no valid length, so the rules refuse it."""

_NUMBER_EXPECTED = "`int | float | object | null`"


class Repairs(dict[str, int]):
    """Odd but clear values that were taken, by kind."""

    def __missing__(self, kind: str) -> int:
        return 0


class Problem(Exception):  # noqa: N818 - becomes a refusal once its place is known
    """A value that cannot be understood, with its JSON path as far as it is known."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem, path)
        self.problem = problem
        self.path = path

    def under(self, parent: str) -> Problem:
        return Problem(self.problem, parent + self.path)

    @classmethod
    def of(cls, error: ValueError) -> Problem:
        """What msgspec or the UTF-8 decoder found."""
        problem, _, path = str(error).partition(" - at `$")
        problem = problem.replace(_NUMBER_EXPECTED, "a number, 64-bit ones as decimal strings")
        return cls(problem, path.rstrip("`"))


class Object(msgspec.Struct, rename="camel", gc=False):
    """An object of OTLP/JSON: keys are lowerCamelCase, unknown ones ignored, null is as absent.

    To be read with ``strict=False``, which takes numbers as strings, NaN and Infinity among them.
    """


class Halves(msgspec.Struct, gc=False):
    """A 64-bit integer as old JavaScript exporters write it."""

    low: int
    high: int


Number = int | float | Halves | None
"""Also integers may come as floats: JavaScript writes large ones as 1e21."""


def integer(value: Number, bounds: tuple[int, int], repairs: Repairs, path: str) -> int:
    """0 where absent."""
    if value is None:
        return 0
    number: int | None
    if isinstance(value, int):
        number = value
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    else:
        repairs["integer_halves"] += 1
        number = (value.high & 0xFFFFFFFF) << 32 | value.low & 0xFFFFFFFF
        if number > bounds[1]:
            number -= 1 << 64
    if number is None or not bounds[0] <= number <= bounds[1]:
        raise Problem(f"expected a whole number from {bounds[0]} to {bounds[1]}", path)
    return number


def enum(value: int | str | None, names: Mapping[str, int], repairs: Repairs, path: str) -> int:
    """0 where absent, or a name that is not known."""
    if value is None:
        return 0
    if isinstance(value, str):
        repairs["enum_name" if value in names else "enum_unknown"] += 1
        return names.get(value, 0)
    if not -(2**31) <= value < 2**31:
        raise Problem("expected a 32-bit integer", path)
    return value


def identifier(text: str, size: int, repairs: Repairs) -> bytes:
    """Hex in either case, or base64 of exactly ``size`` bytes."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return _identifier_of_base64(text, size, repairs)
    return found if 2 * len(found) == len(text) else BAD_ID  # fromhex skips blanks


def _identifier_of_base64(text: str, size: int, repairs: Repairs) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        return BAD_ID
    if len(found) != size:
        return BAD_ID
    repairs["base64_id"] += 1
    return found
