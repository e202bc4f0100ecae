from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.embedded.comparisons import TraceqlError
from gateway.embedded.conditions import (
    AllOf,
    AnyOf,
    Both,
    Compare,
    CompareFields,
    Constant,
    Either,
    Exists,
    Filter,
    Matches,
)
from gateway.embedded.stored import Field
from gateway.embedded.traceql import MAX_CONDITIONS, NotHereError, parse, parse_field

A, B, C = (Compare(Field("", name), "=", 1) for name in "abc")
NAME = Field("intrinsic", "name")


def condition(text):
    spanset = parse(f"{{ {text} }}")
    assert isinstance(spanset, Filter)
    return spanset.condition


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('.a = "x"', Compare(Field("", "a"), "=", "x")),
        ("span.a.b-c >= 5", Compare(Field("span", "a.b-c"), ">=", 5)),
        ("resource.a != -1.5", Compare(Field("resource", "a"), "!=", -1.5)),
        ("event.a = 1e3", Compare(Field("event", "a"), "=", 1000.0)),
        ("link.a = true", Compare(Field("link", "a"), "=", True)),
        ("instrumentation.a = `\\`", Compare(Field("instrumentation", "a"), "=", "\\")),
        ('span."a b".c = 1', Compare(Field("span", "a b.c"), "=", 1)),
        (".a", Compare(Field("", "a"), "=", True)),
        ("5 < .a", Compare(Field("", "a"), ">", 5)),
        ("nil != .a", Exists(Field("", "a"), True)),
        (".a = nil", Exists(Field("", "a"), False)),
        ("name != nil", Exists(NAME, True)),
        (".a = .b", CompareFields(Field("", "a"), "=", Field("", "b"))),
        ("duration > 1h30m", Compare(Field("intrinsic", "duration"), ">", 5400 * 10**9)),
        ("span:duration > -1ms", Compare(Field("intrinsic", "duration"), ">", -(10**6))),
        ("duration > 0.5", Compare(Field("intrinsic", "duration"), ">", 0.5)),
        ("status = error", Compare(Field("intrinsic", "status"), "=", 2)),
        ("kind != client", Compare(Field("intrinsic", "kind"), "!=", 3)),
        ('trace:rootService = "x"', Compare(Field("intrinsic", "rootServiceName"), "=", "x")),
        ('trace:id = "AB"', Compare(Field("intrinsic", "trace:id"), "=", "0" * 30 + "ab")),
        ('span:id = "AB"', Compare(Field("intrinsic", "span:id"), "=", "0" * 14 + "ab")),
        (".a = 5ms", Constant(False)),
        (".a = error", Constant(False)),
        ("true", Constant(True)),
        ("1 = 1.0", Constant(True)),
        ('"a" =~ "a|b"', Constant(True)),
        ("nil = nil", Constant(False)),
        (".a=1&&.b=1||.c=1", AnyOf((AllOf((A, B)), C))),
        (".a=1||.b=1&&.c=1", AllOf((AnyOf((A, B)), C))),
        (".a=1||(.b=1&&.c=1)", AnyOf((A, AllOf((B, C))))),
        ("((.a=1)) /* and */ && .b=1 && .c=1", AllOf((A, B, C))),
    ],
)
def test_conditions(text, expected):
    assert condition(text) == expected


def test_a_regex_is_compiled():
    found = condition('name !~ "a.*"')
    assert isinstance(found, Matches)
    assert (found.field, found.expected) == (NAME, False)
    assert found.regex.matches("abc")


