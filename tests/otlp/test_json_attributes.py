from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.errors import Refused
from gateway.otlp import json_attributes
from gateway.otlp.json_attributes import Attributes
from gateway.otlp.json_scalars import Problem, Repairs
from gateway.otlp.json_values import read_all

TAG = b"\x4a"
ENOUGH = json_attributes._MISSES + 3
_read = msgspec.json.Decoder(list[msgspec.Raw]).decode


def raw(document: bytes) -> msgspec.Raw:
    """As it is found in a request, where it was only passed over; ValueError if it is no JSON."""
    return _read(b"[%b]" % document)[0]


def compact(*attributes: object) -> bytes:
    return json.dumps(attributes, separators=(",", ":"), ensure_ascii=False).encode()


def string(key: str, value: str) -> dict[str, object]:
    return {"key": key, "value": {"stringValue": value}}


def primed(*keys: str) -> Attributes:
    """Cuts lists at these keys."""
    attributes = Attributes(TAG, max_bytes=100_000)
    for index in range(ENOUGH):
        listed = compact(*(string(key, f"{key}{index}") for key in keys))
        attributes.write(raw(listed), Repairs())
    assert [key.start for key in attributes._cuts] == [
        b'{"key":"%b","value":{"stringValue":"' % key.encode() for key in keys
    ]
    return attributes


def outcome(write, document: bytes) -> tuple[object, ...]:
    """What is written and repaired, or how it is refused."""
    repairs = Repairs()
    try:
        return write(raw(document), repairs), repairs
    except (Problem, Refused) as error:
        return type(error), str(error)


def in_full(listed: msgspec.Raw, repairs: Repairs) -> bytes:
    return read_all(TAG, bytes(listed), repairs)


KEPT = Attributes(TAG, max_bytes=20_000)
CUTTING = primed("path", "query")

