from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from gateway.embedded.conditions import Both, Constant, Either, Filter
from gateway.embedded.decode import decode
from gateway.embedded.search import OutOfTimeError, Reader, ServiceStats, Window, _Tally
from gateway.embedded.store import Store
from gateway.embedded.traceql import parse
from tests.kit.spans import attribute, make_request, make_span

NOW_S = 1_800_000_000.0
NOW_NS = 1_800_000_000 * 10**9
MS = 10**6
EVERYTHING = Filter(Constant(True))


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


def write(store, *spans, tenant="", **fields):
    payload = make_request(*spans, **fields).SerializeToString()
    store.write([(tenant, decode(payload))], NOW_S)


def at(start_ms, duration_ms=1):
    start = NOW_NS + start_ms * MS
    return {"start_time_unix_nano": start, "end_time_unix_nano": start + duration_ms * MS}


def search(reader, query, *, window=Window(), limit=20, spss=3, tenant=""):  # noqa: B008 - a tuple
    spanset = parse(query)
    return reader.search(tenant, window, spanset, limit=limit, spans_per_spanset=spss)


def trace_ids(found):
    return [each.trace.trace_id for each in found]


def names(found):
    return [[span.row.name for span in each.spans] for each in found]


def test_the_newest_traces_come_first_up_to_the_limit(store, reader):
    spans = [make_span(f"n{index}", **at(index * 10)) for index in (3, 1, 4, 0, 2)]
    write(store, *spans)
    assert names(search(reader, "{}")) == [["n4"], ["n3"], ["n2"], ["n1"], ["n0"]]
    assert names(search(reader, "{}", limit=2)) == [["n4"], ["n3"]]


def test_matches_are_counted_and_the_first_by_start_kept(store, reader):
    trace_id = os.urandom(16)
    spans = [make_span(f"n{index}", trace_id=trace_id, **at(index)) for index in (3, 1, 4, 0, 2)]
    write(store, *spans)
    (found,) = search(reader, '{ name != "n0" }', spss=2)
    assert found.matched == 4
    assert [span.row.name for span in found.spans] == ["n1", "n2"]


def test_a_large_trace_keeps_few_spans_in_memory(store, reader):
    trace_id = os.urandom(16)
    write(store, *(make_span(f"n{i}", trace_id=trace_id, **at(900 - i)) for i in range(900)))
    spanset = parse("{ duration > 0 } && { kind = server }")
    tally = _Tally(spanset, 1)
    for span in reader.spans("", Window(), spanset, 1000):
        tally.add(span)
        assert sum(map(len, tally._first.values())) <= 2
    assert tally.matched == 900
    assert [span.row.name for span in tally.spans] == ["n899"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('{ name = "a" } && { name = "b" }', ["a", "b"]),
        ('{ name = "a" } && { name = "x" }', None),
        ('{ name = "a" } || { name = "x" }', ["a"]),
        ('{ name = "x" } || { name = "y" }', None),
        ('({ name = "a" } && { name = "x" }) || { name = "c" }', ["c"]),
        ('{ name = "a" } && ({ name = "x" } || { name =~ "b|c" })', ["a", "b", "c"]),
        ('{ name =~ "a|b" } && { name =~ "b|c" }', ["a", "b", "c"]),
        ('{ name = "a" } && { name = "a" }', ["a"]),
    ],
)
def test_spansets_are_put_together_within_a_trace(store, reader, query, expected):
    trace_id = os.urandom(16)
    write(store, *(make_span(n, trace_id=trace_id, **at(i)) for i, n in enumerate("abc")))
    write(store, make_span("y", **at(50)))
    found = [each for each in search(reader, query) if each.trace.trace_id == trace_id]
    assert names(found) == ([expected] if expected else [])


def test_a_window_takes_traces_that_overlap_it(store, reader):
    trace_id = os.urandom(16)
    write(store, make_span(trace_id=trace_id, **at(0)), make_span(trace_id=trace_id, **at(1000)))

    def found(start_ms, end_ms):
        window = Window(NOW_NS + start_ms * MS, NOW_NS + end_ms * MS)
        return len(search(reader, "{}", window=window))

    assert [found(-10, -5), found(-10, 0), found(400, 500), found(1001, 1100)] == [0, 1, 1, 1]
    assert found(1002, 1100) == 0


