"""What both answer: the embedded backend always, and a real Tempo where there is a binary.

Spans go in by OTLP gRPC and are read by HTTP. Where Tempo's versions differ, the embedded backend
does as the newest 2.x, and a case says since which version it holds.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, TracesData

from tests.contract.corpus import CART, CHARGE, MS, NAMES, SECOND, SPANS, corpus, span_id
from tests.kit.backends import Backend, embedded_backend, find_tempo, tempo_backend
from tests.kit.spans import attribute, make_request, make_span

VISIBLE_WITHIN_S = 30.0


class Subject:
    """A backend with the corpus in it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.began_s = int(time.time())
        self.pushed = corpus(time.time_ns())

    def since(self, *version: int) -> None:
        """Skips the test where the Tempo is older."""
        if self.backend.version < version:
            pytest.skip(f"Tempo has this since {'.'.join(map(str, version))}")

    def window(self) -> dict[str, int]:
        return {"start": self.began_s - 300, "end": int(time.time()) + 300}

    def search(self, **parameters: Any) -> list[dict[str, Any]]:
        reply = self.backend.get(f"/api/search?{urlencode(parameters | self.window())}")
        assert reply.status == 200, reply.text
        found: list[dict[str, Any]] = reply.json()["traces"]
        return found

    def query(self, traceql: str, **parameters: Any) -> dict[str, set[str]]:
        """The names of the spans that match, by trace."""
        found = self.search(q=traceql, spss=20, **parameters)
        return {
            NAMES[trace["traceID"]]: {
                SPANS[int(span["spanID"], 16)] for span in trace["spanSet"]["spans"]
            }
            for trace in found
            if trace["traceID"] in NAMES
        }

    def tags(self, tags: str, **parameters: Any) -> set[str]:
        """The traces that match."""
        found = self.search(tags=tags, **parameters)
        return {NAMES[each["traceID"]] for each in found if each["traceID"] in NAMES}

    def values(self, path: str, **parameters: Any) -> Any:
        reply = self.backend.get(f"{path}?{urlencode(parameters | self.window())}")
        assert reply.status == 200, reply.text
        return reply.json().get("tagValues", [])

    def push_and_wait(self, request: ExportTraceServiceRequest) -> None:
        """Returns when a search finds every trace of the request."""
        self.backend.push(request)
        wanted = {
            span.trace_id.hex().lstrip("0")
            for resource_spans in request.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        }
        deadline = time.monotonic() + VISIBLE_WITHIN_S
        while not wanted <= {each["traceID"] for each in self.search(q="{}", limit=1000)}:
            assert time.monotonic() < deadline, "the spans are not to be found"
            time.sleep(0.05)


@pytest.fixture(scope="module", params=["embedded", pytest.param("tempo", marks=pytest.mark.tempo)])
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    data_dir = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        start = embedded_backend(data_dir)
    else:
        binary = find_tempo()
        if binary is None:
            pytest.skip("no Tempo binary: set TEMPO_BIN or put one at ./bin/tempo")
        start = tempo_backend(binary, data_dir)
    with start as backend:
        subject = Subject(backend)
        subject.push_and_wait(subject.pushed)
        yield subject


CART_ALL = {"GET /cart", "auth", "SELECT cart", "query"}
CHARGE_ALL = {"charge", "emit"}
ALL = {"cart": CART_ALL, "charge": CHARGE_ALL, "orphan": {"orphan"}}