texts = st.sampled_from(
    [
        "",
        "a",
        "b",
        "path",
        "query",
        "}},{",
        '"}}',
        '"}},{"',
        "\\",
        "é€",
        "/",
        '{"key":"path"',
        "x" * 200,
    ]
)
scalars = st.one_of(
    st.builds(lambda text: {"stringValue": text}, texts),
    st.builds(lambda number: {"intValue": number}, st.integers(-3, 300)),
    st.builds(lambda number: {"intValue": str(number)}, st.integers(-3, 300)),
    st.builds(lambda flag: {"boolValue": flag}, st.booleans()),
    st.sampled_from(
        [
            {},
            None,
            {"doubleValue": 0.5},
            {"intValue": {"low": 1, "high": 0}},
            {"intValue": "x"},
            {"stringValue": "a", "other": "}}"},
            {"bytesValue": "!"},
        ]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(lambda found: {"arrayValue": {"values": found}}, st.lists(inner, max_size=2)),
        st.builds(
            lambda keys, found: {
                "kvlistValue": {
                    "values": [{"key": k, "value": v} for k, v in zip(keys, found, strict=False)]
                }
            },
            st.lists(texts, max_size=2),
            st.lists(inner, max_size=2),
        ),
    ),
    max_leaves=3,
)
attributes = st.builds(lambda key, value: {"key": key, "value": value}, texts, values)
strings = st.builds(string, texts, texts)
odd = st.sampled_from(
    [None, {}, [], [string("path", "x")], {"key": "a"}, {"value": {"stringValue": "a"}, "key": "b"}]
)
separators = st.sampled_from([(",", ":"), (",", ":"), (", ", ": "), (" ,", ":")])
documents = st.builds(
    lambda listed, sep, ascii_only: json.dumps(
        listed, separators=sep, ensure_ascii=ascii_only
    ).encode(),
    st.lists(strings | strings | attributes | odd, max_size=5) | strings | odd,
    separators,
    st.booleans(),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Another byte, or one less or more, so that it often is no list of attributes any more."""
    document = bytearray(draw(documents))
    place = draw(st.integers(0, len(document) - 1))
    byte = draw(st.sampled_from(list(b'"{}[],:\\ x\xff')))
    document[place : place + draw(st.integers(0, 1))] = bytes([byte])[: draw(st.integers(0, 1))]
    return bytes(document)


@settings(max_examples=100)
@given(st.lists(documents | damaged(), min_size=1, max_size=4))
def test_agrees_with_the_full_reading_whatever_is_remembered(found):
    for document in found * 2:
        try:
            raw(document)
        except ValueError:
            continue
        expected = outcome(in_full, document)
        assert outcome(KEPT.write, document) == expected
        assert outcome(CUTTING.write, document) == expected


def read(written: bytes) -> list[tuple[str, str]]:
    found = Span.FromString(written).attributes
    return [(attribute.key, attribute.value.string_value) for attribute in found]


@pytest.mark.parametrize("place", range(3))
def test_lists_are_cut_at_a_key_with_ever_new_values_wherever_it_stands(place):
    attributes = Attributes(TAG, max_bytes=100_000)
    for index in range(ENOUGH + 5):
        listed = [("method", "GET"), ("route", "/cart"), ("host", "shop")]
        listed.insert(place, ("path", f"/cart/{index}"))
        written = attributes.write(raw(compact(*(string(*pair) for pair in listed))), Repairs())
        assert read(written) == listed
    assert [key.start for key in attributes._cuts] == [b'{"key":"path","value":{"stringValue":"']
    assert len(attributes._runs.recent) <= 6


def test_keys_with_few_values_do_not_cut():
    attributes = Attributes(TAG, max_bytes=100_000)
    for index in range(4 * ENOUGH):
        attributes.write(raw(compact(string("path", f"/{index % 50}"))), Repairs())
    assert not attributes._cuts


def test_cuts_follow_what_is_sent():
    """Keys that were noticed last take the place of others, in the order in which they stand."""
    attributes = primed("b", "a")
    for number in range(5):
        for index in range(ENOUGH):
            listed = compact(string(f"k{number}", str(index)), string("a", str(index)))
            attributes.write(raw(listed), Repairs())
    starts = b" ".join(key.start for key in attributes._cuts)
    assert len(attributes._cuts) == json_attributes._MOST_CUTS
    assert b'"k4"' in starts
    assert b'"b"' not in starts


def test_lists_without_runs_that_repeat_are_read_apart_until_one_is_worth_cutting():
    attributes = primed("path")
    for index in range(4 * json_attributes._REVIEW):
        values = (index % 37, index % 31, index % 29, index % 23)
        listed = [(f"k{place}", str(value)) for place, value in enumerate(values)]
        written = attributes.write(raw(compact(*(string(*pair) for pair in listed))), Repairs())
        assert read(written) == listed
    assert attributes._apart
    assert not attributes._cuts
    for index in range(ENOUGH):
        attributes.write(raw(compact(string("path", f"/new/{index}"))), Repairs())
    assert not attributes._apart
    assert len(attributes._cuts) == 1


def test_a_flood_of_keys_and_values_stays_within_bounds():
    attributes = Attributes(TAG, max_bytes=100_000)
    for index in range(3000):
        listed = compact(
            string(f"key{index}" * (index % 50), "x" * (index % 300)),
            string("same", "y" * (index % 1000)),
        )
        attributes.write(raw(listed), Repairs())
    assert len(attributes._keys) <= json_attributes._MOST_KEYS
    assert all(
        len(key._heads) <= json_attributes._MOST_HEADS for key in attributes._keys.values() if key
    )
    assert len(attributes._seen) <= json_attributes._MOST_SEEN
    assert max(map(len, attributes._keys)) <= 128
    for memo in (attributes._attributes, attributes._runs):
        assert sum(map(len, memo.recent)) + sum(map(len, memo._older)) <= 50_000


def test_text_that_is_not_utf8_is_refused_though_it_was_only_passed_over():
    for attributes in (KEPT, CUTTING):
        for key in (b"path", b"other"):
            document = b'[{"key":"%b","value":{"stringValue":"\xff"}}]' % key
            with pytest.raises(Problem, match="utf-8"):
                attributes.write(raw(document), Repairs())


def test_repairs_are_counted_each_time():
    document = compact(
        string("path", "x"), {"key": "n", "value": {"intValue": {"low": 1, "high": 0}}}
    )
    for _ in range(2):
        repairs = Repairs()
        with suppress(Problem):
            CUTTING.write(raw(document), repairs)
        assert repairs == {"integer_halves": 1}
