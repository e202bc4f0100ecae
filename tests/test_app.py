"""A started gateway from outside: ports, pages, logs, signals."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.kit.gateway import RunningGateway, eventually, is_gone, logfmt, running_gateway

EMBEDDED = {"TEMPO_MODE": "embedded"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running_gateway(tmp_path_factory.mktemp("data"), EMBEDDED) as gateway:
        gateway.wait_until_ready()
        yield gateway


def test_both_ports_are_in_the_log_and_can_be_grepped(gateway):
    listening = [
        logfmt(line) for line in gateway.lines if "logger=gateway.receivers.address" in line
    ]
    ports = {event["protocol"]: event["port"] for event in listening if event["msg"] == "listening"}
    assert ports == {"http": str(gateway.http_port), "grpc": str(gateway.grpc_port)}


def test_status_tells_mode_backend_queue_and_books(gateway):
    status, body, headers = gateway.get("/gateway/status")
    facts = json.loads(body)
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert facts["mode"] == "embedded"
    assert "development" in facts["note"]
    assert facts["backend"]["state"] == "ready"
    assert facts["books"] == {"received_less_told": 0, "kept_less_accounted": 0}


def test_what_the_backend_costs_is_told(gateway):
    def known():
        return json.loads(gateway.get("/gateway/status")[1])["backend"]["memory_bytes"]

    assert eventually(known) > 2**20
    metrics = gateway.get("/metrics")[1]
    assert re.search(r"^gateway_backend_memory_bytes [1-9]", metrics, re.MULTILINE)
    assert re.search(r"^gateway_backend_cpu_seconds_total ", metrics, re.MULTILINE)


def test_the_log_says_that_the_embedded_backend_is_for_development(gateway):
    assert "for development and tests" in gateway.log


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/live", 200),
        ("/ready", 200),
        ("/metrics", 200),
        ("/api/echo", 200),
        ("/api/status/buildinfo", 200),
        ("/api/search", 200),
        ("/api/traces/00000000000000000000000000000001", 404),
        ("/shutdown", 404),
        ("/flush", 404),
        ("/api/../flush", 404),
        ("/status/config", 404),
        ("/debug/pprof/heap", 404),
        ("/v1/metrics", 404),
        ("/v1/logs", 404),
        ("/v1/traces", 405),
        ("/nothing", 404),
    ],
)
def test_every_path_answers_as_published(gateway, path, status):
    assert gateway.get(path)[0] == status


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_metrics_are_one_exposition_that_promtool_accepts(gateway):
    text = gateway.get("/metrics")[1]
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30
    )
    assert "error" not in done.stderr, done.stderr
    assert "gateway_accepted_spans_total" in text
    assert "tempo_build_info" in text


@pytest.mark.parametrize("setting", ["PORT", "TCP_GRPC_PORT"])
def test_a_port_that_is_taken_ends_the_start_with_the_setting_to_change(tmp_path, setting):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        gateway = RunningGateway(tmp_path, EMBEDDED | {setting: port})
        try:
            assert gateway.process.wait(20) == 1
            line = gateway.wait_for_line("cannot listen")
            assert f"port {port}" in line
            assert f"set {setting}" in line
            assert "backend started" not in gateway.log
        finally:
            gateway.kill()


def test_a_second_gateway_on_the_same_directory_does_not_start(gateway):
    second = RunningGateway(Path(gateway.env["GATEWAY_DATA_DIR"]), EMBEDDED)
    try:
        assert second.process.wait(20) == 1
        assert str(gateway.process.pid) in second.wait_for_line("spool cannot be used")
    finally:
        second.kill()


def test_it_takes_spans_and_says_not_ready_while_the_backend_is_away(tmp_path):
    env = {"TEMPO_MODE": "external", "TEMPO_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    env |= {"TEMPO_QUERY_URL": "http://127.0.0.1:9"}
    with running_gateway(tmp_path, env) as gateway:
        assert gateway.get("/live")[0] == 200
        gateway.wait_for_line("msg=backend.*state=away")
        status, body, _ = gateway.get("/ready")
        assert (status, "TEMPO_QUERY_URL does not answer" in body) == (503, True)
        status, body, _ = gateway.get("/api/search")
        assert status == 503
        assert json.loads(body)["error"]
        text = gateway.get("/metrics")[1]
        assert "gateway_backend_up 0.0" in text


def test_sigterm_ends_it_with_code_0_and_the_phases_in_the_log(tmp_path):
    with running_gateway(tmp_path, EMBEDDED) as gateway:
        gateway.wait_until_ready()
        assert gateway.stop() == 0
        assert "answer_s" in gateway.wait_for_line("msg=stopping logger=gateway.app")
        assert logfmt(gateway.wait_for_line("msg=stopped"))["spans_left_in_spool"] == "0"


def test_sigterm_right_after_the_start_ends_it_with_code_0_too(tmp_path):
    with running_gateway(tmp_path, EMBEDDED) as gateway:
        assert gateway.stop() == 0


def test_a_second_signal_ends_it_at_once(tmp_path):
    """The first one would wait for a backend that is frozen."""
    with running_gateway(tmp_path, EMBEDDED) as gateway:
        gateway.wait_until_ready()
        pid = int(logfmt(gateway.wait_for_line("backend started"))["pid"])
        subprocess.run(["kill", "-STOP", str(pid)], check=True)
        gateway.signal(signal.SIGTERM)
        gateway.wait_for_line("msg=stopping logger=gateway.app")
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(5) == 130
        eventually(lambda: is_gone(pid))
