from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import Cause, Refused
from gateway.otlp.decode import Media, decode
from gateway.otlp.depth import MAX_DEPTH
from gateway.otlp.fields import DELIMITED, delimited, fields
from tests.kit.spans import make_span
from tests.otlp.strategies import NOW_NS
from tests.otlp.test_protobuf import PADDING

GOOD = make_span(start_time_unix_nano=1).SerializeToString()

PLACES = {
    "resource": lambda attribute: request(b"", resource=delimited(b"\x0a", attribute)),
    "scope": lambda attribute: request(b"", scope=delimited(b"\x1a", attribute)),
    "span": lambda attribute: request(delimited(b"\x4a", attribute)),
    "event": lambda attribute: request(delimited(b"\x5a", delimited(b"\x1a", attribute))),
    "link": lambda attribute: request(
        delimited(
            b"\x6a",
            b"\x0a\x10" + b"i" * 16 + b"\x12\x08" + b"i" * 8 + delimited(b"\x22", attribute),
        )
    ),
}


def request(extra: bytes, *, resource: bytes = b"", scope: bytes = b"") -> bytes:
    spans = delimited(b"\x12", GOOD) + delimited(b"\x12", GOOD + extra)
    scope_spans = delimited(b"\x0a", scope) + spans
    return delimited(b"\x0a", delimited(b"\x0a", resource) + delimited(b"\x12", scope_spans))


def nested(levels: str, innermost: bytes = b"\x18\x01") -> bytes:
    """A KeyValue whose value has ``len(levels) + 1`` levels: ``a`` for arrays, ``k`` for lists."""
    value = innermost
    for level in reversed(levels):
        if level == "a":
            value = delimited(b"\x2a", delimited(b"\x0a", value))
        else:
            value = delimited(b"\x32", delimited(b"\x0a", b"\x0a\x01k" + delimited(b"\x12", value)))
    return b"\x0a\x01k" + delimited(b"\x12", value)


def read(body: bytes) -> int:
    """The spans that are accepted, whether the request is small or large."""
    limits = {"now_ns": NOW_NS, "max_spans": 10_000, "max_bytes": 3 * 2**20}
    outcomes = []
    for sent in (body, body + PADDING):
        try:
            outcomes.append(decode(sent, Media.PROTOBUF, **limits).accepted)
        except Refused as refused:
            outcomes.append(refused)
    small, large = outcomes
    if isinstance(small, Refused) and isinstance(large, Refused):
        assert small.cause == large.cause
        raise small
    assert small == large
    return small


