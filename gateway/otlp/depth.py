"""How deep attribute values may nest.

Tempo's time to read a value grows with the square of its depth: a compressed request of a quarter
of a megabyte keeps it busy for minutes, a larger one overflows its stack
(open-telemetry/opentelemetry-collector#15301).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from google.protobuf.message import Message

from gateway.errors import Cause, Refused
from gateway.otlp.fields import malformed
from proto_stubs.view_pb2 import Array2, Beyond, KeyValues2, Shape, ShapeResourceSpans

MAX_DEPTH = 64
"""An attribute's value is level 1, the values of an array or list of key-values one level more."""

_SHAPE_LEVELS = 4
_ROUND_LEVELS = 3
"""Levels of values that Shape tells apart, and Array2 and KeyValues2."""


def check_depth(shape: Shape) -> None:
    """Raise Refused where a value is nested too deep.

    Sees as much as any parser: it goes by the shape, which holds what stands in each occurrence of
    a field, also where others would let the last one win; and what the shape's C parser does not
    accept is refused as malformed. Only the request as a whole is judged: no SDK makes such values,
    so looking for the span that holds it is not worth the time.
    """
    if shape.IsInitialized():
        return
    if shape.resource_spans.HasField("deprecated_scope_spans"):
        malformed(
            f"field {ShapeResourceSpans.DEPRECATED_SCOPE_SPANS_FIELD_NUMBER} of resource_spans is"
            " not part of OTLP; send scope_spans"
        )
    level = _SHAPE_LEVELS
    beyond = list(_beyond(shape))
    while beyond:
        arrays = Array2.FromString(b"".join(content for array, content in beyond if array))
        lists = KeyValues2.FromString(b"".join(content for array, content in beyond if not array))
        if level == MAX_DEPTH and (arrays.HasField("values") or lists.HasField("values")):
            too_deep()
        level += _ROUND_LEVELS
        beyond = [*_beyond(arrays), *_beyond(lists)]


def too_deep() -> NoReturn:
    raise Refused(
        Cause.TOO_DEEP,
        f"an attribute value is nested deeper than {MAX_DEPTH} levels; send flatter values, or the"
        " structure as a string",
    )


def _beyond(message: Message) -> Iterator[tuple[bool, bytes]]:
    """What lies deeper than the levels of ``message``: the elements of arrays (True) and of lists
    of key-values (False), serialized.
    """
    for field, value in message.ListFields():
        if isinstance(value, Beyond):
            yield field.name == "array_value", value.SerializePartialToString()
        elif isinstance(value, Message):
            yield from _beyond(value)
