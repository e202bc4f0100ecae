from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from gateway.query import exposition
from gateway.query.exposition import CONTENT_TYPE, Limits
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readout import ReadOut
from tests.kit.backends import Backend as Tempo
from tests.kit.backends import find_tempo, tempo_backend
from tests.query.scripted import (
    DEADLINE_S,
    HOST,
    Backend,
    Facts,
    ask_raw,
    raw_backend,
    request_bytes,
    serve,
)

TEMPO_LIKE = b"""\
# HELP tempo_request_duration_seconds Time (in seconds) spent serving HTTP requests.
# TYPE tempo_request_duration_seconds histogram
tempo_request_duration_seconds_bucket{route="/api/search",le="1"} 1
tempo_request_duration_seconds_bucket{route="/api/search",le="+Inf"} 1
tempo_request_duration_seconds_sum{route="/api/search"} 0.25
tempo_request_duration_seconds_count{route="/api/search"} 1
# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 0.47
# HELP go_goroutines Number of goroutines that currently exist.
# TYPE go_goroutines gauge
go_goroutines 240
"""


@contextlib.asynccontextmanager
async def exposition_of(
    upstream: Facts, metrics: Metrics | None = None, **options: object
) -> AsyncIterator[str]:
    app = web.Application()
    metrics = metrics or Metrics()
    exposition.add_routes(app, upstream, metrics, ReadOut(metrics).families, **options)
    async with serve(app) as port:
        yield f"http://{HOST}:{port}/metrics"


async def scrape(url: str, **fields: str) -> str:
    """Scrape and check all that must hold of any read-out."""
    async with aiohttp.ClientSession(headers=fields) as session, session.get(url) as answer:
        body = await answer.read()
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert_valid(body)
    return body.decode()


def assert_valid(body: bytes) -> None:
    assert body.endswith(b"\n")
    families = list(text_string_to_metric_families(body.decode()))
    # The parser drops "_total" of counters; Tempo has counters and gauges that differ only there.
    names = [(family.name, family.type) for family in families]
    assert len(names) == len(set(names))
    described = re.findall(rb"^# (HELP|TYPE) (\S+)", body, re.MULTILINE)
    assert len(described) == len(set(described))
    samples = [sample[:2] for family in families for sample in family.samples]
    assert len(samples) == len({(name, *sorted(labels.items())) for name, labels in samples})


def promtool(body: str | bytes) -> tuple[int, list[str]]:
    """Exit status (3 for mere style) and complaints of ``promtool check metrics``."""
    text = body.encode() if isinstance(body, str) else body
    run = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    return run.returncode, sorted((run.stdout + run.stderr).decode().splitlines())


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH")


def serving(body: bytes, content_type: str = CONTENT_TYPE, status: int = 200, **fields: str):
    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            body=body, status=status, headers={"Content-Type": content_type, **fields}
        )

    return answer


def value(text: str, name: str) -> float:
    (match,) = re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(match)


async def test_both_sides_are_in_one_exposition(backend: Backend):
    backend.answer = serving(TEMPO_LIKE)
    metrics = Metrics()
    metrics.accepted_spans.series().value = 7
    async with exposition_of(Facts(backend.url), metrics) as url:
        text = await scrape(url)

    assert TEMPO_LIKE.decode() in text
    assert value(text, "gateway_accepted_spans_total") == 7


async def test_the_backend_is_asked_for_plain_text(backend: Backend):
    backend.answer = serving(TEMPO_LIKE)
    async with exposition_of(Facts(backend.url)) as url:
        await scrape(url, Accept="application/openmetrics-text;version=1.0.0", Cookie="a=1")

    (seen,) = backend.requests
    assert (seen.method, seen.target) == ("GET", "/metrics")
    assert seen.values("Accept") == ["text/plain;version=0.0.4"]
    assert seen.values("Accept-Encoding") == ["identity"]
    assert not seen.values("Cookie")