QUERIES: list[tuple[str, dict[str, set[str]]]] = [
    ("{}", ALL),
    ("{ true }", ALL),
    ("{ false }", {}),
    ('{ name = "auth" }', {"cart": {"auth"}}),
    ('{ "auth" = name }', {"cart": {"auth"}}),
    ("{ name = `auth` }", {"cart": {"auth"}}),
    ('{ name =~ "GET.*" }', {"cart": {"GET /cart"}}),
    (r'{ name =~ "[A-Z]+ /c\\w+" }', {"cart": {"GET /cart"}}),
    (
        '{ name !~ "(GET|SELECT).*" }',
        {"cart": {"auth", "query"}, "charge": CHARGE_ALL, "orphan": {"orphan"}},
    ),
    ("{ status = error }", {"cart": {"SELECT cart"}}),
    ("{ status = ok }", {"cart": {"query"}, "charge": {"charge"}}),
    (
        "{ status != ok }",
        {"cart": CART_ALL - {"query"}, "charge": {"emit"}, "orphan": {"orphan"}},
    ),
    ('{ statusMessage = "boom" }', {"cart": {"SELECT cart"}}),
    ("{ kind = server }", {"cart": {"GET /cart", "query"}}),
    ("{ kind = unspecified }", {"orphan": {"orphan"}}),
    ("{ kind = producer || kind = consumer }", {"charge": CHARGE_ALL}),
    ("{ duration = 100ms }", {"cart": {"GET /cart"}}),
    ("{ duration > 45ms }", {"cart": {"GET /cart", "SELECT cart"}, "charge": {"charge"}}),
    ("{ duration >= 0.1s }", {"cart": {"GET /cart"}, "charge": {"charge"}}),
    ("{ duration <= 1500ns }", {"orphan": {"orphan"}}),
    ("{ duration < 2000 }", {"orphan": {"orphan"}}),
    ("{ traceDuration > 500ms }", {"charge": CHARGE_ALL}),
    ('{ rootName = "charge" }', {"charge": CHARGE_ALL}),
    ('{ rootServiceName =~ "sh.*" }', {"cart": CART_ALL}),
    ('{ resource.service.name = "shop" }', {"cart": CART_ALL - {"query"}}),
    (
        '{ resource.service.name != "shop" }',
        {"cart": {"query"}, "charge": CHARGE_ALL, "orphan": {"orphan"}},
    ),
    ('{ span.service.name = "shop" }', {}),
    ('{ .service.name = "db" }', {"cart": {"query"}}),
    ("{ resource.host.cores = 8 }", {"cart": CART_ALL - {"query"}}),
    ("{ resource.host.cores = 8.0 }", {}),
    ('{ span.foo = "bar" }', {"cart": {"GET /cart"}}),
    ('{ .foo != "bar" }', {"charge": {"charge"}, "orphan": {"orphan"}}),
    ("{ .foo = 3 }", {"cart": {"query"}}),
    ("{ .foo > 2 }", {"cart": {"query"}}),
    ('{ .foo < "c" }', {"cart": {"GET /cart"}, "charge": {"charge"}}),
    (
        "{ .foo != nil }",
        {"cart": {"GET /cart", "query"}, "charge": {"charge"}, "orphan": {"orphan"}},
    ),
    ('{ .nosuch != "x" }', {}),
    ("{ .n = -5 }", {"orphan": {"orphan"}}),
    ("{ .n < 0 }", {"orphan": {"orphan"}}),
    ("{ .flag = true }", {"cart": {"GET /cart"}}),
    ("{ .flag }", {"cart": {"GET /cart"}}),
    ("{ .flag != true }", {}),
    ("{ .ratio > 0.4 }", {"cart": {"GET /cart"}}),
    ("{ .ratio > 0 }", {}),
    ('{ .empty = "" }', {"cart": {"auth"}}),
    ("{ .http.status_code >= 201 }", {"cart": {"auth"}, "charge": {"charge"}}),
    ('{ .http.status_code = "200" }', {}),
    ('{ span."weird key" = "w" }', {"charge": {"emit"}}),
    ('{ span.http.url = "/pay?x=1" }', {"charge": {"emit"}}),
    ("{ .map != nil }", {}),
    ('{ .exception.type = "E1" }', {}),
    (
        '{ duration > 45ms && resource.service.name = "shop" }',
        {"cart": {"GET /cart", "SELECT cart"}},
    ),
    ('{ name = "auth" || name = "emit" }', {"cart": {"auth"}, "charge": {"emit"}}),
    # && and || bind equally tight, to the left
    ('{ name = "auth" || name = "query" && kind = server }', {"cart": {"query"}}),
    ('{ name = "query" && kind = server || name = "auth" }', {"cart": {"auth", "query"}}),
    ('{ name = "auth" || (name = "query" && kind = server) }', {"cart": {"auth", "query"}}),
    ('{ name = "auth" } && { name = "query" }', {"cart": {"auth", "query"}}),
    ('{ name = "auth" } && { name = "charge" }', {}),
    ('{ name = "auth" } || { name = "charge" }', {"cart": {"auth"}, "charge": {"charge"}}),
    (
        '({ name = "auth" } || { name = "charge" }) && { duration > 45ms }',
        {"cart": {"auth", "GET /cart", "SELECT cart"}, "charge": {"charge"}},
    ),
    ('{ kind = client } || { name = "auth" } && { name = "charge" }', {}),
    ('{ name = "auth" } // with a comment', {"cart": {"auth"}}),
]
NEWER_QUERIES: list[tuple[str, dict[str, set[str]]]] = [
    ('{ name =~ "GET" }', {}),  # anchored at both ends
    ('{ .list = "x" }', {"cart": {"GET /cart"}}),
    ('{ .list != "x" }', {"cart": {"GET /cart"}}),
    ('{ .list =~ "y|z" }', {"cart": {"GET /cart"}}),
    ('{ span.foo = nil && name = "auth" }', {"cart": {"auth"}}),
    ('{ event.exception.type = "E1" }', {"cart": {"SELECT cart"}}),
    ('{ event:name = "exception" }', {"cart": {"SELECT cart"}}),
    ("{ event:timeSinceStart >= 10ms }", {"cart": {"SELECT cart"}}),
    ('{ link.linkattr = "la" }', {"cart": {"SELECT cart"}}),
    ('{ instrumentation.scopeattr = "sa" }', {"cart": {"GET /cart", "auth"}}),
    ('{ instrumentation:name = "lib-b" }', {"cart": {"SELECT cart"}}),
    ('{ instrumentation:version = "1.2" }', {"cart": {"GET /cart", "auth"}}),
    ('{ span:name = "auth" && span:kind = internal }', {"cart": {"auth"}}),
    ('{ span:status = error && span:statusMessage = "boom" }', {"cart": {"SELECT cart"}}),
    ("{ span:duration > 45ms && trace:duration < 500ms }", {"cart": {"GET /cart", "SELECT cart"}}),
    ('{ trace:rootName = "charge" && trace:rootService = "pay" }', {"charge": CHARGE_ALL}),
    ('{ trace:id = "ab12" }', {"cart": CART_ALL}),
    (f'{{ trace:id = "{CHARGE.hex()}" }}', {"charge": CHARGE_ALL}),
]
ONLY_TEMPO = [
    ("{} | count() > 0", "count()"),
    ("{} | by(resource.service.name)", "by()"),
    ("{} | select(span.foo)", "select()"),
    ("{} | rate()", "rate()"),
    ("{} | {}", "pipelines (|)"),
    ("{} >> {}", "structural operators (>>)"),
    ("{} > {}", "structural operators (>)"),
    ("{} !~ {}", "structural operators (!~)"),
    ("{} ~ {}", "structural operators (~)"),
    ("{ duration + 1ms > 2ms }", "arithmetic (+)"),
    ("{ !.flag }", "negation (!)"),
    ("{ nestedSetParent < 0 }", "the intrinsic nestedSetParent"),
    ("{} with (most_recent=true)", "query hints (with)"),
]
WRONG_QUERIES = [
    "{",
    "foo",
    "{ name = auth }",
    "{ name = 'auth' }",
    "{ foo = 1 }",
    "{ span. = 1 }",
    '{ .foo = "bar" && }',
    '{ name = "a\\qb" }',
    "{ .foo = 9223372036854775808 }",
]
WRONG_TYPES = [
    "{ name }",
    "{ 1 }",
    '{ duration > "x" }',
    '{ status = "error" }',
    "{ status > error }",
    "{ .foo =~ 3 }",
    '{ name =~ "(" }',
    '{ name =~ "(?=x)" }',
    "{ name = nil }",
    "{ parent.foo = 1 }",
]


