"""The query parameters of Tempo's HTTP API, with its limits and its words for what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gateway.embedded.comparisons import TraceqlError
from gateway.embedded.conditions import (
    Both,
    Compare,
    Condition,
    Constant,
    Contains,
    Filter,
    Spanset,
)
from gateway.embedded.literals import duration_ns, unquote_string
from gateway.embedded.search import Window
from gateway.embedded.stored import STATUS_NAMES, Field
from gateway.embedded.traceql import MAX_CONDITIONS, parse

DEFAULT_LIMIT = 20
MAX_LIMIT = 262_144
DEFAULT_SPANS_PER_SPANSET = 3
MAX_SPANS_PER_SPANSET = 100
MAX_RANGE_S = 168 * 3600
_SECOND_NS = 10**9
_MILLISECOND_NS = 10**6
_INTEGER = re.compile(r"[+-]?\d+")
_GO_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+")
_LOGFMT_PAIR = re.compile(r'\s*([^\s="]+)(?:=("(?:\\.|[^"\\])*"|[^\s"=]*))?(?=\s|$)')


class ParameterError(ValueError):
    """A parameter that cannot be used; the text is for the one who sent it."""


class Search(NamedTuple):
    spanset: Spanset
    is_traceql: bool
    window: Window
    limit: int
    spans_per_spanset: int


def search(query: Mapping[str, str]) -> Search:
    """Raises ParameterError."""
    start_s, end_s = _seconds(query, "start"), _seconds(query, "end")
    traceql, tags = query.get("q", ""), query.get("tags", "")
    if traceql and tags:
        raise ParameterError("invalid request: can't specify tags and q in the same query")
    by_tags = _tags(tags)
    min_ns, max_ns = _durations(query)
    limit = _limit(query)
    spans_per_spanset = _spans_per_spanset(query)
    if (start_s or end_s) and end_s <= start_s:
        raise ParameterError(
            f"http parameter start must be before end. received start={start_s} end={end_s}"
        )
    window = _range(query, start_s, end_s)
    if not traceql:
        window = window._replace(min_duration_ns=min_ns, max_duration_ns=max_ns)
        return Search(by_tags, False, window, limit, spans_per_spanset)
    try:
        spanset = parse(traceql)
    except TraceqlError as error:
        raise ParameterError(f"invalid TraceQL query: {error}") from None
    return Search(spanset, True, window, limit, spans_per_spanset)


def time_range(query: Mapping[str, str]) -> Window:
    """``start`` and ``end`` of the tags endpoints. Raises ParameterError."""
    return _range(query, _seconds(query, "start"), _seconds(query, "end"))


def at_most(query: Mapping[str, str]) -> int | None:
    """``limit`` of the tags endpoints: what is no positive number is no limit."""
    text = query.get("limit", "")
    return int(text) or None if text.isascii() and text.isdecimal() else None


def _range(query: Mapping[str, str], start_s: int, end_s: int) -> Window:
    if bool(query.get("start")) != bool(query.get("end")):
        raise ParameterError(
            "error parsing date range: only one of start and end provided:"
            " must provide both or neither"
        )
    if start_s > end_s or end_s - start_s > MAX_RANGE_S:
        raise ParameterError(
            "range specified by start and end exceeds 168h0m0s."
            f" received start={start_s} end={end_s}"
        )
    if not (start_s and end_s):
        return Window()
    return Window(start_s * _SECOND_NS, end_s * _SECOND_NS)


def _integer(query: Mapping[str, str], name: str, call: str, bits: int) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and _INTEGER.fullmatch(text)):
        raise ParameterError(f'invalid {name}: strconv.{call}: parsing "{text}": invalid syntax')
    value = int(text[:40])
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ParameterError(
            f'invalid {name}: strconv.{call}: parsing "{text}": value out of range'
        )
    return value


def _seconds(query: Mapping[str, str], name: str) -> int:
    return _integer(query, name, "ParseInt", 32) or 0


def _limit(query: Mapping[str, str]) -> int:
    limit = _integer(query, "limit", "Atoi", 64)
    if limit is None:
        return DEFAULT_LIMIT
    if limit <= 0:
        raise ParameterError("invalid limit: must be a positive number")
    if limit > MAX_LIMIT:
        raise ParameterError(f"limit {limit} exceeds max limit {MAX_LIMIT}")
    return limit


def _spans_per_spanset(query: Mapping[str, str]) -> int:
    count = _integer(query, "spss", "Atoi", 64) or 0
    if count < 0:
        raise ParameterError("invalid spss: must be a non-negative number")
    if count > MAX_SPANS_PER_SPANSET:
        raise ParameterError(
            f"spans per span set exceeds {MAX_SPANS_PER_SPANSET}. received {count}"
        )
    return count or DEFAULT_SPANS_PER_SPANSET


def _durations(query: Mapping[str, str]) -> tuple[int | None, int | None]:
    """As Tempo does, in whole milliseconds; 0 is no bound."""
    low, high = _milliseconds(query, "minDuration"), _milliseconds(query, "maxDuration")
    if low and high is not None and low > high:
        raise ParameterError("invalid maxDuration: must be greater than minDuration")
    return (low or 0) * _MILLISECOND_NS or None, (high or 0) * _MILLISECOND_NS or None


def _milliseconds(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if text == "0":
        return 0
    if _GO_DURATION.fullmatch(text) is None:
        kind = "missing unit in" if text[-1:].isdigit() else "invalid"
        raise ParameterError(f'invalid {name}: time: {kind} duration "{text}"')
    return duration_ns(text) // _MILLISECOND_NS


# Tags: the search of before TraceQL. A trace is found if each tag is at some span of it.

_RESOURCE_PARTS = frozenset(
    [
        *("service.name", "cluster", "namespace", "pod", "container", "k8s.cluster.name"),
        *("k8s.namespace.name", "k8s.pod.name", "k8s.container.name"),
    ]
)
_SPAN_PARTS = frozenset(["http.method", "http.url"])
_INTRINSIC_PARTS = {
    "name": "name",
    "root.name": "rootName",
    "root.service.name": "rootServiceName",
}


def _tags(text: str) -> Spanset:
    conditions = [_tag(key, value) for key, value in _logfmt(text).items()]
    spanset: Spanset = Filter(conditions[0] if conditions else Constant(value=True))
    for condition in conditions[1:]:
        spanset = Both(spanset, Filter(condition))
    return spanset


def _tag(key: str, value: str) -> Condition:
    """Tempo compares parts of strings where the attribute has a column of its own, else whole
    strings; numbers and booleans are not found by tags, but for http.status_code.
    """
    if key in _INTRINSIC_PARTS:
        return Contains(Field("intrinsic", _INTRINSIC_PARTS[key]), value)
    if key in _RESOURCE_PARTS:
        return Contains(Field("resource", key), value)
    if key in _SPAN_PARTS:
        return Contains(Field("span", key), value)
    if key == "status.code":
        code = STATUS_NAMES.index(value) if value in STATUS_NAMES else 0
        return Compare(Field("intrinsic", "status"), "=", code)
    if key == "http.status_code" and value.isascii() and value.isdecimal():
        return Compare(Field("span", key), "=", int(value[:18]))
    return Compare(Field("", key), "=", value)


def _logfmt(text: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for key, value in _logfmt_pairs(text):
        if key in tags:
            raise ParameterError(f"invalid tags: tag {key} has been set twice")
        tags[key] = value
    if len(tags) > MAX_CONDITIONS:
        raise ParameterError(f"invalid tags: more than {MAX_CONDITIONS}")
    return tags


def _logfmt_pairs(text: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _LOGFMT_PAIR.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise ParameterError(f"invalid tags: unexpected '{text[at]}' at pos {at + 1}")
        key, value = match[1], match[2] or ""
        try:
            yield key, unquote_string(value) if value.startswith('"') else value
        except ValueError as error:
            raise ParameterError(f"invalid tags: {error}") from None
        at = match.end()
