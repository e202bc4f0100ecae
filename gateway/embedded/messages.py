"""OTLP's trace messages with every string as bytes, for what arrives and is kept.

Tempo stores strings that are not UTF-8 and gives them back, while the official Python classes
refuse to parse them. So the official descriptors are loaded a second time, into a pool of their
own, with each ``string`` field declared as ``bytes``: the wire format is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2


def _strings_as_bytes(messages: Iterable[DescriptorProto]) -> None:
    for message in messages:
        for field in message.field:
            if field.type == FieldDescriptorProto.TYPE_STRING:
                field.type = FieldDescriptorProto.TYPE_BYTES
        _strings_as_bytes(message.nested_type)


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2):
        file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        _strings_as_bytes(file.message_type)
        pool.Add(file)
    return pool


def _message_class(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(f"opentelemetry.proto.{name}"))


_POOL = _pool()
# An ExportTraceServiceRequest is the same message under another name.
TracesData: Any = _message_class("trace.v1.TracesData")
ResourceSpans: Any = _message_class("trace.v1.ResourceSpans")
Span: Any = _message_class("trace.v1.Span")
_AnyValue: Any = _message_class("common.v1.AnyValue")


def text(value: bytes) -> str:
    """A string field as text; what is not UTF-8 is replaced, as Tempo does in JSON."""
    return value.decode("utf-8", "replace")


Scalar = str | bool | int | float
Value = Scalar | list[Scalar]


def attribute_value(value: Any) -> Value | None:
    """An ``AnyValue`` as queries see it. Key-value lists and bytes cannot be searched: None."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return text(value.string_value)
    if kind == "array_value":
        elements = (attribute_value(element) for element in value.array_value.values)
        return [element for element in elements if isinstance(element, Scalar)]
    if kind in {"bool_value", "int_value", "double_value"}:
        scalar: Scalar = getattr(value, kind)
        return scalar
    return None


def serialized_value(value: Scalar) -> bytes:
    """The ``AnyValue`` as it stands in a serialized message."""
    if isinstance(value, str):
        message = _AnyValue(string_value=value.encode())
    elif isinstance(value, bool):
        message = _AnyValue(bool_value=value)
    elif isinstance(value, int):
        message = _AnyValue(int_value=value)
    else:
        message = _AnyValue(double_value=value)
    serialized: bytes = message.SerializeToString()
    return serialized


def attribute(attributes: Any, key: bytes) -> list[Value]:
    """The searchable values under ``key``; at most one in data that is as it should be."""
    found = [attribute_value(pair.value) for pair in attributes if pair.key == key]
    return [value for value in found if value is not None]
