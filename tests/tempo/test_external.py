"""A backend that is somebody else's."""

from __future__ import annotations

import pytest

from gateway.settings import Settings
from gateway.tempo.balance import BalancedExporter
from gateway.tempo.client import OtlpGrpcExporter, OtlpHttpExporter
from gateway.tempo.external import external_tempo, without_credentials


def backend_of(**environ: str):
    return external_tempo(Settings.load({"TEMPO_OTLP_ENDPOINT": "http://127.0.0.1:1"} | environ))


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ("http://127.0.0.1:4317", OtlpGrpcExporter),
        ("http://127.0.0.1:4318/v1/traces", OtlpHttpExporter),
        ("http://127.0.0.1:4317,http://127.0.0.2:4317", BalancedExporter),
    ],
)
async def test_it_is_ready_and_lives_for_ever(endpoint, kind):
    changes = []
    backend = backend_of(TEMPO_OTLP_ENDPOINT=endpoint, TEMPO_QUERY_URL="http://x:3200/")
    backend.start(lambda: changes.append(backend.state))
    assert changes == ["ready"]
    assert isinstance(backend.exporter, kind)
    assert (backend.base_url, backend.generation, backend.restarts) == ("http://x:3200", 0, 0)
    assert backend.alive_s() <= backend.alive_s()
    assert await backend.stop(1.0)


@pytest.mark.parametrize(("hold", "certain"), [("0s", True), ("9s", False)])
async def test_stopping_makes_nothing_certain_that_it_holds(hold, certain):
    assert await backend_of(GATEWAY_HOLD_TIME=hold).stop(1.0) is certain


def test_what_is_logged_of_a_url_holds_no_password():
    assert without_credentials("https://u:hunter2@x:1/v1/traces") == "https://x:1/v1/traces"
    assert without_credentials("http://x:4317") == "http://x:4317"
