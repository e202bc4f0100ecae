"""Tempo's ``tempopb.StreamingQuerier`` over the answers that the HTTP API gives.

Requests become parameters of that API, and its JSON becomes messages, so the two cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import grpc
import grpc.aio
from google.protobuf.json_format import ParseDict

from gateway.embedded.api import OUT_OF_TIME, check_tenant
from gateway.embedded.parameters import ParameterError
from gateway.embedded.queries import Queries
from gateway.embedded.render import Json
from gateway.embedded.search import OutOfTimeError
from proto_stubs import queries_pb2 as messages

SERVICE = "tempopb.StreamingQuerier"
TRACES_PER_MESSAGE = 100
"""Clients take messages of 4 MiB unless told otherwise."""

_NO_METRICS = (
    "the embedded development backend does not have metrics queries. Grafana Tempo has them: set"
    " TEMPO_BIN to use it"
)


class _Method(NamedTuple):
    request: Any
    response: Any
    answer: Callable[[Queries, str, Any], Awaitable[Json]]
    """Of whom, for which tenant, to what."""


def _search(queries: Queries, tenant: str, asked: Any) -> Awaitable[Json]:
    pairs = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in asked.tags.items())
    query = _parameters(
        q=asked.query,
        tags=" ".join(pairs),
        minDuration=asked.min_duration_ms and f"{asked.min_duration_ms}ms",
        maxDuration=asked.max_duration_ms and f"{asked.max_duration_ms}ms",
        limit=asked.limit,
        start=asked.start,
        end=asked.end,
        spss=asked.spans_per_span_set,
    )
    return queries.search(tenant, query)


def _tags(asked: Any) -> dict[str, str]:
    return _parameters(
        scope=asked.scope, q=asked.query, limit=asked.limit, start=asked.start, end=asked.end
    )


def _values(asked: Any) -> dict[str, str]:
    return _parameters(q=asked.query, limit=asked.limit, start=asked.start, end=asked.end)


def _parameters(**values: Any) -> dict[str, str]:
    """As they would stand in a URL: what has its zero value is not there."""
    return {name: str(value) for name, value in values.items() if value}


_METHODS = {
    "Search": _Method(messages.SearchRequest, messages.SearchResponse, _search),
    "SearchTags": _Method(
        messages.TagsRequest,
        messages.TagsResponse,
        lambda queries, tenant, asked: queries.tags_v1(tenant, _tags(asked)),
    ),
    "SearchTagsV2": _Method(
        messages.TagsRequest,
        messages.TagsV2Response,
        lambda queries, tenant, asked: queries.tags_v2(tenant, _tags(asked)),
    ),
    "SearchTagValues": _Method(
        messages.TagValuesRequest,
        messages.TagValuesResponse,
        lambda queries, tenant, asked: queries.values_v1(tenant, asked.tag_name, _values(asked)),
    ),
    "SearchTagValuesV2": _Method(
        messages.TagValuesRequest,
        messages.TagValuesV2Response,
        lambda queries, tenant, asked: queries.values_v2(tenant, asked.tag_name, _values(asked)),
    ),
}

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def streaming_querier(queries: Queries) -> grpc.GenericRpcHandler:
    """The service; its metrics queries are UNIMPLEMENTED in words."""
    handlers = {name: _handler(queries, method) for name, method in _METHODS.items()}
    lacking: _RpcHandler = grpc.unary_stream_rpc_method_handler(_lacking)
    return grpc.method_handlers_generic_handler(
        SERVICE, handlers | {"MetricsQueryRange": lacking, "MetricsQueryInstant": lacking}
    )


def _handler(queries: Queries, method: _Method) -> _RpcHandler:
    async def answer(asked: Any, context: _Context) -> AsyncIterator[Any]:
        metadata = dict(context.invocation_metadata() or ())
        try:
            tenant = check_tenant(str(metadata.get("x-scope-orgid", "")))
            found = await method.answer(queries, tenant, asked)
        except ParameterError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OutOfTimeError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, OUT_OF_TIME)
        for part in _parts(found):
            # "metrics" is empty in all answers but that of a search.
            yield ParseDict(part, method.response(), ignore_unknown_fields=True)

    return grpc.unary_stream_rpc_method_handler(
        answer,
        request_deserializer=method.request.FromString,
        response_serializer=method.response.SerializeToString,
    )


def _parts(found: Json) -> Iterator[Json]:
    traces = found.get("traces", ())
    for start in range(0, max(len(traces), 1), TRACES_PER_MESSAGE):
        part = traces[start : start + TRACES_PER_MESSAGE]
        yield {**found, "traces": part} if traces else found


async def _lacking(_asked: bytes, context: _Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, _NO_METRICS)
