"""Streamed queries of the embedded backend; that they answer as its HTTP API does is in
``tests/contract/test_streaming_contract.py``.
"""

from __future__ import annotations

import os

import grpc
import pytest

from gateway.embedded.streaming import TRACES_PER_MESSAGE
from tests.kit.backends import embedded_backend
from tests.kit.grafana import SEARCH, SERVICE, TAGS, VALUES_V2, Datasource, Method
from tests.kit.spans import attribute, make_request, make_span


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    with embedded_backend(tmp_path_factory.mktemp("embedded")) as started:
        yield started


@pytest.fixture
def channel(backend):
    with grpc.insecure_channel(backend.otlp) as opened:
        yield opened


def failure(datasource: Datasource, method: Method, **fields) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        datasource.ask(method, **fields)
    return caught.value.code(), caught.value.details()


def test_of_many_traces_each_message_has_some(backend, channel):
    spans = [make_span(trace_id=os.urandom(16)) for _ in range(TRACES_PER_MESSAGE + 5)]
    backend.push(make_request(*spans))
    answers = Datasource(channel).ask(SEARCH, query="{}", limit=len(spans))
    assert [len(answer.traces) for answer in answers] == [TRACES_PER_MESSAGE, 5]
    assert len({trace.traceID for answer in answers for trace in answer.traces}) == len(spans)
    assert answers[-1].metrics.completedJobs == answers[-1].metrics.totalJobs == 1


def test_a_tenant_finds_its_own(backend, channel):
    backend.push(make_request(make_span("theirs")), tenant="them")
    found = {
        tenant: Datasource(channel, [("x-scope-orgid", tenant)]).search('{ name = "theirs" }')
        for tenant in ("them", "us")
    }
    assert (len(found["them"]), len(found["us"])) == (1, 0)
    code, text = failure(Datasource(channel, [("x-scope-orgid", "a/b")]), TAGS)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "tenant" in text


def test_what_is_wrong_is_said_in_words(channel):
    asked = failure(Datasource(channel), SEARCH, query="{", limit=1)
    assert asked[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert asked[1].startswith("invalid TraceQL query: ")
    asked = failure(Datasource(channel), VALUES_V2, tag_name="no tag")
    assert asked[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert "valid tagName" in asked[1]


def test_a_query_that_takes_too_long_says_so(tmp_path):
    with embedded_backend(tmp_path, "--query-timeout", "20ms") as slow:
        text = [attribute("text", "a" * 200_000)]
        slow.push(make_request(*(make_span(attributes=text) for _ in range(20))))
        with grpc.insecure_channel(slow.otlp) as channel:
            query = "{ .text =~ `(a|b)*(a|c)*(a|d)*x` }"
            code, text = failure(Datasource(channel), SEARCH, query=query)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "shorter time range" in text


@pytest.mark.parametrize("name", ["MetricsQueryRange", "MetricsQueryInstant"])
def test_metrics_queries_are_left_to_tempo(channel, name):
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream(SERVICE + name)(b"", timeout=10))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "Grafana Tempo has them: set TEMPO_BIN" in caught.value.details()
