"""Streamed queries give what the HTTP API gives: the embedded backend's always, and those of a real
Tempo where there is a binary.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from tests.contract.corpus import corpus
from tests.kit.backends import Backend, embedded_backend, tempo_backend
from tests.kit.grafana import (
    SEARCH,
    TAGS,
    TAGS_V2,
    VALUES,
    VALUES_V2,
    Datasource,
    Method,
)
from tests.kit.modes import tempo_or_skip

VISIBLE_WITHIN_S = 30.0


class Subject:
    """A backend with the corpus in it, asked both ways about the same time."""

    def __init__(self, backend: Backend, grafana: Datasource) -> None:
        self.backend = backend
        self.grafana = grafana
        now_s = int(time.time())
        self.window = {"start": now_s - 300, "end": now_s + 300}

    def since(self, *version: int) -> None:
        if self.backend.version < version:
            pytest.skip(f"Tempo has this since {'.'.join(map(str, version))}")

    def streamed(self, method: Method, **fields: Any) -> list[Any]:
        return self.grafana.ask(method, **fields, **self.window)

    def plain(self, method: Method, path: str, **parameters: Any) -> Any:
        """What the HTTP API says, as the message that a stream would have."""
        reply = self.backend.get(f"{path}?{urlencode(parameters | self.window)}")
        assert reply.status == 200, reply.text
        return ParseDict(reply.json(), method.response(), ignore_unknown_fields=True)


@pytest.fixture(scope="module", params=["embedded", pytest.param("tempo", marks=pytest.mark.tempo)])
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    data_dir = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        start = embedded_backend(data_dir)
    else:
        start = tempo_backend(tempo_or_skip(), data_dir)
    with start as backend:
        port = backend.otlp_port if backend.name == "embedded" else backend.http_port
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            subject = Subject(backend, Datasource(channel))
            backend.push(corpus(time.time_ns()))
            deadline = time.monotonic() + VISIBLE_WITHIN_S
            while len(found(subject.plain(SEARCH, "/api/search", q="{}"))) < 3:
                assert time.monotonic() < deadline, "the spans are not to be found"
                time.sleep(0.05)
            yield subject


def found(answer: Any) -> dict[str, Any]:
    """Traces by id. Tempo makes up no order for the attributes of a span."""
    traces = {trace.traceID: MessageToDict(trace) for trace in answer.traces}
    for trace in traces.values():
        for spanset in (trace.get("spanSet", {}), *trace.get("spanSets", ())):
            for span in spanset.get("spans", ()):
                span.get("attributes", []).sort(key=lambda pair: pair["key"])
    return traces


SEARCHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"query": "{}"}, {"q": "{}"}),
    ({"query": '{ name = "auth" }'}, {"q": '{ name = "auth" }'}),
    (
        {"query": "{ .http.status_code >= 200 && .ratio > 0.1 && .flag }"},
        {"q": "{ .http.status_code >= 200 && .ratio > 0.1 && .flag }"},
    ),
    (
        {"query": '{ rootName = "GET /cart" }', "spans_per_span_set": 2},
        {"q": '{ rootName = "GET /cart" }', "spss": 2},
    ),
    ({"query": '{ name = "nosuch" }'}, {"q": '{ name = "nosuch" }'}),
    ({"tags": {"foo": "bar baz"}}, {"tags": 'foo="bar baz"'}),
    ({"tags": {"service.name": "shop", "name": "query"}}, {"tags": "service.name=shop name=query"}),
    ({"min_duration_ms": 90}, {"minDuration": "90ms"}),
    ({"max_duration_ms": 90}, {"maxDuration": "90ms"}),
]


@pytest.mark.parametrize(("fields", "parameters"), SEARCHES)
def test_a_search_finds_the_same(subject, fields, parameters):
    answers = subject.streamed(SEARCH, limit=20, **fields)
    streamed = {}
    for answer in answers:
        streamed |= found(answer)
    plain = found(subject.plain(SEARCH, "/api/search", limit=20, **parameters))
    assert streamed == plain


def test_a_search_is_no_larger_than_its_limit(subject):
    answers = subject.streamed(SEARCH, query="{}", limit=2)
    assert len({trace.traceID for answer in answers for trace in answer.traces}) == 2


def test_a_search_without_a_time_is_about_what_is_recent(subject):
    answers = subject.grafana.ask(SEARCH, query='{ name = "charge" }')
    assert {trace.rootTraceName for each in answers for trace in each.traces} == {"charge"}


@pytest.mark.parametrize("scope", ["", "span", "resource", "intrinsic"])
def test_names_of_tags_are_the_same(subject, scope):
    subject.since(2, 10)
    (answer,) = subject.streamed(TAGS, scope=scope)[-1:]
    assert set(answer.tagNames) == set(
        subject.plain(TAGS, "/api/search/tags", scope=scope).tagNames
    )


@pytest.mark.parametrize("scope", ["", "span", "resource", "intrinsic"])
def test_names_of_tags_by_scope_are_the_same(subject, scope):
    subject.since(2, 10)
    (answer,) = subject.streamed(TAGS_V2, scope=scope)[-1:]
    plain = subject.plain(TAGS_V2, "/api/v2/search/tags", scope=scope)
    assert by_scope(answer) == by_scope(plain)


def by_scope(answer: Any) -> dict[str, set[str]]:
    return {scope.name: set(scope.tags) for scope in answer.scopes}


@pytest.mark.parametrize("tag", ["service.name", "foo", "name", "nosuch"])
def test_values_are_the_same(subject, tag):
    subject.since(2, 10)
    answers = subject.streamed(VALUES, tag_name=tag)
    plain = subject.plain(VALUES, f"/api/search/tag/{tag}/values")
    assert {value for answer in answers for value in answer.tagValues} == set(plain.tagValues)


@pytest.mark.parametrize(
    ("tag", "query"),
    [
        ("resource.service.name", ""),
        (".foo", ""),
        (".foo", '{ resource.service.name = "shop" }'),
        ("status", ""),
        ("span.nosuch", ""),
    ],
)
def test_values_with_types_are_the_same(subject, tag, query):
    subject.since(2, 10)
    answers = subject.streamed(VALUES_V2, tag_name=tag, query=query)
    plain = subject.plain(VALUES_V2, f"/api/v2/search/tag/{quote(tag)}/values", q=query)
    assert {typed for answer in answers for typed in types_of(answer)} == types_of(plain)


def types_of(answer: Any) -> set[tuple[str, str]]:
    return {(value.type, value.value) for value in answer.tagValues}


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (SEARCH, {"query": "{ nonsense"}),
        (VALUES_V2, {"tag_name": "no tag"}),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_http_api(subject, method, fields):
    subject.since(2, 10)
    with pytest.raises(grpc.RpcError) as caught:
        subject.streamed(method, **fields)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ("TraceQL" if method is SEARCH else "tag") in caught.value.details()
