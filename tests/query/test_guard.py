from __future__ import annotations

import base64
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from gateway.access.tokens import Gates
from gateway.credentials import Token
from gateway.query.guard import Guard, granted_tenant
from gateway.telemetry.metrics import Metrics
from tests.query.scripted import HOST

ASK, ASK_A, SEND = "asking-0123", "asking-for-a-0123", "sending-0123"
GATES = Gates.of(ingest=[Token(SEND)], query=[Token(ASK), Token(ASK_A, "a")])
BASIC = "Basic " + base64.b64encode(f"grafana:{ASK_A}".encode()).decode()


async def who(request: web.Request) -> web.Response:
    return web.Response(text=f"tenant {granted_tenant(request)!r}")


@asynccontextmanager
async def guarded(gate=GATES.query):
    metrics = Metrics()
    app = web.Application(middlewares=[Guard(gate, metrics).middleware])
    for path in ("/", "/live", "/ready", "/metrics", "/gateway/status", "/api/{rest:.*}", "/new"):
        app.router.add_route("*", path, who)
    app.router.add_post("/v1/traces", who)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    try:
        async with aiohttp.ClientSession(f"http://{HOST}:{runner.addresses[0][1]}") as session:
            yield session, metrics
    finally:
        await runner.cleanup()


async def ask(session, path, *authorization, method="GET"):
    headers = [("Authorization", value) for value in authorization]
    async with session.request(method, path, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


@pytest.mark.parametrize("path", ["/", "/live", "/ready", "/nothing"])
async def test_what_tells_nothing_of_traces_is_open(path):
    async with guarded() as (session, metrics):
        status, _, _ = await ask(session, path)
        assert status == (404 if path == "/nothing" else 200)
        assert metrics.refused_requests.total() == 0


async def test_the_receiver_has_a_gate_of_its_own():
    async with guarded() as (session, _):
        assert (await ask(session, "/v1/traces", method="POST"))[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/gateway/status", "/api/search", "/api", "/new"])
async def test_everything_else_needs_a_token(path):
    async with guarded() as (session, metrics):
        if path != "/api":  # is not served
            status, text, fields = await ask(session, path)
            assert status == 401
            assert "there is none" in text
            assert fields["WWW-Authenticate"].startswith('Bearer realm="otlp-gateway", Basic')
            assert metrics.refused_requests.series("unauthenticated").value == 1
            assert (await ask(session, path, f"Bearer {ASK}"))[:2] == (200, "tenant ''")
            assert (await ask(session, path, f"Bearer {ASK_A}"))[:2] == (200, "tenant 'a'")
            assert (await ask(session, path, BASIC))[:2] == (200, "tenant 'a'")
        else:
            assert (await ask(session, path))[0] == 404


async def test_a_token_for_spans_is_forbidden():
    async with guarded() as (session, metrics):
        status, text, fields = await ask(session, "/api/search", f"Bearer {SEND}")
        assert status == 403
        assert "GATEWAY_QUERY_TOKENS" in text
        assert "WWW-Authenticate" not in fields
        assert metrics.refused_requests.series("forbidden").value == 1


@pytest.mark.parametrize(
    "authorization",
    [("Bearer wrong-0123",), (f"Bearer {ASK}", f"Bearer {ASK}"), (f"Bearer {ASK}x",), ("ä",)],
)
async def test_what_is_not_exactly_one_known_token_is_refused(authorization):
    async with guarded() as (session, _):
        assert (await ask(session, "/metrics", *authorization))[0] == 401


async def test_a_token_in_the_query_string_is_none():
    async with guarded() as (session, _):
        assert (await ask(session, f"/metrics?access_token={ASK}&token={ASK}"))[0] == 401


@pytest.mark.parametrize("path", ["/%61pi/search", "//metrics", "/./metrics", "/metrics/"])
async def test_no_other_spelling_of_a_path_leads_around_the_guard(path):
    async with guarded() as (session, _):
        from yarl import URL

        url = URL(str(session._base_url).rstrip("/") + path, encoded=True)
        assert (await ask(session, url))[0] in {401, 404}


async def test_what_browsers_ask_beforehand_comes_before_the_token():
    async with guarded() as (session, _):
        assert (await ask(session, "/api/search", method="OPTIONS"))[0] == 200


async def test_an_open_gate_lets_everybody_through():
    async with guarded(Gates.of(ingest=[Token(SEND)]).query) as (session, _):
        assert (await ask(session, "/metrics"))[0] == 200
        assert (await ask(session, "/api/search", "nonsense"))[:2] == (200, "tenant ''")