class TestTraceql:
    @pytest.mark.parametrize(("query", "expected"), QUERIES, ids=[each[0] for each in QUERIES])
    def test_finds_the_spans(self, subject, query, expected):
        assert subject.query(query) == expected

    @pytest.mark.parametrize(
        ("query", "expected"), NEWER_QUERIES, ids=[each[0] for each in NEWER_QUERIES]
    )
    def test_finds_the_spans_as_newer_versions_do(self, subject, query, expected):
        subject.since(2, 10)
        assert subject.query(query) == expected

    @pytest.mark.parametrize(("query", "construct"), ONLY_TEMPO, ids=[e[0] for e in ONLY_TEMPO])
    def test_what_only_tempo_has_is_named_by_the_embedded_backend(self, subject, query, construct):
        subject.since(2, 10)
        reply = subject.backend.get(f"/api/search?q={quote(query)}")
        if subject.backend.name == "tempo":
            assert reply.status == 200
        else:
            assert reply.status == 400
            assert reply.text.startswith(
                "invalid TraceQL query: the embedded development backend does not have"
                f" {construct}. Grafana Tempo has it: set TEMPO_BIN"
            )

    @pytest.mark.parametrize("query", WRONG_QUERIES)
    def test_what_does_not_parse_is_400_and_says_where(self, subject, query):
        reply = subject.backend.get(f"/api/search?q={quote(query)}")
        assert (reply.status, reply.content_type) == (400, "text/plain; charset=utf-8")
        assert reply.text.startswith("invalid TraceQL query: ")

    @pytest.mark.parametrize("query", WRONG_TYPES)
    def test_wrong_types_are_400(self, subject, query):
        subject.since(2, 10)
        reply = subject.backend.get(f"/api/search?q={quote(query)}")
        assert (reply.status, reply.content_type) == (400, "text/plain; charset=utf-8")
        assert reply.text.startswith("invalid TraceQL query: ")


