"""Questions about traces, answered in Tempo's JSON: what its HTTP API and its gRPC service share.

Parameters are those of the HTTP API. The tenant is checked by who asks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from gateway.embedded import parameters, render, tags
from gateway.embedded.comparisons import TraceqlError
from gateway.embedded.conditions import Constant, Filter, Spanset
from gateway.embedded.metrics import Metrics
from gateway.embedded.parameters import ParameterError
from gateway.embedded.render import Json
from gateway.embedded.search import Reader
from gateway.embedded.stored import Field
from gateway.embedded.traceql import parse, parse_field

READER_THREADS = 2
_EVERYTHING = Filter(Constant(value=True))
_V1_FIELDS = {
    "root.name": Field("intrinsic", "rootName"),
    "root.service.name": Field("intrinsic", "rootServiceName"),
    "service.name": Field("resource", "service.name"),
}
_V1_INTRINSICS = ("name", "rootName", "rootServiceName")
_V1_FIXED = {"status.code": ["error", "ok", "unset"], "error": ["true"]}

T = TypeVar("T")
Query = Mapping[str, str]


class Queries:
    """Each raises ParameterError and OutOfTimeError. ``stop`` before the servers stop, ``close``
    after.
    """

    def __init__(self, path: Path, metrics: Metrics, *, query_timeout_s: float) -> None:
        self._path = path
        self._metrics = metrics
        self._query_timeout_s = query_timeout_s
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="store-reader")
        self._mine = threading.local()
        self._readers: list[Reader] = []

    def stop(self) -> None:
        """Ends the queries that are under way."""
        for reader in self._readers:
            reader.stop()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for reader in self._readers:
            reader.close()

    async def read(self, operation: str, work: Callable[[Reader], T]) -> T:
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

    async def search(self, tenant: str, query: Query) -> Json:
        asked = parameters.search(query)

        def read(reader: Reader) -> Json:
            found = reader.search(
                tenant,
                asked.window,
                asked.spanset,
                limit=asked.limit,
                spans_per_spanset=asked.spans_per_spanset,
            )
            return render.search_json(found, asked.spanset if asked.is_traceql else None)

        return await self.read("search", read)

    async def tags_v1(self, tenant: str, query: Query) -> Json:
        names = await self._tag_names(tenant, query)
        if query.get("scope") == "intrinsic":
            found = set(tags.INTRINSIC_TAGS)
        else:
            found = {name for of_scope in names.values() for name in of_scope}
        return _answer(tagNames=sorted(found)[: parameters.at_most(query)])

    async def tags_v2(self, tenant: str, query: Query) -> Json:
        names = await self._tag_names(tenant, query)
        limit = parameters.at_most(query)
        scopes = [{"name": scope, "tags": found[:limit]} for scope, found in names.items()]
        if query.get("scope", "") in {"", "none", "intrinsic"}:
            scopes.append({"name": "intrinsic", "tags": list(tags.INTRINSIC_TAGS)})
        return _answer(scopes=scopes)

    async def values_v1(self, tenant: str, tag: str, query: Query) -> Json:
        if tag in _V1_FIXED:
            return _answer(tagValues=_V1_FIXED[tag])
        if tag in _V1_FIELDS:
            fields = [_V1_FIELDS[tag]]
        elif tag in _V1_INTRINSICS:
            fields = [Field("intrinsic", tag)]
        else:
            fields = [Field("", tag), Field("instrumentation", tag)]
        found = await self._values(tenant, query, fields, _EVERYTHING)
        values = sorted({value for _, value in found})
        return _answer(tagValues=values[: parameters.at_most(query)])

    async def values_v2(self, tenant: str, tag: str, query: Query) -> Json:
        try:
            field = parse_field(tag)
        except TraceqlError as error:
            raise ParameterError(
                f"please provide a valid tagName: failed to parse identifier {tag}: {error}"
            ) from None
        fields = [field] if field.scope else [field, Field("instrumentation", field.name)]
        found = await self._values(tenant, query, fields, _filter(query))
        # As in all of Tempo's JSON the empty string is left out.
        values = [{"type": type_, **({"value": value} if value else {})} for type_, value in found]
        return _answer(tagValues=values[: parameters.at_most(query)])

    async def _tag_names(self, tenant: str, query: Query) -> dict[str, list[str]]:
        window = parameters.time_range(query)
        scope = query.get("scope", "")
        if scope not in {"", "none", "intrinsic", *tags.SCOPES}:
            raise ParameterError(f"invalid scope: {scope}")
        if scope == "intrinsic":
            return {}
        spanset = _filter(query)
        names = await self.read(
            "search", lambda reader: tags.tag_names(reader, tenant, window, spanset)
        )
        return {each: names[each] for each in names if scope in {"", "none", each}}

    async def _values(
        self, tenant: str, query: Query, fields: list[Field], spanset: Spanset
    ) -> list[tuple[str, str]]:
        window = parameters.time_range(query)
        return await self.read(
            "search", lambda reader: tags.tag_values(reader, tenant, window, fields, spanset)
        )


def _answer(**fields: Any) -> Json:
    return {**fields, "metrics": {}}


def _filter(query: Query) -> Spanset:
    """The ``q`` of the tags endpoints; while someone types it is often not whole, and then it
    filters nothing.
    """
    try:
        return parse(query.get("q", ""))
    except TraceqlError:
        return _EVERYTHING
