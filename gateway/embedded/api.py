"""Tempo's HTTP API over the store: the paths that Grafana and people read with.

It listens on loopback and is reached through the gateway, which knows who may read what; so there
is no authentication here, and the tenant is what ``X-Scope-OrgID`` says.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from gateway.embedded import render
from gateway.embedded.metrics import Metrics
from gateway.embedded.parameters import ParameterError
from gateway.embedded.queries import Queries
from gateway.embedded.search import OutOfTimeError, Reader
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

API_VERSION = "2.10.8"
"""Of Tempo, as far as the paths here go. Grafana asks, to know which of them there are."""
OUT_OF_TIME = (
    "the query took too long for the embedded development backend:"
    " give it a shorter time range or more exact conditions"
)
_PROTOBUF = "application/protobuf"
_TENANT = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9!\-_.*'()]{0,150}")


class Api:
    """The handlers."""

    def __init__(self, queries: Queries, metrics: Metrics) -> None:
        self._queries = queries
        self._metrics = metrics

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

        return await self._queries.read("traces", read)

    async def _trace_v2(self, request: web.Request) -> web.Response:
        tenant, trace_id = _tenant(request), _trace_id(request.match_info["id"])
        as_protobuf = _wants_protobuf(request)

        def read(reader: Reader) -> web.Response:
            trace = render.trace_message(reader.trace(tenant, trace_id))
            if as_protobuf:
                return _protobuf(render.trace_by_id_response(trace))
            return _json({"trace": render.trace_json(trace, "resourceSpans"), "metrics": {}})

        return await self._queries.read("traces", read)

    async def _search(self, request: web.Request) -> web.Response:
        return _json(await self._queries.search(_tenant(request), request.query))

    async def _tags_v1(self, request: web.Request) -> web.Response:
        return _json(await self._queries.tags_v1(_tenant(request), request.query))

    async def _tags_v2(self, request: web.Request) -> web.Response:
        return _json(await self._queries.tags_v2(_tenant(request), request.query))

    async def _values_v1(self, request: web.Request) -> web.Response:
        tag = request.match_info["tag"]
        return _json(await self._queries.values_v1(_tenant(request), tag, request.query))

    async def _values_v2(self, request: web.Request) -> web.Response:
        tag = request.match_info["tag"]
        return _json(await self._queries.values_v2(_tenant(request), tag, request.query))


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
        return web.Response(status=422, text=OUT_OF_TIME)
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
