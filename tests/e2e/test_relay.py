"""A relay and the gateway behind it, both real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from gateway.receivers.headers import EXPORT_METHOD
from tests.kit.gateway import RunningGateway, eventually, logfmt, running_gateway
from tests.kit.ledger import assert_books_balance
from tests.kit.spans import make_payload, make_request, make_span

EMBEDDED = {"TEMPO_MODE": "embedded"}


@contextmanager
def running_relay(data_dir, target: str, **env: str) -> Iterator[RunningGateway]:
    """A relay that listens; its one port is both ``grpc_port`` and ``http_port``."""
    relay = RunningGateway(data_dir, {"TEMPO_OTLP_ENDPOINT": target} | env, "relay")
    try:
        line = relay.wait_for_line("msg=listening .*logger=gateway.receivers.*protocol=grpc")
        relay.http_port = relay.grpc_port = int(logfmt(line)["port"])
        yield relay
    finally:
        relay.kill()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running_gateway(tmp_path_factory.mktemp("gateway"), EMBEDDED) as gateway:
        gateway.wait_until_ready()
        yield gateway


def export(relay: RunningGateway, payload: bytes, *metadata: tuple[str, str]) -> bytes:
    with grpc.insecure_channel(relay.grpc_address) as channel:
        call = channel.unary_unary(EXPORT_METHOD)
        answer: bytes = call(payload, timeout=20, metadata=metadata)
        return answer


def delivered(relay: RunningGateway) -> int:
    return assert_books_balance(relay.get("/metrics")[1])["delivered"]


@pytest.fixture(scope="module")
def relay(tmp_path_factory, gateway):
    """By the name of this machine, so that it is looked up."""
    target = f"http://localhost:{gateway.grpc_port}"
    with running_relay(tmp_path_factory.mktemp("relay"), target) as relay:
        yield relay


def test_what_a_relay_takes_is_found_at_the_gateway(relay, gateway):
    span = make_span()
    before = delivered(relay)
    assert export(relay, make_request(span).SerializeToString()) == b""
    eventually(lambda: delivered(relay) == before + 1)
    eventually(lambda: gateway.get(f"/api/traces/{span.trace_id.hex()}")[0] == 200)


def test_a_relay_has_pages_but_no_queries_and_no_backend_of_its_own(relay):
    pages = {path: relay.get(path)[0] for path in ("/", "/live", "/ready", "/metrics")}
    assert set(pages.values()) == {200}, pages
    assert relay.get("/api/search")[0] == 404
    assert json.loads(relay.get("/gateway/status")[1])["mode"] == "relay"
    assert "backend started" not in relay.log


def test_a_relay_answers_no_streamed_queries(relay):
    with grpc.insecure_channel(relay.grpc_address) as channel:
        search = channel.unary_stream("/tempopb.StreamingQuerier/Search")
        with pytest.raises(grpc.RpcError) as caught:
            next(search(b"", timeout=20))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_relay_keeps_what_it_cannot_deliver_yet(tmp_path):
    """Also over its own end: what a client was told OK for is in the spool."""
    with running_relay(tmp_path, "http://127.0.0.1:9", GATEWAY_DRAIN_TIMEOUT="1s") as relay:
        export(relay, make_payload(5))
        assert relay.stop() == 0
        assert logfmt(relay.wait_for_line("msg=stopped"))["spans_left_in_spool"] == "5"


def test_sigterm_closes_the_connections_of_a_relay_in_good_order(tmp_path, gateway):
    """GOAWAY: the client learns that the connection ends, and no call breaks."""
    with running_relay(tmp_path, f"http://{gateway.grpc_address}") as relay:
        with grpc.insecure_channel(relay.grpc_address) as channel:
            states: list[grpc.ChannelConnectivity] = []
            channel.subscribe(states.append)
            channel.unary_unary(EXPORT_METHOD)(make_payload(2), timeout=20)
            assert relay.stop() == 0
            eventually(lambda: states[-1] is grpc.ChannelConnectivity.IDLE)
            assert grpc.ChannelConnectivity.TRANSIENT_FAILURE not in states
        assert logfmt(relay.wait_for_line("msg=stopped"))["spans_left_in_spool"] == "0"
        assert "connections cut" not in relay.log