class TestSearchResults:
    def test_tell_of_the_trace(self, subject):
        (found,) = subject.search(q='{ name = "auth" }')
        cart = subject.pushed.resource_spans[0].scope_spans[0].spans[0]
        assert found["traceID"] == "ab12"
        assert found["rootServiceName"] == "shop"
        assert found["rootTraceName"] == "GET /cart"
        assert found["startTimeUnixNano"] == str(cart.start_time_unix_nano)
        assert found["durationMs"] == 100

    def test_tell_of_the_spans_that_matched(self, subject):
        (found,) = subject.search(q='{ name = "auth" }')
        auth = subject.pushed.resource_spans[0].scope_spans[0].spans[1]
        spanset = {
            "spans": [
                {
                    "spanID": "0000000000000002",
                    "name": "auth",
                    "startTimeUnixNano": str(auth.start_time_unix_nano),
                    "durationNanos": str(10 * MS),
                }
            ],
            "matched": 1,
        }
        assert found["spanSet"] == spanset
        assert found["spanSets"] == [spanset]

    def test_show_the_attributes_that_were_asked_for(self, subject):
        (found,) = subject.search(
            q="{ .http.status_code = 200 && .ratio > 0.1 && .flag && kind = server"
            ' && resource.service.name = "shop" && status = unset && duration > 1ms }'
        )
        (span,) = found["spanSet"]["spans"]
        assert "name" not in span
        assert {each["key"]: each["value"] for each in span["attributes"]} == {
            "http.status_code": {"intValue": "200"},
            "ratio": {"doubleValue": 0.5},
            "flag": {"boolValue": True},
            "kind": {"stringValue": "server"},
            "status": {"stringValue": "unset"},
            "service.name": {"stringValue": "shop"},
        }

    def test_show_only_what_a_span_has_of_an_alternative(self, subject):
        (found,) = subject.search(q='{ name = "auth" || (name = "query" && kind = server) }')
        shown = {
            span["spanID"][-1]: (span["name"], span.get("attributes"))
            for span in found["spanSet"]["spans"]
        }
        kind = [{"key": "kind", "value": {"stringValue": "server"}}]
        assert shown == {"2": ("auth", None), "4": ("query", kind)}

    def test_count_every_match_and_show_three(self, subject):
        (found,) = subject.search(q='{ rootName = "GET /cart" }')
        assert found["spanSet"]["matched"] == 4
        assert len(found["spanSet"]["spans"]) == 3

    def test_show_as_many_spans_as_asked_for(self, subject):
        (found,) = subject.search(q='{ rootName = "GET /cart" }', spss=1)
        assert found["spanSet"]["matched"] == 4
        assert len(found["spanSet"]["spans"]) == 1

    def test_count_the_spans_and_errors_of_each_service(self, subject):
        subject.since(2, 10)
        (found,) = subject.search(q='{ name = "auth" }')
        assert found["serviceStats"] == {
            "shop": {"spanCount": 3, "errorCount": 1},
            "db": {"spanCount": 1},
        }

    def test_are_newest_first(self, subject):
        starts = [int(each["startTimeUnixNano"]) for each in subject.search(q="{}", limit=100)]
        assert starts == sorted(starts, reverse=True)

    def test_say_that_the_root_is_missing(self, subject):
        (found,) = subject.search(q='{ name = "orphan" }')
        assert found["rootServiceName"] == "<root span not yet received>"
        assert "rootTraceName" not in found
        assert "durationMs" not in found

    def test_are_no_more_than_the_limit(self, subject):
        assert len(subject.search(q="{}", limit=2)) == 2

    def test_are_an_empty_list_when_nothing_matches(self, subject):
        reply = subject.backend.get(f"/api/search?q={quote('{ name = `nosuch` }')}")
        assert reply.status == 200
        assert reply.json()["traces"] == []

    def test_without_a_time_range_are_of_recent_data(self, subject):
        reply = subject.backend.get(f"/api/search?q={quote('{ name = `auth` }')}")
        assert [each["traceID"] for each in reply.json()["traces"]] == ["ab12"]

    def test_with_a_time_range_are_of_traces_that_overlap_it(self, subject):
        subject.since(2, 10)
        start_s = subject.pushed.resource_spans[2].scope_spans[0].spans[0].start_time_unix_nano
        start_s //= SECOND
        found = {}
        for name, start, end in (
            ("around", start_s - 10, start_s + 10),
            ("before", start_s - 20, start_s - 10),
        ):
            path = f"/api/search?q={quote('{ name = `charge` }')}&start={start}&end={end}"
            found[name] = len(subject.backend.get(path).json()["traces"])
        assert found == {"around": 1, "before": 0}


class TestTags:
    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            ("foo=bar", {"cart"}),
            ("foo=ba", set()),
            ('foo="bar baz"', {"charge"}),
            ("service.name=shop", {"cart"}),
            ("service.name=sh", {"cart"}),
            ("name=aut", {"cart"}),
            ("http.status_code=404", {"cart"}),
            ("http.status_code=40", set()),
            ("http.status_code=404 http.method=GET", {"cart"}),
            ("service.name=shop name=query", {"cart"}),
            ("service.name=shop name=charge", set()),
            ("root.name=charge", {"charge"}),
            ("root.service.name=pay", {"charge"}),
            ("status.code=error", {"cart"}),
            ("status=error", set()),
            ("n=-5", set()),
            ("flag=true", set()),
            ("nosuch=1", set()),
        ],
    )
    def test_find_traces(self, subject, tags, expected):
        assert subject.tags(tags) == expected

    @pytest.mark.parametrize(
        ("bounds", "expected"),
        [
            ({"minDuration": "50ms"}, {"cart", "charge"}),
            ({"maxDuration": "50ms"}, {"orphan"}),
            ({"minDuration": "50ms", "maxDuration": "200ms"}, {"cart"}),
            ({"minDuration": "0.5s"}, {"charge"}),
        ],
        ids=str,
    )
    def test_durations_are_those_of_the_trace(self, subject, bounds, expected):
        assert subject.tags("", **bounds) == expected

    def test_durations_bind_with_tags_but_not_with_traceql(self, subject):
        assert subject.tags("service.name=db", minDuration="80ms") == {"cart"}
        assert subject.tags("service.name=db", minDuration="200ms") == set()
        assert subject.query('{ name = "auth" }', minDuration="500ms") == {"cart": {"auth"}}

    def test_results_tell_no_spans(self, subject):
        (found,) = subject.search(tags="foo=bar")
        assert "spanSet" not in found
        assert found["traceID"] == "ab12"


