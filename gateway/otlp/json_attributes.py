"""Attributes of OTLP/JSON, written in protobuf.

Most attributes of a service repeat (method GET, status 200, the same host), so what was written is
remembered by the JSON text it came from. It makes decoding three times as fast: 6 us for a span
with ten attributes, of which one is new, instead of 19 (benchmarks/decode.py).
"""

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

_MOST_KNOWN = 16 * 1024
_LONGEST_KNOWN = 128
"""Together at most 7 MB."""
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
NO_ATTRIBUTES = msgspec.Raw(b"[]")
_known: dict[bytes, bytes] = {}
"""Attributes by their JSON text without the outer brackets, each with its length in front."""


def attributes(tag: bytes, raw: msgspec.Raw, repairs: Repairs) -> bytes:
    """A JSON list of attributes as protobuf fields with this tag. Raises Problem."""
    listed = bytes(raw)
    if listed == b"[]":
        return b""
    if listed[:2] == b"[{" and listed[-3:] == b"}}]":
        try:
            # A wrong cut leaves a part that is no JSON object: it ends in a string or in a list.
            written = [_known.get(part) or _learn(part) for part in listed[2:-3].split(b"}},{")]
            return tag + tag.join(written)
        except (ValueError, Problem):
            pass  # The full reading takes what was cut wrongly, and finds where a problem is.
    if len(listed) > _LARGE_BYTES and listed.count(b"{") > len(listed) // _LEAST_OBJECT_BYTES:
        raise Problem("there are too many small attributes", ".attributes")
    try:
        return _key_values(tag, _read_all(listed), 1, repairs)
    except ValueError as error:
        raise Problem.of(error).under(".attributes") from None
    except Problem as problem:
        raise problem.under(".attributes") from None


def _learn(part: bytes) -> bytes:
    """A KeyValue with its length in front. Raises ValueError also where it needs repairs, which are
    to be counted.
    """
    repairs = Repairs()
    written = _key_value(_read_one(b"{" + part + b"}}"), 1, repairs)
    if repairs:
        raise ValueError(part)
    if len(part) <= _LONGEST_KNOWN:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[part] = written
    return written


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