async def test_both_processes_are_told_apart(backend: Backend):
    backend.answer = serving(TEMPO_LIKE)
    async with exposition_of(Facts(backend.url)) as url:
        text = await scrape(url)

    assert value(text, "process_cpu_seconds_total") == 0.47
    assert value(text, "gateway_process_cpu_seconds_total") > 0
    assert value(text, "gateway_process_open_fds") > 0
    assert "python_info{" in text
    assert "python_gc_collections_total{" in text


async def test_on_a_clash_the_gateways_own_numbers_stay(backend: Backend):
    """As with a gateway behind a gateway."""
    backend.answer = serving(
        b"# TYPE gateway_accepted_spans_total counter\ngateway_accepted_spans_total 99\n"
        b"# TYPE gateway_export_duration_seconds_sum gauge\ngateway_export_duration_seconds_sum 1\n"
        b"other 1\n"
    )
    async with exposition_of(Facts(backend.url)) as url:
        text = await scrape(url)

    assert value(text, "gateway_accepted_spans_total") == 0
    assert value(text, "gateway_export_duration_seconds_sum") == 0
    assert value(text, "other") == 1


async def test_a_backend_address_with_a_path_is_kept(backend: Backend):
    backend.answer = serving(TEMPO_LIKE)
    async with exposition_of(Facts(f"{backend.url}/tempo/")) as url:
        await scrape(url)

    assert backend.requests[0].target == "/tempo/metrics"


@pytest.fixture
def up() -> Metrics:
    """Metrics whose owner says that the backend is up."""
    metrics = Metrics()
    metrics.follow(metrics.backend_up, lambda: 1)
    return metrics


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (serving(b"<html><body>hello</body></html>", "text/html"), "media_type"),
        (serving(b"<html><body>hello</body></html>\n"), "malformed"),
        (serving(TEMPO_LIKE[:-4]), "malformed"),
        (serving(TEMPO_LIKE + TEMPO_LIKE), "malformed"),
        (serving(TEMPO_LIKE, "application/openmetrics-text"), "media_type"),
        (serving(gzip.compress(TEMPO_LIKE), **{"Content-Encoding": "gzip"}), "media_type"),
        (serving(b"404 page not found\n", status=404), "status"),
        (serving(b"x 1\n" * 300_000), "too_large"),
    ],
    ids=["html", "html as text", "cut", "twice", "openmetrics", "gzip", "404", "too large"],
)
async def test_a_backend_that_sends_no_exposition_is_left_out(backend, up, answer, reason, caplog):
    backend.answer = answer
    limits = Limits(max_bytes=2**20)
    async with exposition_of(Facts(backend.url), up, limits=limits) as url:
        text = await scrape(url)
        await scrape(url)

    assert "tempo_" not in text
    assert value(text, "gateway_backend_up") == 1  # it answers; what it serves is another matter
    assert up.backend_scrape_failures.series(reason).value == 2
    (record,) = [record for record in caplog.records if record.name == "gateway.query.exposition"]
    assert record.facts["reason"] == reason


async def assert_down(url: str, metrics: Metrics, reason: str) -> None:
    text = await scrape(url)

    assert value(text, "gateway_backend_up") == 0
    assert metrics.backend_scrape_failures.series(reason).value == 1


async def test_a_backend_that_takes_no_connections_is_down_and_the_log_says_so_in_words(up, caplog):
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    async with exposition_of(Facts(f"http://{HOST}:{port}"), up) as url:
        await assert_down(url, up, "unreachable")
    (record,) = [record for record in caplog.records if record.name == "gateway.query.exposition"]
    assert record.facts["why"].startswith(f"Cannot connect to host {HOST}:{port}")


@pytest.mark.parametrize("sent", [0, 1], ids=["no header", "no body"])
async def test_a_backend_that_is_slow_counts_as_down(up, sent):
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n" * sent
        )
        await reader.read()

    limits = Limits(timeout_s=0.05)
    async with raw_backend(script) as url, exposition_of(Facts(url), up, limits=limits) as own:
        await assert_down(own, up, "slow")


