"""Real clients send to a started gateway; each trace is read back by id and by search."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from tests.kit.gateway import RunningGateway, eventually, running_gateway
from tests.kit.ledger import assert_books_balance
from tests.kit.modes import BACKENDS, backend_env

HERE = Path(__file__).parent
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None or not (HERE / "node" / "node_modules").is_dir(),
    reason="Node or its packages are not installed (make test installs them where npm is found)",
)


@pytest.fixture(scope="module", params=[*BACKENDS, "grpcio"])
def gateway(request, tmp_path_factory):
    """One gateway a backend, and one with the libraries' servers in place of our own; the books
    must balance when all tests are through.
    """
    if request.param == "grpcio":
        env = backend_env("embedded") | {"GATEWAY_GRPC_ENGINE": "grpcio"}
    else:
        env = backend_env(request.param)
    with running_gateway(tmp_path_factory.mktemp("data"), env) as gateway:
        gateway.wait_until_ready()
        yield gateway
        eventually(lambda: "gateway_pending_spans 0.0" in gateway.get("/metrics")[1])
        assert_books_balance(gateway.get("/metrics")[1])
        assert gateway.stop() == 0


def run(*command: str) -> str:
    """A client to its end; its output. A failed export is a failed client."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def read_back(gateway: RunningGateway, trace_id: str) -> list[dict]:
    """The spans of a trace by its id, as soon as the backend has it."""

    def find():
        status, body, _ = gateway.get(f"/api/traces/{trace_id}")
        return body if status == 200 else None

    trace = json.loads(eventually(find))
    return [
        span
        for batch in trace["batches"]
        for scope in batch["scopeSpans"]
        for span in scope["spans"]
    ]


def search(gateway: RunningGateway, **parameters: str) -> set[str]:
    """Ids of the traces that a search finds, padded to full length."""
    status, body, _ = gateway.get("/api/search?" + urllib.parse.urlencode(parameters))
    assert status == 200, body
    return {trace["traceID"].zfill(32) for trace in json.loads(body)["traces"]}


def assert_found(gateway: RunningGateway, trace_id: str, service: str) -> None:
    spans = read_back(gateway, trace_id)
    assert sorted(span["name"] for span in spans) == ["charge", "checkout"]
    query = f'{{ resource.service.name = "{service}" && name = "checkout" }}'
    eventually(lambda: trace_id in search(gateway, q=query))
    eventually(lambda: trace_id in search(gateway, tags=f"service.name={service}"))


@pytest.mark.parametrize("compression", ["", "gzip"])
@pytest.mark.parametrize("transport", ["grpc", "http-protobuf"])
def test_python_sdk(gateway, transport, compression):
    """A trace of the Python SDK is found by id and by search."""
    endpoint = gateway.grpc_address if transport == "grpc" else f"{gateway.url}/v1/traces"
    service = f"python-{transport}-{compression or 'plain'}"
    script = str(HERE / "clients" / "python_sdk.py")
    trace_id = run(sys.executable, script, transport, endpoint, service, compression)
    assert_found(gateway, trace_id, service)


@needs_node
@pytest.mark.parametrize("transport", ["http-json", "http-protobuf", "grpc"])
def test_node_sdk(gateway, transport):
    """A trace of the Node SDK is found by id and by search."""
    url = f"http://{gateway.grpc_address}" if transport == "grpc" else f"{gateway.url}/v1/traces"
    service = f"node-{transport}"
    trace_id = run(NODE, str(HERE / "node" / "send.mjs"), transport, url, service)
    assert_found(gateway, trace_id, service)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_with_the_json_of_the_specification(gateway):
    """curl posts JSON in the shape of the OTLP examples and the trace is found."""
    trace_id, now = os.urandom(16).hex(), time.time_ns()
    body = json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": [{"key": "service.name", "value": {"stringValue": "curl"}}]
                    },
                    "scopeSpans": [
                        {
                            "scope": {"name": "my.library", "version": "1.0.0"},
                            "spans": [
                                {
                                    "traceId": trace_id.upper(),
                                    "spanId": "EEE19B7EC3C1B174",
                                    "parentSpanId": parent,
                                    "name": name,
                                    "startTimeUnixNano": str(now - 10**9),
                                    "endTimeUnixNano": str(now),
                                    "kind": 2,
                                    "attributes": [{"key": "n", "value": {"intValue": "7"}}],
                                }
                                for name, parent in [
                                    ("checkout", ""),
                                    ("charge", "EEE19B7EC3C1B173"),
                                ]
                            ],
                        }
                    ],
                }
            ]
        }
    )
    answer = run(
        "curl", "-sS", "--fail-with-body", "-X", "POST", f"{gateway.url}/v1/traces",
        "-H", "Content-Type: application/json", "-d", body,
    )  # fmt: skip
    assert json.loads(answer) == {}
    read_back(gateway, trace_id)
    eventually(lambda: trace_id in search(gateway, tags="service.name=curl"))


@pytest.mark.parametrize("transport", ["grpc", "http-protobuf"])
def test_each_port_speaks_the_protocol_of_the_other(gateway, transport):
    """For platforms that give only one port."""
    if gateway.env.get("GATEWAY_GRPC_ENGINE") == "grpcio":
        pytest.skip("the libraries' servers speak one protocol each")
    other = {
        "grpc": f"127.0.0.1:{gateway.http_port}",
        "http-protobuf": f"http://{gateway.grpc_address}/v1/traces",
    }[transport]
    service = f"crossed-{transport}"
    script = str(HERE / "clients" / "python_sdk.py")
    trace_id = run(sys.executable, script, transport, other, service)
    assert_found(gateway, trace_id, service)
