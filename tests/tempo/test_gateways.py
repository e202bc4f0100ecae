"""Where a relay delivers."""

from __future__ import annotations

import pytest

from gateway.settings import Settings, SettingsError
from gateway.tempo.gateways import relay_backend, relay_target

PUBLIC = {"APP": "shop", "REGION_NAME": "osc-fr1"}
PRIVATE = {"SCALINGO_APPLICATION_ID": "ap-1", "SCALINGO_PRIVATE_NETWORK_ID": "pn-2"}


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        (PUBLIC, "https://shop.osc-fr1.scalingo.io/v1/traces"),
        (PUBLIC | PRIVATE, "http://web.ap-1.pn-2.private-network.internal:4317"),
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


async def test_an_endpoint_of_ones_own_wins_and_may_be_a_tempo():
    own = {"TEMPO_OTLP_ENDPOINT": "http://127.0.0.1:1", "GATEWAY_HOLD_TIME": "60s"}
    backend = relay_backend(Settings.load(PUBLIC | PRIVATE | own))
    assert (backend.mode, backend.hold_s) == ("relay", 60.0)
    await backend.stop(1.0)


def test_without_any_of_them_it_is_said_what_to_set():
    with pytest.raises(SettingsError, match="TEMPO_OTLP_ENDPOINT"):
        relay_backend(Settings.load({}))
