"""Where a relay delivers."""

from __future__ import annotations

import pytest
from aiohttp import web

from gateway.access.handovers import HEADER, id_of
from gateway.envelope import Fate
from gateway.settings import Settings, SettingsError
from gateway.tempo.gateways import (
    HandoverExporter,
    handover_exporter,
    own_headers,
    relay_backend,
    relay_target,
)
from tests.kit.site import running_site
from tests.kit.spans import make_payload

PUBLIC = {"APP": "shop", "REGION_NAME": "osc-fr1"}
PRIVATE = {"SCALINGO_APPLICATION_ID": "ap-1", "SCALINGO_PRIVATE_NETWORK_ID": "pn-2"}

TLS = {"GATEWAY_TLS_CERT": "certificate.pem", "GATEWAY_TLS_KEY": "key.pem"}


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        (PUBLIC, "https://shop.osc-fr1.scalingo.io/v1/traces"),
        (PUBLIC | PRIVATE, "http://web.ap-1.pn-2.private-network.internal:4317"),
        (PUBLIC | PRIVATE | TLS, "https://shop.osc-fr1.scalingo.io/v1/traces"),
        (
            PRIVATE | {"TCP_GRPC_PORT": "5000", "PORT": "8000"},
            "http://web.ap-1.pn-2.private-network.internal:5000",
        ),
    ],
)
def test_the_private_network_is_better_than_the_public_url(environ, target):
    assert relay_target(Settings.load(environ)) == target


async def test_a_derived_target_is_a_gateway_whose_ok_is_certain():
    backend = relay_backend(Settings.load(PUBLIC | {"GATEWAY_HOLD_TIME": "60s"}))
    assert (backend.mode, backend.hold_s, backend.base_url) == ("relay", 0.0, None)
    assert await backend.stop(1.0)


def test_the_apps_own_gateway_is_shown_the_token_of_the_tenant():
    tokens = {"GATEWAY_INGEST_TOKENS": "of-nobody-0123,a=of-tenant-a-0123"}
    settings = Settings.load(tokens | {"TEMPO_OTLP_HEADERS": "x-a=1"})
    assert own_headers(settings, "a") == (
        ("x-a", "1"),
        ("authorization", "Bearer of-tenant-a-0123"),
    )
    assert own_headers(settings, "b")[1:] == (("authorization", "Bearer of-nobody-0123"),)
    assert own_headers(Settings.load({}), "a") == ()
    settings = Settings.load(tokens | {"TEMPO_OTLP_HEADERS": "Authorization=Bearer other-0123"})
    assert own_headers(settings, "a") == (("authorization", "Bearer other-0123"),)


async def test_an_endpoint_of_ones_own_wins_and_may_be_a_tempo():
    own = {"TEMPO_OTLP_ENDPOINT": "http://127.0.0.1:1", "GATEWAY_HOLD_TIME": "60s"}
    backend = relay_backend(Settings.load(PUBLIC | PRIVATE | own))
    assert (backend.mode, backend.hold_s) == ("relay", 60.0)
    await backend.stop(1.0)


@pytest.mark.parametrize("environ", [{}, PRIVATE | TLS])
def test_without_any_of_them_it_is_said_what_to_set(environ):
    with pytest.raises(SettingsError, match="TEMPO_OTLP_ENDPOINT"):
        relay_backend(Settings.load(environ))


PAYLOAD = make_payload(3)
ON_THE_PLATFORM = PUBLIC | {"CONTAINER": "web-1"}


@pytest.mark.parametrize(
    ("environ", "hands_over"),
    [
        ({}, False),
        (PUBLIC, False),
        (ON_THE_PLATFORM, True),
        (ON_THE_PLATFORM | {"GATEWAY_HANDOVER_URL": "off"}, False),
        ({"GATEWAY_HANDOVER_URL": "http://127.0.0.1:1"}, True),
    ],
)
async def test_it_hands_over_where_it_is_told_to_or_where_the_disk_goes_with_the_container(
    environ, hands_over
):
    exporter = handover_exporter(Settings.load(environ))
    assert (exporter is not None) is hands_over
    if exporter is not None:
        await exporter.close()


@pytest.mark.parametrize("path", ["", "/v1/traces"])
async def test_a_handover_is_ordinary_otlp_with_a_mark(path):
    async with running_site() as site:
        exporter = HandoverExporter(site.url.removesuffix("/v1/traces") + path)
        outcome = await exporter.export("shop", PAYLOAD, timeout_s=10)
        await exporter.close()
    assert outcome.fate is Fate.DELIVERED
    ((path, headers, body),) = site.requests
    assert (path, body) == ("/v1/traces", PAYLOAD)
    assert headers["x-scope-orgid"] == "shop"
    assert headers[HEADER] == id_of(PAYLOAD)


async def test_a_handover_shows_the_token_of_the_tenant():
    tokens = {"GATEWAY_INGEST_TOKENS": "of-nobody-0123,shop=of-shop-0123"}
    async with running_site() as site:
        own = {"GATEWAY_HANDOVER_URL": site.url.removesuffix("/v1/traces")}
        exporter = handover_exporter(Settings.load(tokens | own))
        for tenant in ("shop", ""):
            await exporter.export(tenant, PAYLOAD, timeout_s=10)
        await exporter.close()
    shown = [headers["authorization"] for _, headers, _ in site.requests]
    assert shown == ["Bearer of-shop-0123", "Bearer of-nobody-0123"]


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
async def test_a_handover_gives_nothing_up_whoever_answers(status):
    async with running_site() as site:
        site.answer = lambda: web.Response(status=status)
        exporter = HandoverExporter(site.url)
        outcome = await exporter.export("", PAYLOAD, timeout_s=10)
        await exporter.close()
    assert outcome.fate is Fate.RETRY
