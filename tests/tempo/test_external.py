"""A backend that is somebody else's."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from gateway.access.outbound import proxy_for
from gateway.envelope import Fate, Outcome
from gateway.settings import Settings
from gateway.tempo.balance import BalancedExporter
from gateway.tempo.client import OtlpGrpcExporter, OtlpHttpExporter, no_headers
from gateway.tempo.external import (
    FAILING_AFTER_S,
    ExternalBackend,
    deliver_to,
    external_tempo,
    without_credentials,
)
from gateway.tempo.names import NamedExporter
from tests.kit.sink import running_sink
from tests.kit.spans import make_payload

DEADLINE_S = 20.0


def backend_of(**environ: str):
    return external_tempo(Settings.load({"TEMPO_OTLP_ENDPOINT": "http://127.0.0.1:1"} | environ))


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ("http://127.0.0.1:4317", OtlpGrpcExporter),
        ("http://127.0.0.1:4318/v1/traces", OtlpHttpExporter),
        ("http://tempo:4317", NamedExporter),
        ("http://tempo:4318/v1/traces", NamedExporter),
        ("http://127.0.0.1:4317,http://127.0.0.2:4317", BalancedExporter),
    ],
)
async def test_the_endpoint_decides_how_it_is_delivered_to(endpoint, kind):
    exporter = deliver_to(endpoint.split(","), no_headers)
    assert isinstance(exporter, kind)
    await exporter.close()


async def test_queries_of_no_tenant_look_where_its_deliveries_go():
    for headers, tenant in (("", ""), ("X-Scope-OrgID=shop,a=b", "shop")):
        backend = backend_of(TEMPO_OTLP_HEADERS=headers)
        assert backend.default_tenant == tenant
        await backend.stop(0)


async def test_a_proxy_looks_names_up_itself(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    proxy_for.cache_clear()
    try:
        exporter = deliver_to(["http://tempo:4318/v1/traces"], no_headers)
        assert isinstance(exporter, OtlpHttpExporter)
        await exporter.close()
    finally:
        proxy_for.cache_clear()


async def test_without_a_query_side_it_is_ready_and_lives_for_ever():
    changes = []
    backend = backend_of()
    backend.start(lambda: changes.append(backend.state))
    assert changes == ["ready"]
    assert (backend.base_url, backend.generation, backend.restarts) == (None, 0, 0)
    assert backend.reason == "TEMPO_QUERY_URL is not set"
    assert backend.alive_s() <= backend.alive_s()
    assert await backend.stop(1.0)


class QuerySide:
    """Tempo's HTTP API, as far as readiness goes."""

    def __init__(self) -> None:
        self.status = 200
        self.url = ""

    async def ready(self, _: web.Request) -> web.Response:
        return web.Response(status=self.status, text="not yet\n")


@pytest.fixture
async def query_side():
    side = QuerySide()
    app = web.Application()
    app.router.add_get("/ready", side.ready)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    side.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield side
    await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        (200, "ready", ""),
        (404, "ready", ""),
        (401, "ready", ""),
        (503, "away", "TEMPO_QUERY_URL says 503: not yet"),
    ],
)
async def test_it_is_as_ready_as_its_query_side_says(query_side, status, state, reason):
    query_side.status = status
    backend = backend_of(TEMPO_QUERY_URL=query_side.url)
    assert backend.state == "starting"
    changes = asyncio.Queue()
    backend.start(lambda: changes.put_nowait(backend.state))
    async with asyncio.timeout(DEADLINE_S):
        assert [await changes.get(), await changes.get()] == ["starting", state]
    assert backend.reason == reason
    await backend.stop(1.0)


async def test_a_query_side_that_is_down_is_away_with_the_setting_to_look_at():
    backend = backend_of(TEMPO_QUERY_URL="http://user:hunter2@127.0.0.1:9")
    changes = asyncio.Queue()
    backend.start(lambda: changes.put_nowait(backend.state))
    async with asyncio.timeout(DEADLINE_S):
        assert [await changes.get(), await changes.get()] == ["starting", "away"]
    assert backend.reason.startswith("TEMPO_QUERY_URL does not answer: ")
    assert "hunter2" not in backend.reason
    await backend.stop(1.0)


async def test_with_a_hold_time_the_loss_of_any_address_is_one():
    """Also where another one takes the delivery, so that nobody else notices."""
    async with running_sink() as sink:
        backend = backend_of(
            TEMPO_OTLP_ENDPOINT=f"http://127.0.0.1:9,http://{sink.address}",
            GATEWAY_HOLD_TIME="5s",
        )
        outcome = await backend.exporter.export("", make_payload(1), timeout_s=10)
        assert (outcome.fate, backend.generation) == (Fate.DELIVERED, 1)
        await backend.stop(1.0)


class Away:
    """A backend that takes nothing until told."""

    outcome = Outcome(Fate.RETRY, "UNAVAILABLE", "connection refused")

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        return self.outcome

    async def close(self) -> None:
        pass


async def test_deliveries_that_fail_for_long_show():
    now, away = 0.0, Away()
    backend = ExternalBackend(away, clock=lambda: now)

    async def deliver() -> str:
        await backend.exporter.export("", b"", timeout_s=1)
        return backend.state

    assert await deliver() == "ready"
    now += FAILING_AFTER_S + 1
    assert await deliver() == "failing"
    assert "no delivery for 11 s: UNAVAILABLE: connection refused" in backend.reason
    away.outcome = Outcome(Fate.DELIVERED)
    assert await deliver() == "ready"


@pytest.mark.parametrize(("hold", "certain"), [("0s", True), ("9s", False)])
async def test_stopping_makes_nothing_certain_that_it_holds(hold, certain):
    assert await backend_of(GATEWAY_HOLD_TIME=hold).stop(1.0) is certain


def test_what_is_logged_of_a_url_holds_no_password():
    assert without_credentials("https://u:hunter2@x:1/v1/traces") == "https://x:1/v1/traces"
    assert without_credentials("http://x:4317") == "http://x:4317"
