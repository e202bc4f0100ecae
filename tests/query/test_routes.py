from __future__ import annotations

import posixpath
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.query.routes import PREFIXES, clean_query, find_route, with_window

READ = ("GET", "HEAD")
QUERY = ("GET", "HEAD", "POST")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/traces/0af7651916cd43dd8448eb211c80319c", READ),
        ("/api/traces/0AF7", READ),
        ("/api/traces/not-hex-so-Tempo-explains", READ),
        ("/api/v2/traces/0af7651916cd43dd8448eb211c80319c", READ),
        ("/api/search", QUERY),
        ("/api/search/tags", READ),
        ("/api/v2/search/tags", READ),
        ("/api/search/tag/service.name/values", READ),
        ("/api/v2/search/tag/resource.service.name/values", READ),
        ("/api/v2/search/tag/.http.route/values", READ),
        ("/api/v2/search/tag/span.a%2Fb/values", READ),
        ("/api/v2/search/tag/span.a%252Fb/values", READ),
        ("/api/v2/search/tag/span.%22a%20b%22/values", READ),
        ("/api/v2/search/tag/event:name/values", READ),
        ("/api/v2/search/tag/span.caf%C3%A9/values", READ),
        ("/api/metrics/query", QUERY),
        ("/api/metrics/query_range", QUERY),
        ("/api/metrics/summary", READ),
        ("/prom/api/v1/query_range", QUERY),
        ("/api/echo", READ),
        ("/api/status/buildinfo", READ),
        ("/status/version", READ),
        ("/status/services", READ),
        ("/status/endpoints", READ),
        ("/status/usage-stats", READ),
    ],
)
def test_knows_each_read_path_of_tempo_and_its_methods(path, methods):
    route = find_route(path)

    assert route is not None
    assert route.methods == methods
    assert path.startswith(PREFIXES)


REFUSED = [
    "",
    "/",
    "*",
    "/shutdown",
    "/flush",
    "/ready",
    "/metrics",
    "/api",
    "/api/",
    "/api/overrides",
    "/api/mcp",
    "/api/search/",
    "/api/search//tags",
    "//api/search",
    "//flush",
    "/api//search",
    "/API/search",
    "/api/Search",
    "/api/search.",
    "/api/search;a=b",
    "/api/search;/../../flush",
    "/api/search#x",
    "/api/search%20",
    "/api/search%00",
    "/api/%73earch",
    "/api\\search",
    "/api/../flush",
    "/api/./search",
    "/api/echo/../../flush",
    "/api/%2e%2e/flush",
    "/api/%2E%2E%2Fflush",
    "/api%2f..%2fflush",
    "/api/traces/",
    "/api/traces/..",
    "/api/traces/%2e%2e",
    "/api/traces/a/b",
    "/api/traces/a%2Fb",
    "/api/traces/" + "a" * 65,
    "/api/v1/traces/abc",
    "/api/search/tag//values",
    "/api/search/tag/a/b/values",
    "/api/search/tag/../values",
    "/api/search/tag/./values",
    "/api/search/tag/%2e%2e/values",
    "/api/search/tag/..%2f..%2f..%2fflush/values",
    "/api/search/tag/a%2f..%2f..%2fflush/values",
    "/api/search/tag/a%252f..%252f..%252fflush/values",
    "/api/search/tag/%25252e%25252e/values",
    "/api/search/tag/a%5C..%5Cflush/values",
    "/api/search/tag/a%00/values",
    "/api/search/tag/a%0d%0aX:y/values",
    "/api/search/tag/a%/values",
    "/api/search/tag/a%zz/values",
    "/api/search/tag/a;b/values",
    "/api/search/tag/a?b/values",
    "/api/search/tag/caf\u00e9/values",
    "/api/search/tag/a/values\n",
    "/status",
    "/status/",
    "/status/config",
    "/status/version/",
    "/status/overrides/single-tenant",
    "/debug/pprof/heap",
    "/querier/api/search",
    "/ingester/ring",
    "http://tempo.test/api/search",
    "api/search",
]


@pytest.mark.parametrize("path", REFUSED)
def test_knows_no_other_path(path):
    assert find_route(path) is None


PIECES = ["/", "//", "api", "v2", "search", "tag", "values", "traces", "status", "version", "flush"]
PIECES += ["..", ".", "%2e", "%252E", "%2F", "%255c", "\\", ";", "a", "%00", "?", "%"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_no_decoding_of_a_taken_path_leaves_its_prefix(rest):
    path = "/api/search/tag/" + rest + "/values"
    assume(find_route(path) is not None)

    decoded = path
    for _ in range(4):
        decoded = unquote(decoded).replace("\\", "/")
        assert posixpath.normpath(decoded).startswith("/api/search/tag/")


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_a_taken_path_begins_with_a_prefix_that_is_routed(rest):
    assert find_route("/" + rest) is None or ("/" + rest).startswith(PREFIXES)


@given(st.text(min_size=1), st.integers(1, 3))
def test_takes_a_tag_in_any_depth_of_encoding_unless_it_could_leave_its_place(tag, depth):
    encoded = tag
    for _ in range(depth):
        encoded = quote(encoded, safe="")

    taken = find_route(f"/api/v2/search/tag/{encoded}/values") is not None

    parts = tag.replace("\\", "/").split("/")
    if "%" not in tag:  # a name that itself looks encoded is read as encoded once more
        is_plain = not any(part in {".", ".."} for part in parts)
        has_control = any(ord(char) < 0x20 or ord(char) == 0x7F for char in tag)
        assert taken == (is_plain and not has_control)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("", ""),
        ("q=%7B%7D&limit=20", "q=%7B%7D&limit=20"),
        ('q={ name="a" }', 'q={%20name="a"%20}'),
        ("q=%257B&a=%zz", "q=%257B&a=%zz"),
        ("q=caf\u00e9", "q=caf%C3%A9"),
        ("q=\udce9", "q=%E9"),
        ("a=1#b", "a=1%23b"),
        ("a=1\r\nX: y", "a=1%0D%0AX:%20y"),
        ("a=1?b", "a=1?b"),
    ],
)
def test_encodes_in_a_query_only_what_may_not_stand_there(raw, clean):
    assert clean_query(raw) == clean


@given(
    st.text(
        st.characters(codec="utf-8") | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
    )
)
def test_a_clean_query_fits_into_a_request_line(raw):
    clean = clean_query(raw)

    assert all(0x21 <= ord(char) <= 0x7E and char != "#" for char in clean)
    assert clean_query(clean) == clean


@pytest.mark.parametrize("query", ["start=1", "q=x&end=2", "%73tart=1&q=x", "start"])
def test_a_search_that_names_a_time_is_left_as_it_is(query):
    assert with_window(query, 10_000.0) == query


@pytest.mark.parametrize(
    ("query", "windowed"),
    [
        ("", "start=6400&end=10001"),
        ("q=%7B%7D", "q=%7B%7D&start=6400&end=10001"),
        ("q=start%3D1", "q=start%3D1&start=6400&end=10001"),
    ],
)
def test_a_search_that_names_none_looks_back_an_hour(query, windowed):
    assert with_window(query, 10_000.0) == windowed
