"""What protobuf's C parser overlooks and stricter parsers refuse.

It keeps a known field of a wrong wire type as an unknown one, and skips groups. Go's parsers refuse
the first, Tempo 3's also the second, and with it all that was delivered together with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from gateway.otlp.fields import START_GROUP, malformed
from proto_stubs.view_pb2 import Beyond


def check_unknown_fields(message: Message) -> None:
    """Raise Refused where an unknown field of a view is not simply one of a newer OTLP."""
    for part in parts(message):
        known = part.DESCRIPTOR.fields_by_number
        unknown = UnknownFieldSet(part)
        for field in (unknown[index] for index in range(len(unknown))):
            if field.wire_type == START_GROUP:
                malformed(f"field {field.field_number} is a group, which OTLP does not have")
            if field.field_number in known:
                name = known[field.field_number].name
                malformed(f"field {name} has wire type {field.wire_type}")


def parts(message: Message) -> Iterator[Message]:
    """The message and all messages in it, but not what lies beyond its levels."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type is not Beyond.DESCRIPTOR:
            for child in value if field.is_repeated else (value,):
                yield from parts(child)