def test_spansets_bind_to_the_left():
    a, b, c = Filter(A), Filter(B), Filter(C)
    assert parse("{.a=1} || {.b=1} && {.c=1}") == Both(Either(a, b), c)
    assert parse("{.a=1} || ({.b=1} && {.c=1})") == Either(a, Both(b, c))
    assert parse("(({.a=1}))") == a
    assert parse("{}") == Filter(Constant(True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "parse error at line 1, col 1: syntax error: unexpected end of the query"),
        ("{", "parse error at line 1, col 2: syntax error: unexpected end of the query"),
        ("{\n .a = 1\n x }", "parse error at line 3, col 2: syntax error: unexpected x"),
        ("{} {}", "parse error at line 1, col 4: syntax error: unexpected {}"),
        ('{ .a = "x }', 'parse error at line 1, col 8: syntax error: unexpected "x'),
        ("{ .a = 'x' }", "parse error at line 1, col 8: syntax error: unexpected 'x'"),
        ("{ .a = b }", "unknown identifier: b"),
        ("{ event:nosuch = 1 }", "unknown identifier: event:nosuch"),
        ("{ parent.a = 1 }", "parent not yet supported"),
        ("{ parent = nil }", "intrinsic (parent) not yet supported"),
        ("{ name }", "span filter field expressions must resolve to a boolean"),
        ("{ 1 }", "span filter field expressions must resolve to a boolean"),
        ("{ name = 1 }", "binary operations must operate on the same type: name = 1"),
        ("{ kind = ok }", "binary operations must operate on the same type: kind = ok"),
        ("{ trace:id = 5 }", "binary operations must operate on the same type: trace:id = 5"),
        ('{ trace:id > "a" }', 'illegal operation for the given types: trace:id > "a"'),
        ("{ status > error }", "illegal operation for the given types: status > error"),
        ("{ .a =~ 3 }", "illegal operation for the given types: .a =~ 3"),
        ("{ span.a < nil }", "illegal operation for the given types: span.a < nil"),
        ('{ "a" =~ name }', "invalid type for =~ or !~: name"),
        ("{ name = nil }", "name=nil is not valid because it cannot be nil"),
        (
            "{ resource.service.name = nil }",
            "resource.service.name=nil is not valid because it cannot be nil",
        ),
        ('{ .a =~ "(" }', "invalid regex: `(`: missing )"),
        (r'{ .a = "\q" }', r"invalid char escape \q"),
        ("{ .a = 9223372036854775808 }", "9223372036854775808 is out of range"),
        ("{ duration > 300000y }", "300000y is out of range"),
    ],
)
def test_what_is_wrong_is_said(text, message):
    with pytest.raises(TraceqlError) as refused:
        parse(text)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("{} | avg(duration) > 1s", "avg()"),
        ("{} | quantile_over_time(duration, 0.9)", "quantile_over_time()"),
        ("count() > 1", "count()"),
        ("({} | count()) > 1", "count()"),
        ("{} | {}", "pipelines (|)"),
        ("{} !>> {}", "structural operators (!>>)"),
        ("{} &~ {}", "structural operators (&~)"),
        ("({}) < ({})", "structural operators (<)"),
        ("{ .a = 1 - 1 }", "arithmetic (-)"),
        ("{ .a = -.b }", "arithmetic (-)"),
        ("{ .a ^ 2 = 4 }", "arithmetic (^)"),
        ("{ !(.a = 1) }", "negation (!)"),
        ("{ span:childCount > 2 }", "the intrinsic span:childCount"),
        ("{} with (a=1)", "query hints (with)"),
    ],
)
def test_what_only_tempo_has_is_named_with_the_way_to_it(text, construct):
    with pytest.raises(NotHereError) as refused:
        parse(text)
    message = str(refused.value)
    assert message.startswith(f"the embedded development backend does not have {construct}. ")
    assert "TEMPO_BIN" in message
    assert "install-tempo" in message


def test_a_query_has_a_bounded_number_of_conditions():
    parse("{ " + " && ".join([".a = 1"] * MAX_CONDITIONS) + " }")
    with pytest.raises(TraceqlError, match="more than 100 conditions"):
        parse("{ " + " && ".join([".a = 1"] * (MAX_CONDITIONS + 1)) + " }")
    with pytest.raises(TraceqlError, match="more than 100 conditions"):
        parse(" || ".join(["{ .a = 1 || .b = 1 && .c = 1 }"] * 1000))


def test_nesting_is_no_burden():
    assert parse("(" * 3000 + "{" + "(" * 3000 + ".a = 1" + ")" * 3000 + "}" + ")" * 3000)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".foo", Field("", "foo")),
        ("span.http.url", Field("span", "http.url")),
        ('resource."a b"', Field("resource", "a b")),
        ("name", NAME),
        ("span:name", NAME),
        ("event:name", Field("intrinsic", "event:name")),
    ],
)
def test_fields_of_tag_values(name, expected):
    assert parse_field(name) == expected


@pytest.mark.parametrize("name", ["foo", "span.a b", "", "bad(", "{}", "true", "parent.x", "'"])
def test_what_is_no_field_is_refused(name):
    with pytest.raises(TraceqlError):
        parse_field(name)


PIECES = st.sampled_from(
    [
        *("{", "}", "(", ")", "&&", "||", "=", "!=", "=~", ">", ">>", "!", "-", "|", "~", ".a"),
        *("span.b", '"x"', "`y`", "1", "2.5", "3ms", "nil", "true", "name", "duration", "error"),
        *("count", "with", "trace:id", "event:name", "foo", "//", "/*", "'", "\\", '."', "\n"),
    ]
)


@given(st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=12).map(" ".join)))
def test_any_text_is_a_query_or_refused(text):
    for read in (parse, parse_field):
        with contextlib.suppress(TraceqlError):
            read(text)
