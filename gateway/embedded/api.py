"""Tempo's HTTP API over the store: the paths that Grafana and people read with.

It listens on loopback and is reached through the gateway, which knows who may read what; so there
is no authentication here, and the tenant is what ``X-Scope-OrgID`` says.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from gateway.embedded import parameters, render, tags
from gateway.embedded.comparisons import TraceqlError
from gateway.embedded.conditions import Constant, Filter, Spanset
from gateway.embedded.metrics import Metrics
from gateway.embedded.parameters import ParameterError
from gateway.embedded.search import OutOfTimeError, Reader
from gateway.embedded.stored import Field
from gateway.embedded.traceql import parse, parse_field
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

API_VERSION = "2.10.8"
"""Of Tempo, as far as the paths here go. Grafana asks, to know which of them there are."""
READER_THREADS = 2
_PROTOBUF = "application/protobuf"
_TENANT = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9!\-_.*'()]{0,150}")
_EVERYTHING = Filter(Constant(value=True))
_V1_FIELDS = {
    "root.name": Field("intrinsic", "rootName"),
    "root.service.name": Field("intrinsic", "rootServiceName"),
    "service.name": Field("resource", "service.name"),
}
_V1_INTRINSICS = ("name", "rootName", "rootServiceName")
_V1_FIXED = {"status.code": ["error", "ok", "unset"], "error": ["true"]}

T = TypeVar("T")


class Api:
    """The handlers. ``stop`` before the server stops, ``close`` after."""

    def __init__(self, path: Path, metrics: Metrics, *, query_timeout_s: float) -> None:
        self._path = path
        self._metrics = metrics
        self._query_timeout_s = query_timeout_s
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="store-reader")
        self._mine = threading.local()
        self._readers: list[Reader] = []

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_answer_errors])
        for path, handler in (
            ("/ready", _text("ready\n")),
            ("/api/echo", _text("echo\n")),
            ("/api/status/buildinfo", self._build_info),
            ("/metrics", self._exposition),
            ("/api/traces/{id}", self._trace_v1),
            ("/api/v2/traces/{id}", self._trace_v2),
            ("/api/search", self._search),
            ("/api/search/tags", self._tags_v1),
            ("/api/v2/search/tags", self._tags_v2),
            ("/api/search/tag/{tag:.+}/values", self._values_v1),
            ("/api/v2/search/tag/{tag:.+}/values", self._values_v2),
        ):
            application.router.add_route("*", path, handler)  # Tempo looks at no method either
        return application

    def stop(self) -> None:
        """Ends the queries that are under way."""
        for reader in self._readers:
            reader.stop()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for reader in self._readers:
            reader.close()

    async def _read(self, operation: str, work: Callable[[Reader], T]) -> T:
        """Runs ``work`` in a reader's thread."""
        self._metrics.queries[operation] += 1
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: work(self._reader())
        )

    def _reader(self) -> Reader:
        reader: Reader | None = getattr(self._mine, "reader", None)
        if reader is None:
            reader = self._mine.reader = Reader(self._path, timeout_s=self._query_timeout_s)
            self._readers.append(reader)
        return reader

    async def _build_info(self, _request: web.Request) -> web.Response:
        return _json(
            {
                "version": f"{API_VERSION}+embedded",
                "revision": "",
                "branch": "embedded",
                "buildUser": "",
                "buildDate": "",
                "goVersion": "",
            }
        )

    async def _exposition(self, _request: web.Request) -> web.Response:
        text = await asyncio.to_thread(generate_latest, self._metrics.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _trace_v1(self, request: web.Request) -> web.Response:
        tenant, trace_id = _tenant(request), _trace_id(request.match_info["id"])
        as_protobuf = _wants_protobuf(request)

        def read(reader: Reader) -> web.Response:
            parts = reader.trace(tenant, trace_id)
            if not parts:
                return web.Response(status=404)
            trace = render.trace_message(parts)
            if as_protobuf:
                return _protobuf(trace.SerializeToString())
            return _json(render.trace_json(trace, "batches"))

        return await self._read("traces", read)

    async def _trace_v2(self, request: web.Request) -> web.Response:
        tenant, trace_id = _tenant(request), _trace_id(request.match_info["id"])
        as_protobuf = _wants_protobuf(request)

        def read(reader: Reader) -> web.Response:
            trace = render.trace_message(reader.trace(tenant, trace_id))
            if as_protobuf:
                return _protobuf(render.trace_by_id_response(trace))
            return _json({"trace": render.trace_json(trace, "resourceSpans"), "metrics": {}})

        return await self._read("traces", read)

    async def _search(self, request: web.Request) -> web.Response:
        tenant, asked = _tenant(request), parameters.search(request.query)

        def read(reader: Reader) -> web.Response:
            found = reader.search(
                tenant,
                asked.window,
                asked.spanset,
                limit=asked.limit,
                spans_per_spanset=asked.spans_per_spanset,
            )
            shown = asked.spanset if asked.is_traceql else None
            return _json(render.search_json(found, shown))

        return await self._read("search", read)

    async def _tag_names(self, request: web.Request) -> dict[str, list[str]]:
        tenant, window = _tenant(request), parameters.time_range(request.query)
        scope = request.query.get("scope", "")
        if scope not in {"", "none", "intrinsic", *tags.SCOPES}:
            raise ParameterError(f"invalid scope: {scope}")
        if scope == "intrinsic":
            return {}
        spanset = _filter(request)
        names = await self._read(
            "search", lambda reader: tags.tag_names(reader, tenant, window, spanset)
        )
        return {each: names[each] for each in names if scope in {"", "none", each}}

    async def _tags_v1(self, request: web.Request) -> web.Response:
        names = await self._tag_names(request)
        if request.query.get("scope") == "intrinsic":
            found = set(tags.INTRINSIC_TAGS)
        else:
            found = {name for of_scope in names.values() for name in of_scope}
        limit = parameters.at_most(request.query)
        return _answer(tagNames=sorted(found)[:limit])

    async def _tags_v2(self, request: web.Request) -> web.Response:
        names = await self._tag_names(request)
        limit = parameters.at_most(request.query)
        scopes = [{"name": scope, "tags": found[:limit]} for scope, found in names.items()]
        if request.query.get("scope", "") in {"", "none", "intrinsic"}:
            scopes.append({"name": "intrinsic", "tags": list(tags.INTRINSIC_TAGS)})
        return _answer(scopes=scopes)

    async def _values_v1(self, request: web.Request) -> web.Response:
        tag = _tag(request)
        if tag in _V1_FIXED:
            return _answer(tagValues=_V1_FIXED[tag])
        if tag in _V1_FIELDS:
            fields = [_V1_FIELDS[tag]]
        elif tag in _V1_INTRINSICS:
            fields = [Field("intrinsic", tag)]
        else:
            fields = [Field("", tag), Field("instrumentation", tag)]
        found = await self._values(request, fields, _EVERYTHING)
        values = sorted({value for _, value in found})
        return _answer(tagValues=values[: parameters.at_most(request.query)])

    async def _values_v2(self, request: web.Request) -> web.Response:
        tag = _tag(request)
        try:
            field = parse_field(tag)
        except TraceqlError as error:
            raise ParameterError(
                f"please provide a valid tagName: failed to parse identifier {tag}: {error}"
            ) from None
        fields = [field] if field.scope else [field, Field("instrumentation", field.name)]
        found = await self._values(request, fields, _filter(request))
        # As in all of Tempo's JSON the empty string is left out.
        values = [{"type": type_, **({"value": value} if value else {})} for type_, value in found]
        return _answer(tagValues=values[: parameters.at_most(request.query)])

    async def _values(
        self, request: web.Request, fields: list[Field], spanset: Spanset
    ) -> list[tuple[str, str]]:
        tenant, window = _tenant(request), parameters.time_range(request.query)
        return await self._read(
            "search", lambda reader: tags.tag_values(reader, tenant, window, fields, spanset)
        )


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors are plain text, as Tempo's are."""
    try:
        return await handler(request)
    except ParameterError as error:
        return web.Response(status=400, text=str(error))
    except OutOfTimeError:
        return web.Response(
            status=422,
            text="the query took too long for the embedded development backend:"
            " give it a shorter time range or more exact conditions",
        )
    except web.HTTPNotFound:
        return web.Response(status=404, text="404 page not found\n")
    except web.HTTPException:
        raise
    except Exception as error:
        logger.exception("query failed", extra=facts(path=request.path))
        return web.Response(status=500, text=f"the embedded development backend failed: {error}")


def _text(body: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=body)

    return answer


def _json(answer: render.Json) -> web.Response:
    return web.Response(body=json.dumps(answer).encode(), content_type="application/json")


def _answer(**fields: Any) -> web.Response:
    return _json({**fields, "metrics": {}})


def _protobuf(body: bytes) -> web.Response:
    return web.Response(body=body, content_type=_PROTOBUF)


def _wants_protobuf(request: web.Request) -> bool:
    return _PROTOBUF in request.headers.get("Accept", "")


def _tenant(request: web.Request) -> str:
    return check_tenant(request.headers.get("X-Scope-OrgID", ""))


def check_tenant(tenant: str) -> str:
    """Raises ParameterError for what Tempo does not take as a tenant."""
    if _TENANT.fullmatch(tenant) is None:
        raise ParameterError(f"tenant ID {tenant!r} is not valid: use letters, digits and !-_.*'()")
    return tenant


def _trace_id(text: str) -> bytes:
    for position, char in enumerate(text, start=1):
        if char not in "0123456789abcdefABCDEF":
            raise ParameterError(
                "trace IDs can only contain hex characters:"
                f" invalid character '{char}' at position {position}"
            )
    if len(text) > 32:
        raise ParameterError("trace IDs can't be larger than 128 bits")
    return bytes.fromhex(text.rjust(32, "0"))


def _tag(request: web.Request) -> str:
    return request.match_info["tag"]


def _filter(request: web.Request) -> Spanset:
    """The ``q`` of the tags endpoints; while someone types it is often not whole, and then it
    filters nothing.
    """
    try:
        return parse(request.query.get("q", ""))
    except TraceqlError:
        return _EVERYTHING