@pytest.mark.parametrize(
    ("speech", "reason", "is_up"),
    [
        (b"", "unreachable", 0),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\na 1\n",
            "broken",
            1,
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "broken", 1),
    ],
    ids=["silence", "half", "no HTTP"],
)
async def test_a_backend_that_breaks_off_is_left_out(up, speech, reason, is_up):
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(speech)

    async with raw_backend(script) as url, exposition_of(Facts(url), up) as own:
        text = await scrape(own)

    assert value(text, "gateway_backend_up") == is_up
    assert up.backend_scrape_failures.series(reason).value == 1


async def test_without_an_address_nobody_is_asked_and_the_owner_knows_whether_it_is_up(up):
    async with exposition_of(Facts(None), up) as url:
        text = await scrape(url)

    assert value(text, "gateway_backend_up") == 1
    assert not up.backend_scrape_failures.total()


@pytest.mark.parametrize(
    ("accept", "expected"), [("gzip", "gzip"), ("gzip;q=0", None), ("zstd", None), (None, None)]
)
async def test_is_compressed_for_who_wants_it(backend, accept, expected):
    backend.answer = serving(TEMPO_LIKE)
    fields = [("Connection", "close")] + ([("Accept-Encoding", accept)] if accept else [])
    async with exposition_of(Facts(backend.url)) as url:
        port = int(url.split(":")[2].split("/")[0])
        reply = await ask_raw(port, request_bytes("/metrics", fields=fields))

    assert reply.values("Content-Encoding") == ([expected] if expected else [])
    assert reply.values("Vary") == ["Accept-Encoding"]
    body = gzip.decompress(reply.body) if expected else reply.body
    assert_valid(body)
    assert TEMPO_LIKE in body


async def test_only_get_and_head_are_answered(backend):
    backend.answer = serving(TEMPO_LIKE)
    async with exposition_of(Facts(backend.url)) as url:
        port = int(url.split(":")[2].split("/")[0])
        close = [("Connection", "close"), ("Accept-Encoding", "gzip")]
        head = await ask_raw(port, request_bytes("/metrics", method="HEAD", fields=close))
        post = await ask_raw(port, request_bytes("/metrics", method="POST", fields=close))

    assert (head.status, head.body) == (200, b"")
    assert post.status == 405


async def test_read_outs_at_once_are_bounded(backend):
    go_on = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response(text="a 1\n")

    backend.answer = answer
    async with (
        exposition_of(Facts(backend.url), limits=Limits(concurrent=1)) as url,
        aiohttp.ClientSession() as session,
    ):
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(scrape(url))
            await asyncio.wait_for(backend.arrived.wait(), DEADLINE_S)
            async with session.get(url) as second:
                assert second.status == 503
                assert second.headers["Retry-After"] == "1"
            go_on.set()
        assert "a 1\n" in first.result()
        await scrape(url)


@needs_promtool
async def test_promtool_has_no_complaint_about_the_gateways_own_part(backend):
    metrics = Metrics()
    for family in metrics.families():
        family.series(*("x" for _ in family.row.labels))
    async with exposition_of(Facts(None), metrics) as url:
        assert promtool(await scrape(url)) == (0, [])


@pytest.fixture(scope="module")
def tempo(tmp_path_factory: pytest.TempPathFactory):
    if (binary := find_tempo()) is None:
        pytest.skip("no Tempo binary (TEMPO_BIN or ./bin/tempo)")
    with tempo_backend(binary, tmp_path_factory.mktemp("tempo")) as backend:
        yield backend


@pytest.mark.tempo
@needs_promtool
async def test_promtool_complains_of_nothing_but_tempos_own_names(tempo: Tempo):
    async with aiohttp.ClientSession() as session, session.get(f"{tempo.url}/metrics") as answer:
        plain = await answer.read()
    _, of_tempo = promtool(plain)
    async with exposition_of(Facts(tempo.url)) as url:
        text = await scrape(url)
    code, complaints = promtool(text)

    assert complaints == of_tempo
    assert code in {0, 3}
    types = re.findall(r"^# TYPE .*$", plain.decode(), re.MULTILINE)
    assert set(types) <= set(text.splitlines())
    assert "tempo_build_info{" in text
    assert "\nprocess_resident_memory_bytes " in text
    assert "\ngateway_process_resident_memory_bytes " in text
