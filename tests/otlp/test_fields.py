from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Cause, Refused
from gateway.otlp.fields import delimited, fields, varint


@given(st.integers(0, 2**64 - 1))
def test_varint_is_read_as_it_was_written(value):
    (field,) = fields(b"\x08" + varint(value))
    assert field == (1, 0, 0, 1, 1 + len(varint(value)))


@given(st.lists(st.tuples(st.integers(1, 15), st.binary(max_size=300)), max_size=5))
def test_fields_are_found_where_they_stand(pairs):
    parts = [delimited(bytes((number << 3 | 2,)), content) for number, content in pairs]
    buffer = b"".join(parts)
    found = list(fields(buffer))
    assert [buffer[start:stop] for _, _, start, _, stop in found] == parts
    assert [(number, buffer[value:stop]) for number, _, _, value, stop in found] == pairs


def test_all_wire_types_are_passed_over():
    group = b"\x1b\x08\x01\x23\x24\x1a\x01x\x1c"
    buffer = b"\x08\x96\x01" + b"\x11" + bytes(8) + group + b"\x25" + bytes(4)
    assert [(number, wire) for number, wire, *_ in fields(buffer)] == [
        (1, 0),
        (2, 1),
        (3, 3),
        (4, 5),
    ]


@pytest.mark.parametrize(
    "buffer",
    [
        b"\x02\x00",
        b"\x82\x80\x80\x80\x10\x00",
        b"\x88\x80\x80\x80\x80\x00\x00",
        b"\x08",
        b"\x08\xff",
        b"\x08" + b"\xff" * 10 + b"\x01",
        b"\x0a",
        b"\x0a\x01",
        b"\x0a\xff\xff\xff\xff\xff\x01",
        b"\x09" + bytes(7),
        b"\x0d" + bytes(3),
        b"\x0c",
        b"\x0b",
        b"\x0b\x14",
        b"\x0e\x00",
    ],
)
def test_what_is_no_field_is_malformed(buffer):
    with pytest.raises(Refused) as refusal:
        list(fields(buffer))
    assert refusal.value.cause is Cause.MALFORMED


def test_fields_end_with_their_message():
    """What follows in the buffer belongs to another message."""
    with pytest.raises(Refused):
        list(fields(b"\x0a\x02xy", 0, 3))
    with pytest.raises(Refused):
        list(fields(b"\x08\x01", 0, 1))
    assert list(fields(b"\x08\x01\x08\x02", 2, 4)) == [(1, 0, 2, 3, 4)]


def test_field_on_the_path_must_be_a_message():
    assert len(list(fields(b"\x08\x01"))) == 1
    with pytest.raises(Refused, match="wire type 0"):
        list(fields(b"\x08\x01", path=1))