@pytest.mark.parametrize("levels", ["a", "k", "ak", "kka"], ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_64_levels_are_taken_and_65_refused_wherever_values_stand(place, levels):
    deepest = (levels * MAX_DEPTH)[: MAX_DEPTH - 1]
    assert read(PLACES[place](nested(deepest))) == 2
    with pytest.raises(Refused) as refusal:
        read(PLACES[place](nested(deepest + levels[0])))
    assert refusal.value.cause is Cause.TOO_DEEP
    assert "64 levels" in refusal.value.message


@pytest.mark.parametrize("depth", [66, 99, 100, 101, 500, 10_000])
def test_any_greater_depth_is_refused(depth):
    with pytest.raises(Refused):
        read(PLACES["span"](nested("a" * depth)))


def test_empty_container_at_the_last_level_is_taken():
    for container in (b"\x2a\x00", b"\x32\x00"):
        assert read(PLACES["span"](nested("a" * (MAX_DEPTH - 1), container))) == 2


def overlong(tag: bytes, content: bytes) -> bytes:
    """The same field with five-byte tag and length, as no encoder writes it."""
    size = len(content)
    tag_bytes = bytes((tag[0] | 0x80, 0x80, 0x80, 0x80, 0x00))
    length = bytes(size >> shift & 0x7F | (0x80 if shift < 28 else 0) for shift in range(0, 35, 7))
    return tag_bytes + length + content


DISGUISES = {
    "overlong tags and lengths": lambda value: overlong(b"\x2a", overlong(b"\x0a", value)),
    "a scalar behind, which wins": lambda value: (
        delimited(b"\x2a", delimited(b"\x0a", value)) + b"\x0a\x01x"
    ),
    "a shallow element behind": lambda value: delimited(
        b"\x2a", delimited(b"\x0a", value) + b"\x0a\x02\x18\x01"
    ),
    "an empty array behind, which wins": lambda value: (
        delimited(b"\x2a", delimited(b"\x0a", value)) + b"\x2a\x00"
    ),
    "unknown fields before": lambda value: delimited(
        b"\x2a", b"\x78\x01" + delimited(b"\x0a", b"\x78\x01" + value)
    ),
    "the field that is never set": lambda value: delimited(
        b"\x2a", b"\xfa\xff\xff\xff\x0f\x00" + delimited(b"\x0a", value)
    ),
}


@pytest.mark.parametrize("wrap", DISGUISES.values(), ids=DISGUISES.keys())
def test_disguised_depth_is_seen(wrap):
    value = b"\x18\x01"
    for _ in range(MAX_DEPTH - 1):
        value = wrap(value)
    assert read(PLACES["span"](b"\x0a\x01k" + delimited(b"\x12", value))) == 2
    value = wrap(value)
    with pytest.raises(Refused) as refusal:
        read(PLACES["span"](b"\x0a\x01k" + delimited(b"\x12", value)))
    assert refusal.value.cause is Cause.TOO_DEEP


def depth_of(message: bytes, kind: str = "request") -> int:
    """The plain recursive reference: the deepest AnyValue in any occurrence of any field."""
    if kind == "value":
        return 1 + max((depth_of(*child) for child in children(message, kind)), default=0)
    return max((depth_of(*child) for child in children(message, kind)), default=0)


CHILDREN = {
    "request": {1: "resource_spans"},
    "resource_spans": {1: "resource", 2: "scope_spans"},
    "resource": {1: "attribute"},
    "scope_spans": {1: "scope", 2: "span"},
    "scope": {3: "attribute"},
    "span": {9: "attribute", 11: "event", 13: "link"},
    "event": {3: "attribute"},
    "link": {4: "attribute"},
    "attribute": {2: "value"},
    "value": {5: "array", 6: "list"},
    "array": {1: "value"},
    "list": {1: "attribute"},
}


def children(message: bytes, kind: str) -> list[tuple[bytes, str]]:
    return [
        (message[value:stop], CHILDREN[kind][number])
        for number, wire_type, _, value, stop in fields(message)
        if number in CHILDREN[kind] and wire_type == DELIMITED
    ]


@st.composite
def deep_values(draw: st.DrawFn, depth: int) -> bytes:
    """An AnyValue of about this depth, with siblings and repetitions on the way."""
    value = draw(st.sampled_from([b"", b"\x18\x01", b"\x0a\x01x", b"\x2a\x00", b"\x32\x00"]))
    for _ in range(depth):
        sibling = draw(st.sampled_from([b"", b"\x0a\x00", b"\x0a\x02\x18\x01", b"\x12\x00"]))
        write = draw(st.sampled_from([delimited, overlong]))
        if draw(st.booleans()):
            value = write(b"\x2a", write(b"\x0a", value) + sibling)
        else:
            value = write(b"\x32", sibling + write(b"\x0a", write(b"\x12", value)))
        value += draw(st.sampled_from([b"", b"\x2a\x00", b"\x10\x01", b"\x78\x01"]))
    return value


@settings(max_examples=100)
@given(st.data())
def test_agrees_with_a_recursive_reference(data):
    near = st.integers(MAX_DEPTH - 4, MAX_DEPTH + 3) | st.integers(0, 12)
    value = data.draw(near.flatmap(deep_values))
    body = data.draw(st.sampled_from(list(PLACES.values())))(delimited(b"\x12", value))
    if depth_of(body) <= MAX_DEPTH:
        assert read(body) == 2
    else:
        with pytest.raises(Refused):
            read(body)


@given(st.binary(max_size=60))
@example(b"\x2a\x04\x0a\x02\x2a\x00")
def test_arbitrary_value_is_decoded_or_refused(value):
    with suppress(Refused):
        read(PLACES["span"](delimited(b"\x12", value)))


def test_many_deep_values_are_judged_together():
    chain = delimited(b"\x4a", nested("a" * (MAX_DEPTH - 1)))
    assert read(request(chain * 500)) == 2
    deeper = delimited(b"\x4a", nested("a" * MAX_DEPTH))
    with pytest.raises(Refused):
        read(request(chain * 250 + deeper + chain * 250))
