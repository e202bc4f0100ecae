"""More than one gateway, and Tempo in parts: what docs/scale.md says comes true on loopback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import yaml

from gateway.receivers.headers import EXPORT_METHOD
from tests.kit.backends import HOST, embedded_backend, free_ports, tempo_backend, tempo_version
from tests.kit.cluster import SCALE, Cluster, tempo_cluster
from tests.kit.gateway import RunningGateway, eventually, running_gateway
from tests.kit.ledger import assert_books_balance
from tests.kit.modes import tempo_or_skip
from tests.kit.spans import make_payload, make_request, make_span

needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is not installed"
)


def send(gateway: RunningGateway) -> str:
    """One span by gRPC; the id of its trace."""
    span = make_span()
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        channel.unary_unary(EXPORT_METHOD)(make_request(span).SerializeToString(), timeout=20)
    return span.trace_id.hex()


def delivered(gateway: RunningGateway) -> int:
    return assert_books_balance(gateway.get("/metrics")[1])["delivered"]


def assert_found_at(gateway: RunningGateway, traces: list[str]) -> None:
    for trace in traces:
        eventually(lambda trace=trace: gateway.get(f"/api/traces/{trace}")[0] == 200)


@pytest.fixture(params=["embedded", pytest.param("tempo", marks=pytest.mark.tempo)])
def backend(request, tmp_path):
    """One that no gateway has started."""
    if request.param == "embedded":
        with embedded_backend(tmp_path / "backend") as backend:
            yield backend
    else:
        with tempo_backend(tempo_or_skip(), tmp_path / "backend") as backend:
            yield backend


def test_two_gateways_before_one_backend_are_one(tmp_path, backend):
    """Clients send to both; everything is found at either, also when one of them is gone."""
    env = {"TEMPO_OTLP_ENDPOINT": f"http://{backend.otlp}", "TEMPO_QUERY_URL": backend.url}
    with (
        running_gateway(tmp_path / "a", env) as one,
        running_gateway(tmp_path / "b", env) as other,
    ):
        traces = [send(gateway) for gateway in (one, other) for _ in range(5)]
        assert_found_at(one, traces)
        assert_found_at(other, traces)
        assert one.stop() == 0
        traces.append(send(other))
        assert_found_at(other, traces)


@contextmanager
def two_gateways_before(cluster: Cluster, directory: Path) -> Iterator[list[RunningGateway]]:
    env = {"TEMPO_OTLP_ENDPOINT": cluster.otlp_endpoints, "TEMPO_QUERY_URL": cluster.query_url}
    with (
        running_gateway(directory / "a", env) as one,
        running_gateway(directory / "b", env) as other,
    ):
        yield [one, other]
        assert one.stop() == 0
        assert other.stop() == 0


def assert_killing_loses_nothing(cluster: Cluster, gateways: list[RunningGateway], *names: str):
    """Spans sent before these parts get SIGKILL and after it are found at each gateway."""

    def send_to_each() -> list[str]:
        return [send(gateway) for gateway in gateways for _ in range(10)]

    def all_delivered(traces: list[str]) -> bool:
        return sum(map(delivered, gateways)) == len(traces)

    traces = send_to_each()
    eventually(lambda: all_delivered(traces))
    for name in names:
        cluster.parts[name].kill()
    traces += send_to_each()
    eventually(lambda: all_delivered(traces), timeout_s=60)
    for gateway in gateways:
        assert_found_at(gateway, traces)


@pytest.mark.tempo
def test_a_tempo_2_in_parts_loses_a_distributor_and_an_ingester_and_nothing_else(tmp_path):
    """With two distributors, and three ingesters that each have every span."""
    counts = {"ingester": 3, "distributor": 2, "query-frontend": 1, "querier": 1}
    with (
        tempo_cluster(binary_of((2, 10)), "tempo-2.10.yaml", tmp_path, counts) as cluster,
        two_gateways_before(cluster, tmp_path) as gateways,
    ):
        assert_killing_loses_nothing(cluster, gateways, "distributor-0", "ingester-0")


@pytest.mark.tempo
@pytest.mark.skipif("KAFKA" not in os.environ, reason="KAFKA names no Kafka-compatible queue")
def test_a_tempo_3_in_parts_loses_a_distributor_and_nothing_else(tmp_path):
    """The queue is at KAFKA, with an empty topic TOPIC (tempo-traces) of one partition."""
    # Without backend-scheduler and -worker, which compact, and take a minute to get ready.
    counts = {
        "live-store": 1, "block-builder": 1, "distributor": 2, "query-frontend": 1, "querier": 1,
    }  # fmt: skip
    queue = {name: os.environ[name] for name in ("KAFKA", "TOPIC") if name in os.environ}
    with (
        tempo_cluster(binary_of((3, 0)), "tempo-3.yaml", tmp_path, counts, **queue) as cluster,
        two_gateways_before(cluster, tmp_path) as gateways,
    ):
        assert_killing_loses_nothing(cluster, gateways, "distributor-0")


def binary_of(version: tuple[int, int]) -> Path:
    """A Tempo of this line, or the test is skipped."""
    binary = tempo_or_skip()
    if tempo_version(binary)[:2] != version:
        pytest.skip("the file is for another version of Tempo")
    return binary


TARGETS = {
    "tempo-2.10": ["distributor", "ingester", "querier", "query-frontend", "compactor"],
    "tempo-3": [
        "distributor", "live-store", "block-builder", "querier", "query-frontend",
        "backend-scheduler", "backend-worker",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_the_files_name_each_target_that_they_are_for(name):
    text = (SCALE / f"{name}.yaml").read_text()
    head = text.partition("\n\n")[0]
    assert all(target in head for target in TARGETS[name])
    filled = re.sub(r"\$\{\w+(?::-([^}]*))?\}", lambda match: match[1] or "given", text)
    assert yaml.safe_load(filled)["storage"]["trace"]["backend"] == "s3"
    used = set(re.findall(r"\$\{(\w+)\}", text)) - {"ADDRESS"}
    assert all(name in head or name.startswith("S3_") for name in used), "told of in the head"


@pytest.mark.tempo
@pytest.mark.parametrize("name", TARGETS)
def test_tempo_takes_the_configuration_for_each_target(tmp_path, name):
    """It is parsed strictly, each target's own checks included; nothing is started."""
    binary = binary_of((2, 10) if name == "tempo-2.10" else (3, 0))
    for target in TARGETS[name]:
        done = verify(binary, SCALE / f"{name}.yaml", target, tmp_path)
        assert "failed parsing config" not in done.stderr, done.stderr
        assert done.returncode == 0, f"{target}: {done.stdout}{done.stderr}"


