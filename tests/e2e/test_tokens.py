"""A started gateway with tokens: each tenant sends and sees its own traces, whatever it claims."""

from __future__ import annotations

import base64
import os
import urllib.error
import urllib.request

import pytest

from tests.kit.gateway import RunningGateway, eventually, running_gateway
from tests.kit.ledger import assert_books_balance
from tests.kit.modes import BACKENDS, backend_env
from tests.kit.spans import make_request, make_span

SEND = {"a": "send-for-a-0123", "b": "send-for-b-0123", "": "send-for-all-0123"}
ASK = {"a": "ask:for:a-0123", "b": "ask-for-b-0123", "": "ask-for-all-0123"}


def setting(tokens: dict[str, str]) -> str:
    return ",".join(f"{tenant}={token}" if tenant else token for tenant, token in tokens.items())


def bearer(token: str, tenant: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | ({"X-Scope-OrgID": tenant} if tenant else {})


@pytest.fixture(scope="module", params=BACKENDS)
def gateway(request, tmp_path_factory):
    env = {"GATEWAY_INGEST_TOKENS": setting(SEND), "GATEWAY_QUERY_TOKENS": setting(ASK)}
    with running_gateway(
        tmp_path_factory.mktemp("data"), backend_env(request.param) | env
    ) as gateway:
        gateway.wait_until_ready()
        yield gateway
        metrics = gateway.get("/metrics", bearer(ASK[""]))[1]
        assert_books_balance(metrics)
        assert gateway.stop() == 0
        for token in (*SEND.values(), *ASK.values()):
            assert token not in gateway.log
        assert "open to everybody" not in gateway.log


def send(gateway: RunningGateway, headers: dict[str, str]) -> tuple[int, str]:
    """The status of a new trace's export, and its id."""
    trace_id = os.urandom(16)
    body = make_request(make_span(trace_id=trace_id)).SerializeToString()
    fields = {"Content-Type": "application/x-protobuf"} | headers
    request = urllib.request.Request(f"{gateway.url}/v1/traces", body, fields)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, trace_id.hex()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, trace_id.hex()


def sees(gateway: RunningGateway, trace_id: str, headers: dict[str, str]) -> bool:
    status, _, _ = gateway.get(f"/api/traces/{trace_id}", headers)
    assert status in {200, 404}
    return status == 200


def test_each_tenant_sees_its_own_traces_and_no_others(gateway):
    of_a = send(gateway, bearer(SEND["a"]))[1]
    of_b = send(gateway, bearer(SEND["b"], tenant="a"))[1]  # claims to be the other
    for tenant, own, other in (("a", of_a, of_b), ("b", of_b, of_a)):
        token = ASK[tenant]
        eventually(lambda own=own, token=token: sees(gateway, own, bearer(token)))
        for claimed in ("", "a", "b", "a|b", "single-tenant"):
            assert sees(gateway, own, bearer(token, claimed))
            assert not sees(gateway, other, bearer(token, claimed))


def test_a_token_without_a_tenant_has_its_own_place_and_may_name_a_tenant(gateway):
    of_nobody = send(gateway, bearer(SEND[""]))[1]
    of_a = send(gateway, bearer(SEND[""], tenant="a"))[1]
    eventually(lambda: sees(gateway, of_nobody, bearer(ASK[""])))
    eventually(lambda: sees(gateway, of_a, bearer(ASK["a"])))
    assert sees(gateway, of_a, bearer(ASK[""], tenant="a"))
    assert not sees(gateway, of_a, bearer(ASK[""]))
    assert not sees(gateway, of_nobody, bearer(ASK["a"]))


def test_what_is_open_and_what_is_not(gateway):
    for path in ("/", "/live", "/ready"):
        assert gateway.get(path)[0] == 200, path
    for path in ("/metrics", "/gateway/status", "/api/echo", "/api/search"):
        assert gateway.get(path)[0] == 401, path
        assert gateway.get(path, bearer(SEND["a"]))[0] == 403, path
        assert gateway.get(path, bearer(ASK["a"]))[0] == 200, path
    assert gateway.get("/nothing")[0] == 404
    assert send(gateway, {})[0] == 401
    assert send(gateway, bearer(ASK["a"]))[0] == 403


def test_grafana_and_prometheus_show_the_token_as_a_password(gateway):
    credentials = base64.b64encode(f"grafana:{ASK['a']}".encode()).decode()
    for path in ("/api/echo", "/metrics"):
        assert gateway.get(path, {"Authorization": f"Basic {credentials}"})[0] == 200
