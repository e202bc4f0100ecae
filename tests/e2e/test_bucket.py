"""Traces in a bucket outlive the disk: a real Tempo, and moto's S3 server on loopback."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.kit.backends import find_tempo
from tests.kit.gateway import RunningGateway, eventually, running_gateway
from tests.kit.s3 import ACCESS_KEY, S3, SECRET_KEY, running_s3
from tests.kit.spans import SECOND_NS, make_request, make_span

pytestmark = pytest.mark.tempo

TRACES = 40
EXIT_S = 25.0
"""Of 30 that a platform gives from SIGTERM to SIGKILL."""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@contextmanager
def gateway_with(data_dir: Path, env: Mapping[str, str]) -> Iterator[RunningGateway]:
    binary = find_tempo()
    if binary is None:
        pytest.skip("no Tempo binary: set TEMPO_BIN or put one at ./bin/tempo")
    with running_gateway(data_dir, {"TEMPO_BIN": str(binary), **env}) as gateway:
        yield gateway


def send(gateway: RunningGateway, trace_ids: list[bytes], service: str) -> None:
    """One request a trace, as applications do; each is answered OK."""
    for trace_id in trace_ids:
        request = urllib.request.Request(
            gateway.url + "/v1/traces",
            make_request(some_span(trace_id), service=service).SerializeToString(),
            {"Content-Type": "application/x-protobuf"},
        )
        urllib.request.urlopen(request, timeout=30).close()


def some_span(trace_id: bytes) -> Span:
    """Some minutes old: what has just happened Tempo 3 searches in its memory only, and after a
    start with an empty disk that knows nothing of the bucket.
    """
    end = time.time_ns() - 300 * SECOND_NS
    return make_span(
        trace_id=trace_id, start_time_unix_nano=end - SECOND_NS, end_time_unix_nano=end
    )


def by_id(gateway: RunningGateway, trace_id: bytes) -> bool:
    return gateway.get(f"/api/traces/{trace_id.hex()}")[0] == 200


def by_search(gateway: RunningGateway, service: str) -> set[str]:
    query = {"q": f'{{ resource.service.name = "{service}" }}', "limit": 1000}
    now = int(time.time())
    query |= {"start": now - 3600, "end": now + 60}
    status, body, _ = gateway.get(f"/api/search?{urllib.parse.urlencode(query)}")
    return {t["traceID"].zfill(32) for t in json.loads(body)["traces"]} if status == 200 else set()


def test_what_was_told_ok_is_read_back_from_the_bucket_when_the_disk_is_gone(s3, tmp_path):
    """SIGTERM comes right after the last OK."""
    trace_ids = [os.urandom(16) for _ in range(TRACES)]
    with gateway_with(tmp_path / "one", s3.settings) as gateway:
        gateway.wait_until_ready()
        send(gateway, trace_ids, "shop")
        assert gateway.stop(EXIT_S) == 0
        assert "spans_left_in_spool=0" in gateway.wait_for_line("msg=stopped logger=gateway.app")
    shutil.rmtree(tmp_path / "one")
    with gateway_with(tmp_path / "two", s3.settings) as gateway:
        gateway.wait_until_ready()
        assert by_id(gateway, trace_ids[0])
        assert by_id(gateway, trace_ids[-1])
        wanted = {trace_id.hex() for trace_id in trace_ids}
        eventually(lambda: by_search(gateway, "shop") == wanted, timeout_s=40)


def test_the_keys_are_on_no_disk(s3, tmp_path):
    with gateway_with(tmp_path, s3.settings) as gateway:
        gateway.wait_until_ready()
        assert gateway.stop(EXIT_S) == 0
        assert ACCESS_KEY not in gateway.log
        assert SECRET_KEY not in gateway.log
    secrets = (ACCESS_KEY.encode(), SECRET_KEY.encode())
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret in file for secret in secrets for file in files)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"TEMPO_S3_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached (TEMPO_S3_ENDPOINT)"),
        ({"TEMPO_S3_BUCKET": "absent"}, "does not exist (TEMPO_S3_BUCKET)"),
        ({"TEMPO_S3_ENDPOINT": "https"}, "does not speak TLS"),
    ],
    ids=["nobody there", "no such bucket", "not TLS"],
)
def test_a_bucket_that_cannot_be_used_is_told_in_words(s3, tmp_path, change, reason):
    if change == {"TEMPO_S3_ENDPOINT": "https"}:
        change = {"TEMPO_S3_ENDPOINT": f"https://{s3.address}"}
    with gateway_with(tmp_path, s3.settings | change) as gateway:
        assert reason in gateway.wait_for_line("backend died", timeout_s=60)
        assert reason in gateway.get("/ready")[1]
