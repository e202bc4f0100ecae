"""A started gateway with a certificate and tokens, and the SDK as it is configured for that."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.authority import AUTHORITY, CERTIFICATE, KEY, ROOT
from tests.kit.gateway import RunningGateway, eventually, running_gateway

CLIENT = str(Path(__file__).parent / "clients" / "python_sdk.py")
TOKEN = "a-token-for-spans-0123"


def start_env(certificate: bytes, key: bytes) -> dict[str, str]:
    """The key in the form that fits into one line."""
    return {
        "TEMPO_MODE": "embedded",
        "GATEWAY_INGEST_TOKENS": f"shop={TOKEN}",
        "GATEWAY_TLS_CERT": certificate.decode(),
        "GATEWAY_TLS_KEY": base64.b64encode(key).decode(),
    }


@pytest.fixture(scope="module", params=["own", "grpcio"])
def gateway(request, tmp_path_factory):
    env = start_env(CERTIFICATE, KEY) | {"GATEWAY_GRPC_ENGINE": request.param}
    with running_gateway(tmp_path_factory.mktemp("data"), env) as gateway:
        gateway.wait_until_ready()
        yield gateway
        assert gateway.stop() == 0
        assert TOKEN not in gateway.log
        assert "PRIVATE KEY" not in gateway.log


def run_sdk(gateway: RunningGateway, transport: str, endpoint: str, root: Path, **more: str) -> str:
    """The id of the trace that the SDK has sent, in a process of its own."""
    # The exporter's HTTP library prefers these to what the exporter is told.
    foreign = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    env = {name: value for name, value in os.environ.items() if name not in foreign} | {
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(root),
    }
    done = subprocess.run(
        [sys.executable, CLIENT, transport, endpoint, "shop"],
        env=env | more,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode == 0) is (not more), done.stderr
    return done.stdout.strip() if not more else done.stderr


def test_the_sdk_sends_with_https_and_a_token(gateway, tmp_path):
    root = tmp_path / "root.pem"
    root.write_bytes(ROOT)
    ways = {"grpc": f"https://localhost:{gateway.grpc_port}"}
    if gateway.env["GATEWAY_GRPC_ENGINE"] == "own":
        ways["http-protobuf"] = f"https://localhost:{gateway.grpc_port}/v1/traces"
    for transport, endpoint in ways.items():
        trace_id = run_sdk(gateway, transport, endpoint, root)
        path, tenant = f"/api/traces/{trace_id}", {"X-Scope-OrgID": "shop"}
        eventually(lambda path=path, tenant=tenant: gateway.get(path, tenant)[0] == 200)
        assert gateway.get(path)[0] == 404  # it is the tenant's


def test_the_sdk_shows_what_is_wrong_with_its_token(gateway, tmp_path):
    root = tmp_path / "root.pem"
    root.write_bytes(ROOT)
    said = run_sdk(
        gateway,
        "grpc",
        f"https://localhost:{gateway.grpc_port}",
        root,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20another-token",
    )
    assert "UNAUTHENTICATED" in said


def test_the_log_says_until_when_the_certificate_is_good(gateway):
    assert 'client_certificates="not needed" expires=' in gateway.wait_for_line("msg=tls ")


def test_a_key_of_another_certificate_ends_the_start_with_code_2(tmp_path):
    other = AUTHORITY.issue_cert("localhost").private_key_pem.bytes()
    gateway = RunningGateway(tmp_path, start_env(CERTIFICATE, other))
    try:
        assert gateway.process.wait(20) == 2
        assert "GATEWAY_TLS_KEY is not the key" in gateway.wait_for_line("settings:")
        assert not list(tmp_path.iterdir())
    finally:
        gateway.kill()
