"""Grafana's streamed queries through a running gateway."""

from __future__ import annotations

import os
import urllib.request

import grpc
import pytest

from tests.kit.backends import find_tempo, tempo_version
from tests.kit.gateway import RunningGateway, eventually, running_gateway
from tests.kit.grafana import SEARCH, TAGS, TAGS_V2, VALUES, VALUES_V2, Datasource
from tests.kit.modes import BACKENDS, backend_env
from tests.kit.spans import make_request, make_span

SERVICE_NAME = "streamed-shop"


@pytest.fixture(scope="module", params=BACKENDS)
def mode(request):
    return request.param


@pytest.fixture(scope="module", params=["own", "grpcio"])
def gateway(request, mode, tmp_path_factory):
    if mode == "embedded" and request.param == "grpcio":
        pytest.skip("one engine does for it: start-ups take the time of this suite")
    env = {**backend_env(mode), "GATEWAY_GRPC_ENGINE": request.param}
    with running_gateway(tmp_path_factory.mktemp("data"), env) as started:
        started.wait_until_ready()
        yield started


@pytest.fixture(params=["PORT", "TCP_GRPC_PORT"])
def grafana(request, gateway):
    if request.param == "PORT" and gateway.env["GATEWAY_GRPC_ENGINE"] == "grpcio":
        pytest.skip("aiohttp has this port for HTTP alone")
    port = gateway.http_port if request.param == "PORT" else gateway.grpc_port
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Datasource(channel)


def has_more_than_search(mode: str) -> bool:
    return mode == "embedded" or tempo_version(find_tempo()) >= (2, 5)


def send(gateway: RunningGateway, trace_id: bytes) -> None:
    span = make_span("checkout", trace_id=trace_id)
    body = make_request(span, service=SERVICE_NAME).SerializeToString()
    fields = {"Content-Type": "application/x-protobuf"}
    with urllib.request.urlopen(urllib.request.Request(gateway.url + "/v1/traces", body, fields)):
        pass


def test_the_datasource_is_healthy(grafana):
    assert eventually(grafana.is_healthy)


def test_a_search_finds_what_was_sent(gateway, grafana):
    trace_id = b"\xab" + os.urandom(15)
    send(gateway, trace_id)
    query = f'{{ resource.service.name = "{SERVICE_NAME}" }}'
    found = eventually(lambda: grafana.search(query).get(trace_id.hex()))
    assert (found.rootServiceName, found.rootTraceName) == (SERVICE_NAME, "checkout")


def test_autocompletion_too(mode, gateway, grafana):
    if not has_more_than_search(mode):
        with pytest.raises(grpc.RpcError) as caught:
            grafana.ask(TAGS)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        return
    send(gateway, b"\xcd" + os.urandom(15))
    assert eventually(lambda: "service.name" in grafana.ask(TAGS)[-1].tagNames)
    scopes = grafana.ask(TAGS_V2, scope="resource")[-1].scopes
    assert "service.name" in next(scope.tags for scope in scopes if scope.name == "resource")
    assert SERVICE_NAME in grafana.ask(VALUES, tag_name="service.name")[-1].tagValues
    (answer,) = grafana.ask(VALUES_V2, tag_name="resource.service.name")[-1:]
    assert ("string", SERVICE_NAME) in {(each.type, each.value) for each in answer.tagValues}


def test_what_is_wrong_with_a_query_is_told(grafana):
    with pytest.raises(grpc.RpcError) as caught:
        grafana.ask(SEARCH, query="{ nonsense")
    # Tempo 2.4 has one code for all that is wrong
    assert caught.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNKNOWN}
    assert "invalid TraceQL query" in caught.value.details()