BAD_SEARCHES = [
    ("limit=0", "invalid limit: must be a positive number"),
    ("start=5&end=1", "http parameter start must be before end. received start=5 end=1"),
    ("start=1", "http parameter start must be before end. received start=1 end=0"),
    (
        "start=1&end=10000000",
        "range specified by start and end exceeds 168h0m0s. received start=1 end=10000000",
    ),
    ("tags=%3Dx", "invalid tags: unexpected '=' at pos 1"),
    ("tags=a%3D1+a%3D2", "invalid tags: tag a has been set twice"),
    ("q=%7B%7D&tags=a%3D1", "invalid request: can't specify tags and q in the same query"),
    ("minDuration=5", 'invalid minDuration: time: missing unit in duration "5"'),
    ("minDuration=5s&maxDuration=1s", "invalid maxDuration: must be greater than minDuration"),
]
NEWER_BAD_SEARCHES = [
    ("limit=300000", "limit 300000 exceeds max limit 262144"),
    ("q=%7B%7D&spss=1000", "spans per span set exceeds 100. received 1000"),
    (
        "end=1",
        (
            "error parsing date range: only one of start and end provided:"
            " must provide both or neither"
        ),
    ),
]


BAD_NUMBERS = [
    ("limit=-1", "limit"),
    ("limit=abc", "limit"),
    ("start=abc&end=1", "start"),
    ("start=1&end=1700000000000", "end"),
    ("q=%7B%7D&spss=-1", "spss"),
]


class TestSearchParameters:
    @pytest.mark.parametrize(("query", "name"), BAD_NUMBERS, ids=[each[0] for each in BAD_NUMBERS])
    def test_bad_numbers_are_400_and_named(self, subject, query, name):
        reply = subject.backend.get(f"/api/search?{query}")
        assert reply.status == 400
        assert reply.text.startswith(f"invalid {name}: ")

    @pytest.mark.parametrize(("query", "message"), BAD_SEARCHES, ids=[e[0] for e in BAD_SEARCHES])
    def test_bad_ones_are_400_with_the_same_words(self, subject, query, message):
        reply = subject.backend.get(f"/api/search?{query}")
        assert (reply.status, reply.text) == (400, message)

    @pytest.mark.parametrize(
        ("query", "message"), NEWER_BAD_SEARCHES, ids=[e[0] for e in NEWER_BAD_SEARCHES]
    )
    def test_what_newer_versions_refuse(self, subject, query, message):
        subject.since(2, 10)
        reply = subject.backend.get(f"/api/search?{query}")
        assert (reply.status, reply.text) == (400, message)