def verify(
    binary: Path, config: Path, target: str, directory: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            binary, f"-config.file={config}", "-config.expand-env=true", "-config.verify=true",
            f"-target={target}",
        ],
        env={
            "PATH": os.environ["PATH"],
            "INSTANCE": f"{target}-0",
            "MEMBERS": "one:7946,two:7946",
            "FRONTEND": "query-frontend:9095",
            "SCHEDULER": "backend-scheduler:9095",
            "KAFKA": "kafka:9092",
            "ZONE": "zone-a",
            "DATA_DIR": str(directory),
            "S3_BUCKET": "traces",
            "S3_ENDPOINT": "s3.example.com",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip


@needs_haproxy
def test_haproxy_takes_its_configuration():
    done = subprocess.run(
        ["haproxy", "-c", "-f", SCALE / "haproxy.cfg"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_haproxy
def test_behind_haproxy_a_gateway_can_stop_while_spans_come(tmp_path):
    """Each request is taken, or told to come again; what was taken is found at the other one."""
    with embedded_backend(tmp_path / "backend") as backend:
        env = {"TEMPO_OTLP_ENDPOINT": f"http://{backend.otlp}", "TEMPO_QUERY_URL": backend.url}
        with (
            running_gateway(tmp_path / "a", env) as one,
            running_gateway(tmp_path / "b", env) as other,
            haproxy_before([one, other], tmp_path) as url,
        ):
            eventually(lambda: post(url, make_payload())[0] == 200)
            taken, told = [], []
            for number in range(150):
                if number == 50:
                    one.signal(signal.SIGTERM)
                span = make_span()
                status, retry_after = post(url, make_request(span).SerializeToString())
                if status == 200:
                    taken.append(span.trace_id.hex())
                else:
                    told.append((status, retry_after))
            assert len(taken) > 100
            assert all(status == 503 and retry_after for status, retry_after in told), told
            assert one.process.wait(timeout=30) == 0
            assert_found_at(other, taken)


@contextmanager
def haproxy_before(gateways: list[RunningGateway], directory: Path) -> Iterator[str]:
    """HAProxy by our file, with these gateways in place of the names there; its HTTP address."""
    http_port, grpc_port = free_ports(2)
    text = (SCALE / "haproxy.cfg").read_text()
    for port, free in (("3200", http_port), ("4317", grpc_port)):
        servers = [
            f"server g{n} {HOST}:{g.http_port if port == '3200' else g.grpc_port}"
            f" check port {g.http_port}"
            for n, g in enumerate(gateways)
        ]
        text = text.replace(f"bind :{port}", f"bind {HOST}:{free}")
        text = re.sub(rf"server-template .*:{port}", "\n    ".join(servers), text)
    text = re.sub(r"default-server check (inter \w+) .*", r"default-server \1", text)
    config = directory / "haproxy.cfg"
    config.write_text(text)
    with subprocess.Popen(["haproxy", "-f", config], stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://{HOST}:{http_port}"
        finally:
            process.terminate()


def post(url: str, payload: bytes) -> tuple[int, str | None]:
    """Status and Retry-After; 0 while nobody listens."""
    request = urllib.request.Request(
        f"{url}/v1/traces", payload, {"Content-Type": "application/x-protobuf"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Retry-After"]
    except urllib.error.URLError:
        return 0, None