def test_durations_are_of_the_trace(store, reader):
    write(store, make_span("short", **at(0, 10)), make_span("long", **at(100, 500)))
    longer = search(reader, "{}", window=Window(min_duration_ns=100 * MS))
    shorter = search(reader, "{}", window=Window(max_duration_ns=100 * MS))
    assert (names(longer), names(shorter)) == ([["long"]], [["short"]])


def test_tenants_do_not_see_each_other(store, reader):
    span = make_span()
    write(store, span, tenant="one")
    assert trace_ids(search(reader, "{}", tenant="one")) == [span.trace_id]
    assert search(reader, "{}", tenant="two") == []
    assert reader.trace("two", span.trace_id) == []
    assert len(reader.trace("one", span.trace_id)) == 1


def test_services_are_counted_over_the_whole_trace(store, reader):
    trace_id = os.urandom(16)
    bad = {"code": 2}
    write(store, make_span("a", trace_id=trace_id), make_span("b", trace_id=trace_id, status=bad))
    write(store, make_span("c", trace_id=trace_id), service="other")
    write(store, make_span("d", trace_id=trace_id), service="shop", scope="another scope")
    (found,) = search(reader, '{ name = "c" }')
    assert found.services == {"shop": ServiceStats(3, 1), "other": ServiceStats(1, 0)}


def test_a_query_that_takes_too_long_ends(store):
    write(store, *(make_span(f"n{index}") for index in range(3000)))
    reader = Reader(store.path, timeout_s=0)
    for work in (
        lambda: search(reader, '{ name = "nosuch" }'),
        lambda: search(reader, '{ .server.address =~ "nosuch" }'),
        lambda: list(reader.spans("", Window(), EVERYTHING, 10_000)),
    ):
        with pytest.raises(OutOfTimeError):
            work()
    reader.close()


def test_a_regex_on_a_long_text_ends_with_its_query(store):
    write(store, make_span("long", attributes=[attribute("text", "a" * 100_000)]))
    reader = Reader(store.path, timeout_s=0)
    with pytest.raises(OutOfTimeError):
        search(reader, '{ .text =~ "(a|a)*b" }')
    reader.close()


def test_a_stopped_reader_ends_its_queries(store, reader):
    write(store, *(make_span() for _ in range(3000)))
    reader.stop()
    with pytest.raises(OutOfTimeError):
        search(reader, '{ .server.address =~ "nosuch" }')


def test_reading_goes_on_while_spans_are_written(store, reader):
    write(store, *(make_span(f"n{index}", **at(index)) for index in range(100)))
    spans = reader.spans("", Window(), EVERYTHING, 1000)
    first = next(spans)
    write(store, make_span("later", **at(-1)))
    seen = [first, *spans]
    assert len(seen) == 100
    assert len(list(reader.spans("", Window(), EVERYTHING, 1000))) == 101


# The prefilter may let too much through but nothing get lost.

