"""The limits of a real Tempo: met before they are reached where the sender can be told, and told to
the operator where Tempo drops spans after its OK.
"""

from __future__ import annotations

import json
import os
import urllib.request

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

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


def send(gateway: RunningGateway, *spans) -> ExportTraceServiceResponse:
    request = urllib.request.Request(
        gateway.url + "/v1/traces",
        make_request(*spans).SerializeToString(),
        {"Content-Type": "application/x-protobuf"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return ExportTraceServiceResponse.FromString(answer.read())


def test_the_largest_span_that_is_taken_is_kept_and_a_larger_one_is_refused(gateway):
    trace_id = os.urandom(16)
    span = make_span("large", trace_id=trace_id, attributes=[attribute("a", "")])
    room = MESSAGE_BYTES - len(make_request(span).SerializeToString())
    value = span.attributes[0].value
    value.string_value = "x" * room  # and its lengths take some bytes more
    too_large = len(make_request(span).SerializeToString()) - MESSAGE_BYTES
    answer = send(gateway, span)
    assert answer.partial_success.rejected_spans == 1
    assert "a span may have 10 MiB" in answer.partial_success.error_message
    value.string_value = "x" * (room - too_large)
    assert len(make_request(span).SerializeToString()) == MESSAGE_BYTES
    assert not send(gateway, span).HasField("partial_success")
    found = eventually(lambda: found_trace(gateway, trace_id))
    assert "x" * (room - too_large) in found
    assert "spans discarded by the backend" not in gateway.log
    assert "spans dropped" not in gateway.log


def found_trace(gateway: RunningGateway, trace_id: bytes) -> str | None:
    status, body, _ = gateway.get(f"/api/traces/{trace_id.hex()}")
    return body if status == 200 else None


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