def spans_by_name(batches: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each span as JSON with its resource's service name and the name of its scope."""
    found = {}
    for batch in batches:
        resource = {each["key"]: each["value"] for each in batch["resource"].get("attributes", [])}
        for scope_spans in batch["scopeSpans"]:
            for span in scope_spans["spans"]:
                assert span["name"] not in found
                found[span["name"]] = span | {
                    "service": resource.get("service.name", {}).get("stringValue"),
                    "scope": scope_spans["scope"].get("name"),
                }
    return found


class TestTraceById:
    @pytest.mark.parametrize("trace_id", ["ab12", "AB12", "0" * 28 + "ab12"])
    def test_json_has_every_span_under_its_resource_and_scope(self, subject, trace_id):
        reply = subject.backend.get(f"/api/traces/{trace_id}")
        assert (reply.status, reply.content_type) == (200, "application/json")
        spans = spans_by_name(reply.json()["batches"])
        assert {name: (span["service"], span["scope"]) for name, span in spans.items()} == {
            "GET /cart": ("shop", "lib-a"),
            "auth": ("shop", "lib-a"),
            "SELECT cart": ("shop", "lib-b"),
            "query": ("db", None),
        }

    def test_json_has_ids_in_base64_and_long_numbers_as_strings(self, subject):
        spans = spans_by_name(subject.backend.get("/api/traces/ab12").json()["batches"])
        root, select = spans["GET /cart"], spans["SELECT cart"]
        assert root["traceId"] == base64.b64encode(CART).decode()
        assert root["spanId"] == base64.b64encode(span_id(1)).decode()
        assert "parentSpanId" not in root
        assert select["parentSpanId"] == root["spanId"]
        assert root["traceState"] == "a=b"
        assert root["kind"] == "SPAN_KIND_SERVER"
        assert root["status"] == {}
        assert select["status"] == {"code": "STATUS_CODE_ERROR", "message": "boom"}
        start = subject.pushed.resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano
        assert root["startTimeUnixNano"] == str(start)
        assert root["endTimeUnixNano"] == str(start + 100 * MS)

    def test_json_has_attribute_values_of_every_type(self, subject):
        subject.since(2, 10)  # before, bytes were lost
        spans = spans_by_name(subject.backend.get("/api/traces/ab12").json()["batches"])
        values = {each["key"]: each["value"] for each in spans["GET /cart"]["attributes"]}
        assert values == {
            "http.status_code": {"intValue": "200"},
            "http.method": {"stringValue": "GET"},
            "flag": {"boolValue": True},
            "ratio": {"doubleValue": 0.5},
            "foo": {"stringValue": "bar"},
            "list": {"arrayValue": {"values": [{"stringValue": "x"}, {"stringValue": "y"}]}},
            "raw": {"bytesValue": "AQI="},
            "map": {
                "kvlistValue": {"values": [{"key": "inner", "value": {"stringValue": "deep"}}]}
            },
        }

    def test_json_has_events_and_links(self, subject):
        spans = spans_by_name(subject.backend.get("/api/traces/ab12").json()["batches"])
        pushed = subject.pushed.resource_spans[0].scope_spans[1].spans[0]
        (event,) = spans["SELECT cart"]["events"]
        assert event == {
            "timeUnixNano": str(pushed.events[0].time_unix_nano),
            "name": "exception",
            "attributes": [{"key": "exception.type", "value": {"stringValue": "E1"}}],
        }
        (link,) = spans["SELECT cart"]["links"]
        assert link == {
            "traceId": base64.b64encode(CHARGE).decode(),
            "spanId": base64.b64encode(span_id(9)).decode(),
            "attributes": [{"key": "linkattr", "value": {"stringValue": "la"}}],
        }

    def test_protobuf_is_asked_for_by_accept(self, subject):
        headers = {"Accept": "application/protobuf"}
        reply = subject.backend.get(f"/api/traces/{CHARGE.hex()}", headers=headers)
        assert (reply.status, reply.content_type) == (200, "application/protobuf")
        (batch,) = TracesData.FromString(reply.body).resource_spans
        spans = {span.name: span for scope in batch.scope_spans for span in scope.spans}
        pushed = subject.pushed.resource_spans[2].scope_spans[0].spans
        assert spans["charge"].start_time_unix_nano == pushed[0].start_time_unix_nano
        assert spans["emit"].parent_span_id == span_id(0x0A0B)

    def test_version_2_has_other_names(self, subject):
        subject.since(2, 6)
        reply = subject.backend.get("/api/v2/traces/ab12")
        assert (reply.status, reply.content_type) == (200, "application/json")
        assert spans_by_name(reply.json()["trace"]["resourceSpans"]).keys() == CART_ALL

    def test_version_2_in_protobuf(self, subject):
        subject.since(2, 6)
        reply = subject.backend.get(
            "/api/v2/traces/ab12", headers={"Accept": "application/protobuf"}
        )
        assert (reply.status, reply.content_type) == (200, "application/protobuf")
        trace = TracesData.FromString(reply.body[first_field(reply.body)])
        names = {
            span.name
            for batch in trace.resource_spans
            for scope in batch.scope_spans
            for span in scope.spans
        }
        assert names == CART_ALL

    def test_a_missing_one_is_404(self, subject):
        reply = subject.backend.get("/api/traces/ab13")
        assert reply.status == 404

    def test_a_missing_one_is_empty_in_version_2(self, subject):
        subject.since(2, 6)
        reply = subject.backend.get("/api/v2/traces/ab13")
        assert reply.status == 200
        assert reply.json()["trace"] == {}

    @pytest.mark.parametrize(
        ("trace_id", "message"),
        [
            (
                "xyz",
                "trace IDs can only contain hex characters: invalid character 'x' at position 1",
            ),
            ("0" * 34 + "ab12", "trace IDs can't be larger than 128 bits"),
        ],
    )
    def test_a_bad_id_is_400_with_the_same_words(self, subject, trace_id, message):
        reply = subject.backend.get(f"/api/traces/{trace_id}")
        assert (reply.status, reply.text) == (400, message)


def first_field(message: bytes) -> slice:
    """Where the content of field 1 stands in a message that begins with it."""
    assert message[0] == 0x0A
    length = shift = 0
    for at in range(1, 11):
        length |= (message[at] & 0x7F) << shift
        shift += 7
        if not message[at] & 0x80:
            return slice(at + 1, at + 1 + length)
    raise AssertionError("no length")


class TestTagNames:
    def test_by_scope(self, subject):
        path = f"/api/v2/search/tags?{urlencode(subject.window())}"
        reply = subject.backend.get(path)
        assert reply.status == 200
        scopes = {each["name"]: each["tags"] for each in reply.json()["scopes"]}
        assert scopes["resource"] == ["deployment.environment", "host.cores", "service.name"]
        assert set(scopes["span"]) >= {
            "foo",
            "flag",
            "http.status_code",
            "weird key",
            "list",
            "raw",
        }
        assert set(scopes["intrinsic"]) >= {"name", "duration", "rootServiceName", "statusMessage"}

    def test_of_newer_scopes(self, subject):
        subject.since(2, 10)
        path = f"/api/v2/search/tags?{urlencode(subject.window())}"
        scopes = {each["name"]: each["tags"] for each in subject.backend.get(path).json()["scopes"]}
        assert scopes["event"] == ["exception.type"]
        assert scopes["link"] == ["linkattr"]
        assert scopes["instrumentation"] == ["scopeattr"]
        assert set(scopes["intrinsic"]) >= {"span:name", "trace:duration", "event:name"}

    @pytest.mark.parametrize("scope", ["resource", "intrinsic"])
    def test_of_one_scope(self, subject, scope):
        path = f"/api/v2/search/tags?{urlencode({'scope': scope} | subject.window())}"
        assert [each["name"] for each in subject.backend.get(path).json()["scopes"]] == [scope]

    def test_version_1_is_one_sorted_list(self, subject):
        path = f"/api/search/tags?{urlencode(subject.window())}"
        names = subject.backend.get(path).json()["tagNames"]
        assert names == sorted(names)
        assert {"service.name", "foo", "db.system"} <= set(names)
        assert "name" not in names

    def test_of_spans_that_match(self, subject):
        subject.since(2, 10)
        asked = {"scope": "resource", "q": '{ resource.service.name = "pay" }'}
        path = f"/api/v2/search/tags?{urlencode(asked | subject.window())}"
        scopes = subject.backend.get(path).json()["scopes"]
        assert scopes == [{"name": "resource", "tags": ["service.name"]}]

    def test_an_unknown_scope_is_400(self, subject):
        for path in ("/api/search/tags", "/api/v2/search/tags"):
            reply = subject.backend.get(f"{path}?scope=bogus")
            assert (reply.status, reply.text) == (400, "invalid scope: bogus")


class TestTagValues:
    @pytest.mark.parametrize(
        ("tag", "expected"),
        [
            (
                "span.foo",
                {("string", "bar"), ("int", "3"), ("string", "bar baz"), ("string", "orph")},
            ),
            (".n", {("int", "-5")}),
            ("span.flag", {("bool", "true")}),
            ("resource.service.name", {("string", s) for s in ("shop", "db", "pay", "")}),
            ("name", {("string", name) for name in SPANS.values()}),
            ("rootName", {("string", "GET /cart"), ("string", "charge"), ("string", "")}),
            ("status", {("keyword", s) for s in ("ok", "error", "unset")}),
            (
                "kind",
                {
                    ("keyword", k)
                    for k in ("unspecified", "internal", "server", "client", "producer", "consumer")
                },
            ),
            ("duration", set()),
            ("resource.nosuch", set()),
        ],
    )
    def test_version_2_has_types(self, subject, tag, expected):
        values = subject.values(f"/api/v2/search/tag/{quote(tag)}/values")
        assert {(each["type"], each.get("value", "")) for each in values} == expected

    @pytest.mark.parametrize(
        ("tag", "expected"),
        [
            ("span.ratio", {("float", "0.5")}),
            ("span.list", {("string", "x"), ("string", "y")}),
            ("event.exception.type", {("string", "E1")}),
            ("instrumentation:name", {("string", s) for s in ("lib-a", "lib-b", "")}),
            ("span:name", {("string", name) for name in SPANS.values()}),
            ('span."weird key"', {("string", "w")}),
            ("span.a/b", set()),
        ],
    )
    def test_version_2_of_what_newer_versions_have(self, subject, tag, expected):
        subject.since(2, 10)
        values = subject.values(f"/api/v2/search/tag/{quote(tag)}/values")
        assert {(each["type"], each.get("value", "")) for each in values} == expected

    def test_version_2_of_spans_that_match(self, subject):
        values = subject.values(
            "/api/v2/search/tag/name/values", q='{ resource.service.name = "pay" }'
        )
        assert {each["value"] for each in values} == CHARGE_ALL

    def test_version_2_ignores_a_query_that_is_not_whole(self, subject):
        values = subject.values("/api/v2/search/tag/name/values", q='{ name = "au')
        assert {each["value"] for each in values} == set(SPANS.values())

    def test_version_2_wants_a_scope_or_an_intrinsic(self, subject):
        subject.since(2, 10)
        reply = subject.backend.get("/api/v2/search/tag/foo/values")
        assert reply.status == 400
        assert reply.text.startswith("please provide a valid tagName: ")

    @pytest.mark.parametrize(
        ("tag", "expected"),
        [
            ("foo", ["3", "bar", "bar baz", "orph"]),
            ("service.name", ["", "db", "pay", "shop"]),
            ("name", sorted(SPANS.values())),
            ("flag", ["true"]),
            ("weird key", ["w"]),
            ("root.name", ["", "GET /cart", "charge"]),
            ("nosuch", []),
            ("span.foo", []),
        ],
    )
    def test_version_1_is_one_sorted_list(self, subject, tag, expected):
        assert subject.values(f"/api/search/tag/{quote(tag)}/values") == expected


BAD_SPANS: list[tuple[str, dict[str, Any], grpc.StatusCode, tuple[int, ...]]] = [
    ("trace id too short", {"trace_id": b"12345678"}, grpc.StatusCode.INTERNAL, ()),
    ("trace id too long", {"trace_id": b"1" * 17}, grpc.StatusCode.INTERNAL, ()),
    ("trace id empty", {"trace_id": b""}, grpc.StatusCode.INVALID_ARGUMENT, ()),
    ("trace id zero", {"trace_id": bytes(16)}, grpc.StatusCode.INVALID_ARGUMENT, ()),
    ("span id too short", {"span_id": b"1234567"}, grpc.StatusCode.INTERNAL, ()),
    ("parent id too long", {"parent_span_id": b"123456789"}, grpc.StatusCode.INTERNAL, ()),
    ("span id empty", {"span_id": b""}, grpc.StatusCode.INVALID_ARGUMENT, (2, 9)),
    ("span id zero", {"span_id": bytes(8)}, grpc.StatusCode.INVALID_ARGUMENT, (2, 9)),
]


class TestIngest:
    @pytest.mark.parametrize(
        ("fields", "code", "since"),
        [each[1:] for each in BAD_SPANS],
        ids=[each[0] for each in BAD_SPANS],
    )
    def test_one_bad_span_refuses_the_whole_request(self, subject, fields, code, since):
        subject.since(*since)
        good = make_span("good")
        bad = make_span("bad")
        for name, value in fields.items():
            setattr(bad, name, value)
        with pytest.raises(grpc.RpcError) as refused:
            subject.backend.push(make_request(good, bad))
        assert refused.value.code() is code
        assert subject.backend.get(f"/api/traces/{good.trace_id.hex()}").status == 404

    def test_an_empty_request_is_taken(self, subject):
        subject.backend.push(ExportTraceServiceRequest())
        subject.backend.push(ExportTraceServiceRequest(resource_spans=[ResourceSpans()]))

    def test_a_span_is_found_by_its_id_at_once(self, subject):
        span = make_span("at once")
        subject.backend.push(make_request(span))
        reply = subject.backend.get(f"/api/traces/{span.trace_id.hex()}")
        assert reply.status == 200
        assert spans_by_name(reply.json()["batches"]).keys() == {"at once"}

    def test_spans_of_one_trace_come_together_from_several_requests(self, subject):
        trace_id = os.urandom(16)
        for name, service in (("one", "a"), ("two", "b"), ("three", "a")):
            subject.backend.push(make_request(make_span(name, trace_id=trace_id), service=service))
        spans = spans_by_name(
            subject.backend.get(f"/api/traces/{trace_id.hex()}").json()["batches"]
        )
        assert {name: span["service"] for name, span in spans.items()} == {
            "one": "a",
            "two": "b",
            "three": "a",
        }

    def test_the_root_is_known_when_it_comes_last(self, subject):
        trace_id = os.urandom(16)
        root = make_span("late root", trace_id=trace_id)
        child = make_span("early child", trace_id=trace_id, parent_span_id=root.span_id)
        subject.backend.push(make_request(child, service="child-service"))
        subject.push_and_wait(make_request(root, service="root-service"))
        (found,) = subject.search(q='{ name = "late root" }')
        assert found["rootTraceName"] == "late root"
        assert found["rootServiceName"] == "root-service"

    def test_client_and_server_may_share_a_span_id(self, subject):
        trace_id, shared = os.urandom(16), os.urandom(8)
        client = make_span("c", trace_id=trace_id, span_id=shared, kind=Span.SPAN_KIND_CLIENT)
        server = make_span("s", trace_id=trace_id, span_id=shared, kind=Span.SPAN_KIND_SERVER)
        subject.backend.push(make_request(client, server))
        reply = subject.backend.get(f"/api/traces/{trace_id.hex()}")
        assert spans_by_name(reply.json()["batches"]).keys() == {"c", "s"}

    def test_text_that_is_not_utf_8_is_stored(self, subject):
        span = make_span("broken text", attributes=[attribute("note", "caf@@")])
        payload = make_request(span).SerializeToString().replace(b"caf@@", b"caf\xe9!")
        with grpc.insecure_channel(subject.backend.otlp) as channel:
            path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            channel.unary_unary(path)(payload, timeout=20)
        reply = subject.backend.get(f"/api/traces/{span.trace_id.hex()}")
        (stored,) = spans_by_name(reply.json()["batches"]).values()
        assert stored["attributes"] == [{"key": "note", "value": {"stringValue": "caf\ufffd!"}}]

    def test_a_large_request_is_taken(self, subject):
        trace_id = os.urandom(16)
        spans = [
            make_span(f"n{index}", trace_id=trace_id, attributes=[attribute("pad", "x" * 1000)])
            for index in range(8000)
        ]
        subject.backend.push(make_request(*spans))
        reply = subject.backend.get(
            f"/api/traces/{trace_id.hex()}", headers={"Accept": "application/protobuf"}
        )
        stored = TracesData.FromString(reply.body)
        count = sum(
            len(scope.spans) for batch in stored.resource_spans for scope in batch.scope_spans
        )
        assert count == 8000

    def test_other_services_are_unimplemented(self, subject):
        with grpc.insecure_channel(subject.backend.otlp) as channel:
            path = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(path)(b"", timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


class TestStatusPages:
    @pytest.mark.parametrize(("path", "text"), [("/ready", "ready\n"), ("/api/echo", "echo\n")])
    def test_plain_ones(self, subject, path, text):
        reply = subject.backend.get(path)
        assert (reply.status, reply.content_type, reply.text) == (
            200,
            "text/plain; charset=utf-8",
            text,
        )

    def test_build_info(self, subject):
        reply = subject.backend.get("/api/status/buildinfo")
        assert (reply.status, reply.content_type) == (200, "application/json")
        info = reply.json()
        assert info.keys() == {
            *("version", "revision", "branch", "buildUser", "buildDate", "goVersion"),
        }
        assert info["version"].startswith(".".join(map(str, subject.backend.version)))

    def test_metrics_count_the_spans(self, subject):
        reply = subject.backend.get("/metrics")
        assert reply.status == 200
        assert reply.content_type.startswith("text/plain; version=0.0.4")
        lines = dict(
            line.rsplit(" ", 1) for line in reply.text.splitlines() if not line.startswith("#")
        )
        received = lines['tempo_distributor_spans_received_total{tenant="single-tenant"}']
        assert float(received) >= len(SPANS)
        assert any(line.startswith("tempo_build_info{") for line in lines)

    @pytest.mark.parametrize(
        "path", ["/", "/nosuch", "/api/nosuch", "/api/traces/", "/api/search/tag/values"]
    )
    def test_other_paths_are_404(self, subject, path):
        reply = subject.backend.get(path)
        assert (reply.status, reply.text) == (404, "404 page not found\n")
