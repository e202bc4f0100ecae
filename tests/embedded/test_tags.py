from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from gateway.embedded import tags
from gateway.embedded.decode import decode
from gateway.embedded.search import Reader, Window
from gateway.embedded.store import Store
from gateway.embedded.tags import tag_names, tag_values
from gateway.embedded.traceql import parse, parse_field
from tests.kit.spans import attribute, make_request, make_span


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store(tmp_path, retention_s=3600, max_bytes=2**30)
    yield opened
    opened.close()


@pytest.fixture
def reader(store) -> Iterator[Reader]:
    opened = Reader(store.path, timeout_s=60)
    yield opened
    opened.close()


def write(store, *spans, scope_attributes=(), **fields):
    request = make_request(*spans, **fields)
    request.resource_spans[0].scope_spans[0].scope.attributes.extend(scope_attributes)
    store.write([("", decode(request.SerializeToString()))], 1_800_000_000.0)


def names(reader, query="{}"):
    return tag_names(reader, "", Window(), parse(query))


def values(reader, *fields, query="{}"):
    asked = [parse_field(field) for field in fields]
    return tag_values(reader, "", Window(), asked, parse(query))


def test_names_are_listed_by_scope(store, reader):
    span = make_span(
        attributes=[attribute("b", 1), attribute("a", 2)],
        events=[{"name": "e", "attributes": [attribute("in.event", 1)]}],
        links=[{"attributes": [attribute("in.link", 1)]}],
    )
    write(store, span, scope_attributes=[attribute("in.scope", 1)])
    assert names(reader) == {
        "span": ["a", "b"],
        "resource": ["service.name"],
        "event": ["in.event"],
        "link": ["in.link"],
        "instrumentation": ["in.scope"],
    }


def test_names_are_of_spans_that_match(store, reader):
    write(store, make_span("one", attributes=[attribute("a", 1)]), service="x")
    write(store, make_span("two", attributes=[attribute("b", 1)]), service="y")
    assert names(reader, '{ name = "two" }')["span"] == ["b"]
    assert names(reader, '{ resource.service.name = "x" }')["span"] == ["a"]
    assert names(reader, '{ name = "three" }') == {}


def test_values_have_their_types(store, reader):
    texts = AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="in list")]))
    nested = AnyValue(kvlist_value=KeyValueList(values=[attribute("x", 1)]))
    for value in (
        *(attribute("k", each) for each in ("text", "1", 1, 1.0, 0.5, True)),
        KeyValue(key="k", value=texts),
        KeyValue(key="k", value=nested),
        KeyValue(key="k", value=AnyValue(bytes_value=b"x")),
        KeyValue(key="other", value=texts),
    ):
        write(store, make_span(attributes=[value]))
    assert values(reader, "span.k") == [
        ("float", "0.5"),
        ("float", "1"),
        ("int", "1"),
        ("string", "1"),
        ("string", "in list"),
        ("string", "text"),
        ("bool", "true"),
    ]


def test_values_of_intrinsics(store, reader):
    write(store, make_span("root", status={"message": "fine"}), service="shop", scope="lib")
    assert values(reader, "name") == [("string", "root")]
    assert values(reader, "rootServiceName") == [("string", "shop")]
    assert values(reader, "statusMessage") == [("string", "fine")]
    assert values(reader, "instrumentation:name") == [("string", "lib")]
    assert {value for _, value in values(reader, "kind")} >= {"server", "client"}
    assert values(reader, "duration") == []
    assert values(reader, "trace:id") == []


def test_values_are_of_spans_that_match_one_of_the_filters(store, reader):
    write(store, make_span("one"), make_span("two"), make_span("three"))
    found = values(reader, "name", query='{ name = "one" } && { name = "two" }')
    assert found == [("string", "one"), ("string", "two")]
    assert values(reader, "name", query='{ name = "one" } || { .nosuch = 1 }') == [
        ("string", "one")
    ]


def test_several_fields_are_one_list(store, reader):
    write(
        store,
        make_span(attributes=[attribute("k", "span")]),
        scope_attributes=[attribute("k", "scope")],
    )
    assert values(reader, ".k", "instrumentation.k") == [("string", "scope"), ("string", "span")]


def test_no_more_spans_are_looked_at_than_the_bound(store, reader, monkeypatch):
    monkeypatch.setattr(tags, "MAX_SPANS", 3)
    now = 10**18
    write(
        store,
        *(
            make_span(f"n{i}", start_time_unix_nano=now + i, end_time_unix_nano=now + i)
            for i in range(9)
        ),
    )
    assert [value for _, value in values(reader, "name")] == ["n6", "n7", "n8"]
