"""The allow-list: which paths of Tempo's HTTP API the gateway passes on, and with which methods.

A path is matched as the client wrote it, before any decoding, against exact patterns. Whatever
does not match is not passed on, so no trick of encoding has to be known here to be refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote

# A mistyped id shall reach Tempo, whose 400 says what is wrong with it.
_TRACE_ID = "[0-9A-Za-z-]{1,64}"
_TAG = r"(?P<tag>(?:[0-9A-Za-z._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})+)"

_READ = ("GET", "HEAD")
_QUERY = ("GET", "HEAD", "POST")


class Route(NamedTuple):
    """Paths that match ``pattern`` in full, asked with one of ``methods``.

    POST is for queries too long for a URL: a form whose parameters Tempo gets as a query string.
    """

    pattern: re.Pattern[str]
    methods: tuple[str, ...]


_ROUTES = tuple(
    Route(re.compile(pattern), methods)
    for pattern, methods in (
        (f"/api/traces/{_TRACE_ID}", _READ),
        (f"/api/v2/traces/{_TRACE_ID}", _READ),
        ("/api/search", _QUERY),
        ("/api/search/tags", _READ),
        ("/api/v2/search/tags", _READ),
        (f"/api/search/tag/{_TAG}/values", _READ),
        (f"/api/v2/search/tag/{_TAG}/values", _READ),
        ("/api/metrics/query", _QUERY),
        ("/api/metrics/query_range", _QUERY),
        ("/api/metrics/summary", _READ),
        ("/prom/api/v1/query_range", _QUERY),
        ("/api/echo", _READ),
        ("/api/status/buildinfo", _READ),
        ("/status/version", _READ),
        ("/status/services", _READ),
        ("/status/endpoints", _READ),
        ("/status/usage-stats", _READ),
    )
)

PREFIXES = ("/api/", "/prom/", "/status/")
"""Every path on the list begins with one of these."""


def find_route(path: str) -> Route | None:
    """The entry for a path as it stood in the request line, without ``?`` and what follows."""
    for route in _ROUTES:
        if (match := route.pattern.fullmatch(path)) is not None:
            tag = match.groupdict().get("tag")
            return route if tag is None or _is_tag_name(tag) else None
    return None


def _is_tag_name(encoded: str) -> bool:
    """False where some decoding of the name would leave its place in the path.

    Clients encode a tag such as ``span.a/b`` once or, as Grafana did for long, twice. Tempo's
    router cleans the decoded path, so a name must hold no dot segments at any depth.
    """
    name = encoded
    while True:
        if any(part in {".", ".."} for part in re.split(r"[/\\]", name)):
            return False
        if re.search(r"[\x00-\x1f\x7f]", name):
            return False
        decoded = unquote(name)
        if decoded == name:
            return True
        name = decoded


SEARCH = "/api/search"
RECENT_S = 3600
"""What a search looks back that names no time."""


def with_window(query: str, now_s: float) -> str:
    """A search's query string with a window, if it has neither start nor end.

    Without one Tempo asks only the part of it that takes spans in, which knows a trace for some
    minutes, and none from before its start.
    """
    names = {unquote(pair.partition("=")[0]) for pair in query.split("&")}
    if names & {"start", "end"}:
        return query
    window = f"start={now_s - RECENT_S:.0f}&end={now_s + 1:.0f}"
    return f"{query}&{window}" if query else window


# All of ASCII that is visible, but "#", which would begin a fragment and cut the query short.
_IN_QUERY = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "#")


def clean_query(raw: str) -> str:
    """A query string as it came (undecodable bytes as surrogates), fit for a request line.

    Only what may not stand there is percent-encoded; what the client encoded stays as it is.
    """
    return quote_from_bytes(raw.encode("utf-8", "surrogateescape"), safe=_IN_QUERY)
