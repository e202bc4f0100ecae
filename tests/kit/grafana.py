"""What Grafana's Tempo datasource sends with streaming switched on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc

from proto_stubs import queries_pb2 as messages

SERVICE = "/tempopb.StreamingQuerier/"
TIMEOUT_S = 20.0
RANGE_S = 15 * 60


class Method(NamedTuple):
    """One of the service's, with its messages."""

    name: str
    request: Any
    response: Any


SEARCH = Method("Search", messages.SearchRequest, messages.SearchResponse)
TAGS = Method("SearchTags", messages.TagsRequest, messages.TagsResponse)
TAGS_V2 = Method("SearchTagsV2", messages.TagsRequest, messages.TagsV2Response)
VALUES = Method("SearchTagValues", messages.TagValuesRequest, messages.TagValuesResponse)
VALUES_V2 = Method("SearchTagValuesV2", messages.TagValuesRequest, messages.TagValuesV2Response)


class Datasource:
    """Asks over a channel to a port that also serves HTTP, as Grafana does, with the metadata that
    its settings have it send.
    """

    def __init__(self, channel: grpc.Channel, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self._channel = channel
        self._metadata = tuple(metadata)

    def ask(self, method: Method, **fields: Any) -> list[Any]:
        """All messages of the answer. Raises grpc.RpcError."""
        call: grpc.UnaryStreamMultiCallable[Any, Any] = self._channel.unary_stream(
            SERVICE + method.name,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return list(call(method.request(**fields), timeout=TIMEOUT_S, metadata=self._metadata))

    def search(self, query: str, *, limit: int = 20) -> dict[str, Any]:
        """The traces that were found, by id without leading zeros. What comes later replaces what
        came before, as on Grafana's screen.
        """
        now_s = int(time.time())
        answers = self.ask(
            SEARCH,
            query=query,
            limit=limit,
            start=now_s - RANGE_S,
            end=now_s + 60,
            spans_per_span_set=3,
        )
        return {found.traceID.lstrip("0"): found for answer in answers for found in answer.traces}

    def is_healthy(self) -> bool:
        """The check behind "Save & test": whether a search works at all."""
        now_s = int(time.time())
        try:
            self.ask(SEARCH, query="{}", limit=1, start=now_s - RANGE_S, end=now_s)
        except grpc.RpcError:
            return False
        return True
