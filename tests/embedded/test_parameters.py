from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.embedded.conditions import Both, Compare, Constant, Contains, Filter
from gateway.embedded.parameters import ParameterError, at_most, search, time_range
from gateway.embedded.search import Window
from gateway.embedded.stored import Field

SECOND = 10**9
MS = 10**6


def test_nothing_is_everything_recent():
    asked = search({})
    assert asked == (Filter(Constant(True)), False, Window(), 20, 3)


def test_a_time_range_needs_both_ends():
    assert search({"start": "10", "end": "20"}).window == Window(10 * SECOND, 20 * SECOND)
    assert search({"start": "0", "end": "20"}).window == Window()
    assert time_range({"start": "10", "end": "10"}) == Window(10 * SECOND, 10 * SECOND)


def test_durations_are_for_tags_and_whole_milliseconds():
    bounds = {"minDuration": "1.0009ms", "maxDuration": "1m"}
    assert search(bounds).window == Window(min_duration_ns=MS, max_duration_ns=60 * SECOND)
    assert search({"minDuration": "0", "maxDuration": "900us"}).window == Window()
    assert search(bounds | {"q": "{}"}).window == Window()


def tag_conditions(tags):
    def conditions(spanset):
        if isinstance(spanset, Both):
            return conditions(spanset.left) + conditions(spanset.right)
        return [spanset.condition]

    return conditions(search({"tags": tags}).spanset)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("foo=bar", Compare(Field("", "foo"), "=", "bar")),
        ("foo", Compare(Field("", "foo"), "=", "")),
        (r'foo="a \"b\"\n"', Compare(Field("", "foo"), "=", 'a "b"\n')),
        ("name=x", Contains(Field("intrinsic", "name"), "x")),
        ("root.name=x", Contains(Field("intrinsic", "rootName"), "x")),
        ("service.name=x", Contains(Field("resource", "service.name"), "x")),
        ("http.url=x", Contains(Field("span", "http.url"), "x")),
        ("http.status_code=200", Compare(Field("span", "http.status_code"), "=", 200)),
        ("http.status_code=2xx", Compare(Field("", "http.status_code"), "=", "2xx")),
        ("status.code=error", Compare(Field("intrinsic", "status"), "=", 2)),
    ],
)
def test_tags_are_conditions(tags, expected):
    assert tag_conditions(tags) == [expected]


def test_several_tags_must_all_be_in_the_trace():
    assert tag_conditions("  a=1\tb=2  c=3 ") == [
        Compare(Field("", key), "=", value) for key, value in ("a1", "b2", "c3")
    ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": "0"}, "invalid limit: must be a positive number"),
        ({"limit": "9" * 30}, "value out of range"),
        ({"limit": "²"}, "invalid syntax"),
        ({"start": "4294967296", "end": "5"}, "value out of range"),
        ({"tags": 'a="b'}, "invalid tags: unexpected"),
        ({"tags": r'a="\q"'}, "invalid tags: invalid char escape"),
        ({"tags": " ".join(f"a{index}" for index in range(101))}, "invalid tags: more than 100"),
        ({"tags": "a=1 a=2"}, "invalid tags: tag a has been set twice"),
        ({"minDuration": "5"}, 'invalid minDuration: time: missing unit in duration "5"'),
        ({"maxDuration": "x"}, 'invalid maxDuration: time: invalid duration "x"'),
        ({"q": "{"}, "invalid TraceQL query: parse error"),
    ],
)
def test_what_is_wrong_is_said(query, message):
    with pytest.raises(ParameterError) as refused:
        search(query)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), ("5", 5), ("0", None), ("-1", None), ("abc", None)]
)
def test_a_limit_of_tags_that_is_no_number_is_none(text, expected):
    assert at_most({"limit": text}) == expected


NAMES = st.sampled_from(["q", "tags", "start", "end", "limit", "spss", "minDuration"])


@given(st.dictionaries(NAMES, st.text(max_size=20), max_size=5))
def test_any_parameters_are_a_search_or_refused(query):
    with contextlib.suppress(ParameterError):
        search(query)
