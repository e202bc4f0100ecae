"""How deep attribute values may nest.

Tempo's time to read a value grows with the square of its depth: a compressed request of a quarter
of a megabyte keeps it busy for minutes, a larger one overflows its stack
(open-telemetry/opentelemetry-collector#15301).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn, TypeVar

from google.protobuf.message import EncodeError, Message

from gateway.errors import Cause, Refused
from gateway.otlp.fields import malformed
from gateway.otlp.strict import check_unknown_fields, parts
from proto_stubs.view_pb2 import Array2, Beyond, KeyValues2, Shape, Small

MAX_DEPTH = 64
"""An attribute's value is level 1, the values of an array or list of key-values one level more."""

_VIEW_LEVELS = 4
_ROUND_LEVELS = 3
"""Levels of values that a view tells apart, and Array2 and KeyValues2."""

View = TypeVar("View", Shape, Small)


def parse(view: type[View], serialized: bytes) -> View:
    """A view of a request in which nothing is nested too deep or of a wrong wire type.

    Raises Refused, or DecodeError.
    """
    message = view.FromString(serialized)
    check(message, serialized)
    return message


def check(message: Shape | Small, serialized: bytes) -> None:
    """Raise Refused where something is nested too deep or of a wrong wire type in a request of
    which ``message`` is a view. Columns may have been taken out of it, and its unknown fields are
    discarded.

    Nearly always there is nothing to look at more closely, which costs 1.1 us to see, and 25 more
    where a view still has the columns of 512 spans.
    """
    try:
        size = message.ByteSize()  # raises EncodeError where something lies Beyond
        message.DiscardUnknownFields()
        if message.ByteSize() == size:
            return
    except EncodeError:
        pass
    whole = type(message).FromString(serialized)
    check_unknown_fields(whole)
    _check_depth(whole)


def too_deep() -> NoReturn:
    raise Refused(
        Cause.TOO_DEEP,
        f"an attribute value is nested deeper than {MAX_DEPTH} levels; send flatter values, or the"
        " structure as a string",
    )


def _check_depth(view: Shape | Small) -> None:
    """Raise Refused where a value is nested too deep.

    Sees as much as any parser: a view holds what stands in each occurrence of a field, also where
    others would let the last one win, and what its C parser does not accept is refused. The request
    is judged as a whole: no SDK makes such values, so it is not worth the time to look for the span
    that holds one.
    """
    level = _VIEW_LEVELS
    beyond = list(_beyond(view))
    while beyond:
        arrays = Array2.FromString(b"".join(content for array, content in beyond if array))
        lists = KeyValues2.FromString(b"".join(content for array, content in beyond if not array))
        if level == MAX_DEPTH and (arrays.HasField("values") or lists.HasField("values")):
            too_deep()
        level += _ROUND_LEVELS
        beyond = []
        for deeper in (arrays, lists):
            check_unknown_fields(deeper)
            beyond += _beyond(deeper)


def _beyond(message: Message) -> Iterator[tuple[bool, bytes]]:
    """What lies deeper than the levels of ``message``: the elements of arrays (True) and of lists
    of key-values (False), serialized.
    """
    for part in parts(message):
        for field, value in part.ListFields():
            if field.name == "deprecated_scope_spans":
                malformed(f"field {field.number} of resource_spans is not OTLP; send scope_spans")
            if isinstance(value, Beyond):
                yield field.name == "array_value", value.SerializePartialToString()
