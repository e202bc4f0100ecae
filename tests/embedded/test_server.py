"""The process as a whole: its ports, its end, and what it keeps."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import quote

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.embedded.__main__ import main
from tests.kit.backends import BackendError, embedded_backend
from tests.kit.spans import attribute, make_request, make_span

DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    with embedded_backend(tmp_path_factory.mktemp("embedded")) as started:
        yield started


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def search(backend, query, **headers):
    reply = backend.get(f"/api/search?q={quote(query)}", headers=headers)
    assert reply.status == 200, reply.text
    return reply.json()["traces"]


def test_it_says_where_it_listens_and_listens_only_on_loopback(backend):
    lines = [line for line in backend.log.read_text().splitlines() if "msg=listening" in line]
    facts = [dict(pair.split("=", 1) for pair in line.split()) for line in lines]
    assert {(each["protocol"], each["address"], int(each["port"])) for each in facts} == {
        ("http", "127.0.0.1", backend.http_port),
        ("grpc", "127.0.0.1", backend.otlp_port),
    }
    for port in (backend.http_port, backend.otlp_port):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=5)


def test_log_lines_can_be_json(tmp_path):
    command = [sys.executable, "-m", "gateway.embedded", "--data-dir", str(tmp_path)]
    process = subprocess.Popen([*command, "--log-format", "json"], stderr=subprocess.PIPE)
    with process:
        lines = [json.loads(process.stderr.readline()) for _ in range(2)]
        process.terminate()
        rest = process.stderr.read().splitlines()
    assert [line["msg"] for line in lines] == ["listening", "listening"]
    assert {line["protocol"] for line in lines} == {"http", "grpc"}
    assert [json.loads(line)["msg"] for line in rest] == ["stopping"]


def test_an_acknowledged_span_survives_sigkill(tmp_path):
    spans = [make_span(f"n{index}") for index in range(50)]
    with embedded_backend(tmp_path) as backend:
        for span in spans:
            backend.push(make_request(span))
        backend.kill()
    with embedded_backend(tmp_path) as backend:
        for span in spans:
            assert backend.get(f"/api/traces/{span.trace_id.hex()}").status == 200


def test_sigterm_ends_it_cleanly(tmp_path):
    span = make_span()
    with embedded_backend(tmp_path) as backend:
        backend.push(make_request(span))
        assert backend.terminate() == 0
    with embedded_backend(tmp_path) as backend:
        assert backend.get(f"/api/traces/{span.trace_id.hex()}").status == 200


def test_a_signal_ends_a_query_that_is_under_way(tmp_path):
    text = "a" * 200_000
    spans = [make_span(attributes=[attribute("text", text)]) for _ in range(100)]
    with embedded_backend(tmp_path, "--query-timeout", "10m") as backend:
        backend.push(make_request(*spans))
        connection = http.client.HTTPConnection("127.0.0.1", backend.http_port, timeout=60)
        connection.request("GET", f"/api/search?q={quote('{ .text =~ `(a|b)*(a|c)*(a|d)*x` }')}")
        wait_until(lambda: 'queries_total{op="search"} 1.0' in backend.get("/metrics").text)
        assert backend.terminate() == 0
        connection.close()


def test_it_dies_with_its_parent(tmp_path):
    code = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    backend = [sys.executable, "-m", "gateway.embedded", "--data-dir", str(tmp_path)]
    parent = subprocess.Popen([sys.executable, "-c", code, *backend], stderr=subprocess.PIPE)
    with parent:
        lines = [parent.stderr.readline().decode() for _ in range(2)]
        ports = [int(re.search(r"port=(\d+)", line)[1]) for line in lines]
        parent.kill()
        parent.wait()

        def refused():
            try:
                socket.create_connection(("127.0.0.1", ports[0]), timeout=1).close()
            except OSError:
                return True
            return False

        wait_until(refused)


def not_started(data_dir, *arguments):
    """The text of the failure to start."""
    with pytest.raises(BackendError) as failed, embedded_backend(data_dir, *arguments):
        pass
    return str(failed.value)


@pytest.mark.parametrize("option", ["--otlp-port", "--http-port"])
def test_a_port_that_is_taken_ends_the_start(tmp_path, backend, option):
    port = str(backend.otlp_port if option == "--otlp-port" else backend.http_port)
    message = not_started(tmp_path, option, port)
    assert "exit status 1" in message
    assert 'msg="not started"' in message
    assert port in message


def test_a_damaged_file_ends_the_start(tmp_path):
    (tmp_path / "embedded.sqlite").write_bytes(b"damaged" * 10_000)
    message = not_started(tmp_path)
    assert "exit status 1" in message
    assert "delete it" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ("--retention", "two days"),
        ("--max-bytes", "much"),
        ("--otlp-port", "grpc"),
        ("--bogus",),
        ("--log-level", "loud"),
    ],
)
def test_wrong_usage_is_status_2(tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--data-dir", str(tmp_path), *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_tenants_are_apart_from_the_port_to_the_answer(backend):
    span = make_span("only for one")
    path = f"/api/traces/{span.trace_id.hex()}"
    backend.push(make_request(span), tenant="one")
    assert backend.get(path, headers={"X-Scope-OrgID": "one"}).status == 200
    assert backend.get(path, headers={"X-Scope-OrgID": "two"}).status == 404
    assert backend.get(path).status == 404
    assert len(search(backend, '{ name = "only for one" }', **{"X-Scope-OrgID": "one"})) == 1
    assert search(backend, '{ name = "only for one" }') == []
    tag = backend.get("/api/search/tag/name/values", headers={"X-Scope-OrgID": "one"})
    assert tag.json()["tagValues"] == ["only for one"]


@pytest.mark.parametrize("tenant", ["..", "a/b", "a|b", "x" * 151])
def test_what_tempo_takes_for_no_tenant_is_refused(backend, tenant):
    with pytest.raises(grpc.RpcError) as refused:
        backend.push(make_request(make_span()), tenant=tenant)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    reply = backend.get("/api/search", headers={"X-Scope-OrgID": tenant})
    assert reply.status == 400
    assert "tenant ID" in reply.text


def test_a_span_that_comes_again_is_there_once(backend):
    span = make_span("again")
    for _ in range(3):
        backend.push(make_request(span))
    (found,) = search(backend, '{ name = "again" }')
    assert found["spanSet"]["matched"] == 1
    batches = backend.get(f"/api/traces/{span.trace_id.hex()}").json()["batches"]
    assert [len(each["spans"]) for each in batches[0]["scopeSpans"]] == [1]


def test_messages_of_up_to_64_mib_are_taken(backend):
    span = make_span("huge", attributes=[attribute("pad", "x" * (63 * 2**20))])
    backend.push(make_request(span))
    assert len(search(backend, '{ name = "huge" }')) == 1
    too_large = make_span(attributes=[attribute("pad", "x" * (65 * 2**20))])
    with pytest.raises(grpc.RpcError) as refused:
        backend.push(make_request(too_large))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_exports_that_come_at_once_are_all_kept(backend):
    spans = [make_span("at once") for _ in range(200)]
    with grpc.insecure_channel(backend.otlp) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        calls = [export.future(make_request(span).SerializeToString()) for span in spans]
        assert {call.result(timeout=20) for call in calls} == {b""}
    found = search(backend, '{ name = "at once" }')
    assert len(found) == 20
    reply = backend.get(f"/api/search?limit=1000&q={quote('{ name = `at once` }')}")
    assert len(reply.json()["traces"]) == 200


def test_a_query_that_takes_too_long_is_422_and_stops_nobody(tmp_path):
    text = "a" * 200_000
    with embedded_backend(tmp_path, "--query-timeout", "300ms") as backend:
        backend.push(
            make_request(*(make_span(attributes=[attribute("text", text)]) for _ in range(100)))
        )
        replies = []
        slow = threading.Thread(
            target=lambda: replies.append(
                backend.get(f"/api/search?q={quote('{ .text =~ `(a|b)*(a|c)*(a|d)*x` }')}")
            )
        )
        slow.start()
        while not replies:
            assert backend.get("/ready").status == 200
            backend.push(make_request(make_span("meanwhile")))
        slow.join()
        assert replies[0].status == 422
        assert "shorter time range" in replies[0].text
        assert len(search(backend, '{ name = "meanwhile" }')) >= 1


def test_the_exposition_is_valid_and_counts(tmp_path):
    with embedded_backend(tmp_path) as backend:
        backend.push(make_request(make_span(), make_span()))
        backend.push(make_request(make_span()), tenant="one")
        search(backend, "{}")
        families = {
            family.name: family
            for family in text_string_to_metric_families(backend.get("/metrics").text)
        }
    received = families["tempo_distributor_spans_received"].samples
    assert {sample.labels["tenant"]: sample.value for sample in received} == {
        "single-tenant": 2,
        "one": 1,
    }
    queries = families["tempo_query_frontend_queries"].samples
    assert {sample.labels["op"]: sample.value for sample in queries} == {"search": 1, "traces": 0}
    (build,) = families["tempo_build_info"].samples
    assert build.labels["branch"] == "embedded"
    (size,) = families["tempo_embedded_store_bytes"].samples
    assert size.value > 0


@pytest.mark.parametrize(
    "path", ["/api/search?q=%7B.a%3D%22%ff%ed%a0%80%22%7D", "/api/search?tags=%ff"]
)
def test_a_query_that_is_not_utf_8_is_answered(backend, path):
    assert backend.get(path).status in {200, 400}


def test_any_method_reads_as_with_tempo(backend):
    connection = http.client.HTTPConnection("127.0.0.1", backend.http_port, timeout=20)
    for method in ("POST", "HEAD"):
        connection.request(method, "/api/search")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    connection.close()
