"""How deep attribute values may nest.

Tempo's time to read a value grows with the square of its depth: a compressed request of a quarter
of a megabyte keeps it busy for minutes, a larger one overflows its stack
(open-telemetry/opentelemetry-collector#15301).
"""

from __future__ import annotations

from typing import NoReturn

from gateway.errors import Cause, Refused

MAX_DEPTH = 64
"""An attribute's value is level 1, the values of an array or list of key-values one level more."""


def too_deep() -> NoReturn:
    raise Refused(
        Cause.TOO_DEEP,
        f"an attribute value is nested deeper than {MAX_DEPTH} levels; send flatter values, or the"
        " structure as a string",
    )