TEXTS = st.sampled_from(["", "x", "y", "xy", "é"])
VALUES = st.one_of(
    TEXTS.map(lambda text: AnyValue(string_value=text)),
    st.sampled_from([-1, 0, 1, 500]).map(lambda number: AnyValue(int_value=number)),
    st.sampled_from([0.0, 0.5, 500.0]).map(lambda number: AnyValue(double_value=number)),
    st.booleans().map(lambda flag: AnyValue(bool_value=flag)),
    st.just(AnyValue(bytes_value=b"x")),
    st.lists(TEXTS, max_size=2).map(
        lambda texts: AnyValue(
            array_value=ArrayValue(values=[AnyValue(string_value=text) for text in texts])
        )
    ),
)
ATTRIBUTES = st.dictionaries(st.sampled_from(["a", "b", "service.name"]), VALUES, max_size=2).map(
    lambda found: [KeyValue(key=key, value=value) for key, value in found.items()]
)
REQUESTS = st.lists(
    st.builds(
        lambda name, kind, status, span, resource, scope, event, link, event_name: (
            make_span(
                name,
                kind=kind,
                status=status,
                attributes=span,
                events=[{"name": event_name, "attributes": event}] if event_name else [],
                links=[{"trace_id": b"t" * 16, "span_id": b"s" * 8, "attributes": link}],
            ),
            resource,
            scope,
        ),
        TEXTS,
        st.integers(0, 5),
        st.builds(dict, code=st.integers(0, 2), message=TEXTS),
        *[ATTRIBUTES] * 5,
        TEXTS,
    ),
    min_size=1,
    max_size=8,
)
ATTRIBUTE_NAMES = st.builds(
    "{}.{}".format,
    st.sampled_from(["", "span", "resource", "event", "link", "instrumentation"]),
    st.sampled_from(["a", "b", "service.name", "nosuch"]),
)
TEXT_LITERALS = TEXTS.map('"{}"'.format)
SIGNS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
EQUALITY = st.sampled_from(["=", "!="])
LEAVES = st.one_of(
    st.tuples(
        ATTRIBUTE_NAMES, SIGNS, st.one_of(TEXT_LITERALS, st.sampled_from(["-1", "0", "500", "0.5"]))
    ),
    st.tuples(ATTRIBUTE_NAMES, EQUALITY, st.sampled_from(["true", "false"])),
    st.tuples(ATTRIBUTE_NAMES, st.just("!="), st.just("nil")),
    st.tuples(st.sampled_from([".a", "span.b"]), st.just("="), st.just("nil")),
    st.tuples(ATTRIBUTE_NAMES, st.sampled_from(["=~", "!~"]), st.sampled_from(['"x.*"', '"y|"'])),
    st.tuples(
        st.sampled_from(
            [
                *("name", "statusMessage", "rootName", "rootServiceName", "event:name"),
                *("instrumentation:name", "trace:id", "link:spanID"),
            ]
        ),
        EQUALITY,
        TEXT_LITERALS,
    ),
    st.tuples(st.just("status"), EQUALITY, st.sampled_from(["ok", "error"])),
    st.tuples(st.just("kind"), EQUALITY, st.sampled_from(["server", "client"])),
    st.tuples(
        st.sampled_from(["duration", "traceDuration"]), SIGNS, st.sampled_from(["99ms", "1"])
    ),
    st.tuples(ATTRIBUTE_NAMES, SIGNS, ATTRIBUTE_NAMES),
).map(" ".join)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["&&", "||"]), inner),
    max_leaves=4,
)


TENANTS = count()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS, st.lists(CONDITIONS, min_size=1, max_size=5))
def test_the_prefilter_loses_nothing(store, reader, made, conditions):
    tenant = f"tenant-{next(TENANTS)}"
    for span, resource, scope in made:
        request = make_request(span)
        del request.resource_spans[0].resource.attributes[:]
        request.resource_spans[0].resource.attributes.extend(resource)
        request.resource_spans[0].scope_spans[0].scope.attributes.extend(scope)
        store.write([(tenant, decode(request.SerializeToString()))], NOW_S)
    everything = list(reader.spans(tenant, Window(), EVERYTHING, 1000))
    assert len(everything) == len(made)
    for text in conditions:
        spanset = parse(f"{{ {text} }}")
        assert isinstance(spanset, Filter)
        expected = {span.row.span_id for span in everything if spanset.condition.holds(span)}
        found = {span.row.span_id for span in reader.spans(tenant, Window(), spanset, 1000)}
        assert found == expected, text


def test_filters_of_a_spanset_share_one_prefilter(store, reader):
    write(store, make_span("a"), make_span("b"), make_span("c"))
    spanset = Either(parse('{ name = "a" }'), Both(parse('{ name = "b" }'), parse("{ .x = 1 }")))
    found = {span.row.name for span in reader.spans("", Window(), spanset, 10)}
    assert found == {"a", "b"}
