"""The protobuf wire format as far as it leads to spans: resource_spans > scope_spans > spans.

Reads tags and lengths as strictly as protobuf's own C parser: at most five bytes each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from gateway.errors import Cause, Refused

VARINT, FIXED64, DELIMITED, START_GROUP, END_GROUP, FIXED32 = range(6)

RESOURCE_SPANS, SCOPE_SPANS, SPANS = 1, 2, 2
"""Field numbers in a request, in a resource_spans, in a scope_spans."""
TAGS = (b"\x0a", b"\x12", b"\x12")
"""The tags of these fields."""


Field = tuple[int, int, int, int, int]
"""Number, wire type, and where a field stands: its tag, its content, what is behind it."""


def fields(
    buffer: bytes, start: int = 0, stop: int | None = None, path: int | None = None
) -> Iterator[Field]:
    """The fields between two offsets, a group as one field.

    Raises Refused at the first that is no valid field, also where field ``path`` is no message.
    """
    position = start
    stop = len(buffer) if stop is None else stop
    while position < stop:
        tag = buffer[position]
        value = position + 1
        if tag > 0x7F:
            tag, value = _varint(buffer, position, stop, 5)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or number >= 1 << 29:
            malformed(f"field number {number} at byte {position}")
        if wire_type == DELIMITED:
            length, value = _varint(buffer, value, stop, 5)
            end = value + length
        elif number == path:
            malformed(f"field {number} at byte {position} has wire type {wire_type}, not 2")
        else:
            end = _end_of(buffer, tag, value, stop)
        if end > stop:
            malformed(f"the field at byte {position} is {end - stop} bytes too long")
        yield number, wire_type, position, value, end
        position = end


def delimited(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field: a message, string or bytes."""
    return tag + varint(len(content)) + content


def varint(value: int) -> bytes:
    """``value`` is from 0 to 2**64 - 1."""
    return _SHORT[value] if value < len(_SHORT) else _varint_of(value)


def _varint_of(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SHORT = [_varint_of(value) for value in range(1024)]


def malformed(problem: str) -> NoReturn:
    raise Refused(
        Cause.MALFORMED,
        f"the body is no ExportTraceServiceRequest in protobuf: {problem}; check that the sender"
        " serializes OTLP, that Content-Type and Content-Encoding are true, and that the body is"
        " sent whole",
    )


def _varint(buffer: bytes, position: int, stop: int, max_bytes: int) -> tuple[int, int]:
    """A varint and the offset behind it."""
    if position < stop and buffer[position] < 0x80:
        return buffer[position], position + 1
    value = shift = 0
    for offset in range(position, min(stop, position + max_bytes)):
        byte = buffer[offset]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset + 1
        shift += 7
    malformed(f"the number at byte {position} is cut off or too long")


def _end_of(buffer: bytes, tag: int, position: int, stop: int) -> int:
    """The offset behind a field whose tag ends at ``position``; may lie behind ``stop``."""
    match tag & 7:
        case 0:  # VARINT
            return _varint(buffer, position, stop, 10)[1]
        case 1:  # FIXED64
            return position + 8
        case 2:  # DELIMITED
            length, position = _varint(buffer, position, stop, 5)
            return position + length
        case 3:  # START_GROUP
            return _end_of_group(buffer, tag >> 3, position, stop)
        case 5:  # FIXED32
            return position + 4
        case wire_type:
            malformed(f"wire type {wire_type} before byte {position}")


def _end_of_group(buffer: bytes, number: int, position: int, stop: int) -> int:
    """The offset behind the end tag of an unknown group; groups in it may nest."""
    open_groups = [number]
    while open_groups:
        tag, position = _varint(buffer, position, stop, 5)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == START_GROUP:
            open_groups.append(number)
        elif wire_type != END_GROUP:
            position = _end_of(buffer, tag, position, stop)
        elif number != open_groups.pop():
            malformed(f"a group ends at byte {position} that was not open")
    return position
