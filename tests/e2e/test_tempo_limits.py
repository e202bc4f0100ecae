"""The limits of a real Tempo, told to the operator: what it drops after its OK."""

from __future__ import annotations

import json
import os
import urllib.request

import pytest

from tests.kit.backends import find_tempo
from tests.kit.gateway import RunningGateway, eventually, running_gateway
from tests.kit.spans import attribute, make_request, make_span

pytestmark = pytest.mark.tempo

MIB = 2**20
MESSAGE_BYTES = 10 * MIB
"""What the gateway has Tempo take in a container of 512 MiB, and keep of one trace in a block."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    binary = find_tempo()
    if binary is None:
        pytest.skip("no Tempo binary: set TEMPO_BIN or put one at ./bin/tempo")
    env = {
        "TEMPO_MODE": "managed",
        "TEMPO_BIN": str(binary),
        "CONTAINER_MEMORY": str(512 * MIB),
    }
    with running_gateway(tmp_path_factory.mktemp("data"), env) as gateway:
        gateway.wait_until_ready()
        yield gateway


def send(gateway: RunningGateway, *spans) -> bytes:
    request = urllib.request.Request(
        gateway.url + "/v1/traces",
        make_request(*spans).SerializeToString(),
        {"Content-Type": "application/x-protobuf"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def test_spans_that_tempo_drops_after_its_ok_are_told(gateway):
    trace_id = os.urandom(16)
    for _ in range(2):
        large = [attribute("a", "x" * (MESSAGE_BYTES * 6 // 10))]
        send(gateway, make_span("large", trace_id=trace_id, attributes=large))
    metric = 'gateway_backend_discarded_spans_total{reason="trace_too_large"} 1.0'
    eventually(lambda: metric in gateway.get("/metrics")[1])
    backend = json.loads(gateway.get("/gateway/status")[1])["backend"]
    assert backend["discarded_spans"] == {"trace_too_large": 1}
    assert "max_bytes_per_trace" in backend["last_discard"]
    assert backend["memory_bytes"] > MIB
    assert "spans discarded by the backend" in gateway.log
