"""Values and lists of attributes in OTLP/JSON, written in protobuf; all that is allowed."""

from __future__ import annotations

import base64
import struct

import msgspec

from gateway.otlp.depth import MAX_DEPTH, too_deep
from gateway.otlp.fields import delimited, varint
from gateway.otlp.json_scalars import (
    INT64,
    UINT64,
    Number,
    Object,
    Problem,
    Repairs,
    integer,
)

_LARGE_BYTES = 256 * 1024
_LEAST_OBJECT_BYTES = 32
"""Objects cost about 80 bytes each while a list is read. No SDK puts thousands on a span."""
_DOUBLE = struct.Struct("<d")
_URL_SAFE = str.maketrans("-_", "+/")


class AnyValue(Object):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: Number = None
    double_value: float | None = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None
    bytes_value: str | None = None


class ArrayValue(Object):
    values: list[AnyValue] | None = None


class KeyValue(Object):
    key: str | None = None
    value: AnyValue | None = None


class KeyValueList(Object):
    values: list[KeyValue] | None = None


_read_one = msgspec.json.Decoder(KeyValue, strict=False).decode
_read_all = msgspec.json.Decoder(list[KeyValue] | None, strict=False).decode


def read_one(document: bytes, repairs: Repairs) -> bytes:
    """A KeyValue with its length in front. Raises Problem, or ValueError for what is none."""
    return _key_value(_read_one(document), 1, repairs)


def read_all(tag: bytes, document: bytes, repairs: Repairs) -> bytes:
    """A list of attributes as fields with this tag. Raises Problem."""
    size = len(document)
    if size > _LARGE_BYTES and document.count(b"{") > size // _LEAST_OBJECT_BYTES:
        raise Problem("there are too many small attributes", ".attributes")
    try:
        return _key_values(tag, _read_all(document), 1, repairs)
    except ValueError as error:
        raise Problem.of(error).under(".attributes") from None
    except Problem as problem:
        raise problem.under(".attributes") from None


def _key_values(tag: bytes, found: list[KeyValue] | None, depth: int, repairs: Repairs) -> bytes:
    """Fields with this tag; the values are at this level of nesting."""
    written = []
    for index, key_value in enumerate(found or ()):
        try:
            written.append(tag + _key_value(key_value, depth, repairs))
        except Problem as problem:
            raise problem.under(f"[{index}].value") from None
    return b"".join(written)


def _key_value(key_value: KeyValue, depth: int, repairs: Repairs) -> bytes:
    """A KeyValue with its length in front."""
    content = b""
    if key_value.key:
        content = delimited(b"\x0a", key_value.key.encode())
    if key_value.value is not None:
        content += delimited(b"\x12", _value(key_value.value, depth, repairs))
    return varint(len(content)) + content


def _value(value: AnyValue, depth: int, repairs: Repairs) -> bytes:
    """The content of an AnyValue at this level of nesting."""
    if depth > MAX_DEPTH:
        too_deep()
    if value.string_value is not None:
        return delimited(b"\x0a", value.string_value.encode())
    if value.bool_value is not None:
        return b"\x10\x01" if value.bool_value else b"\x10\x00"
    if value.int_value is not None:
        return b"\x18" + varint(integer(value.int_value, INT64, repairs, ".intValue") & UINT64[1])
    if value.double_value is not None:
        return b"\x21" + _DOUBLE.pack(value.double_value)
    if value.array_value is not None:
        return delimited(b"\x2a", _array(value.array_value.values, depth + 1, repairs))
    if value.kvlist_value is not None:
        try:
            content = _key_values(b"\x0a", value.kvlist_value.values, depth + 1, repairs)
        except Problem as problem:
            raise problem.under(".kvlistValue.values") from None
        return delimited(b"\x32", content)
    if value.bytes_value is not None:
        return delimited(b"\x3a", _base64(value.bytes_value))
    return b""


def _array(values: list[AnyValue] | None, depth: int, repairs: Repairs) -> bytes:
    written = []
    for index, value in enumerate(values or ()):
        try:
            written.append(delimited(b"\x0a", _value(value, depth, repairs)))
        except Problem as problem:
            raise problem.under(f".arrayValue.values[{index}]") from None
    return b"".join(written)


def _base64(text: str) -> bytes:
    """Standard or URL-safe, padded or not, as proto3 JSON takes it."""
    text = text.translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise Problem("expected base64", ".bytesValue") from None
