"""One attempt to deliver, against real servers over gRPC and HTTP."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
from contextlib import asynccontextmanager

import grpc
import pytest
from aiohttp import web

from gateway.access.outbound import proxy_for, tls_context
from gateway.envelope import Fate
from gateway.tempo import client
from gateway.tempo.client import OtlpGrpcExporter, OtlpHttpExporter, make_exporter
from gateway.tempo.outcomes import OPERATOR_DELAY_S
from gateway.tempo.ports import free_ports
from tests.kit.authority import ROOT, identity_of, root_file
from tests.kit.sink import HANG, RESET, Reply, running_sink
from tests.kit.site import running_site
from tests.kit.spans import make_payload
from tests.kit.tunnel import running_tunnel

PAYLOAD = make_payload(3)
TIMEOUT_S = 10.0
DEADLINE_S = 20.0


@pytest.fixture
async def sink():
    async with running_sink() as sink:
        yield sink


@pytest.fixture
async def exporter(sink):
    exporter = OtlpGrpcExporter(sink.address)
    yield exporter
    await exporter.close()


async def deliver(exporter, tenant="", payload=PAYLOAD, timeout_s=TIMEOUT_S):
    return await exporter.export(tenant, payload, timeout_s=timeout_s)


class TestGrpc:
    async def test_bytes_arrive_and_the_answer_is_delivered(self, sink, exporter):
        assert await deliver(exporter) == (Fate.DELIVERED, "OK", "", None, 0, False)
        assert len(sink.requests[0].spans) == 3
        assert sink.requests[0].metadata["user-agent"].startswith("otlp-gateway/")

    @pytest.mark.parametrize(("tenant", "seen"), [("shop", "shop"), ("", None)])
    async def test_the_tenant_is_sent_when_there_is_one(self, sink, exporter, tenant, seen):
        await deliver(exporter, tenant)
        assert sink.requests[0].tenant == seen

    async def test_the_tenant_is_sent_once_whatever_the_headers_say(self):
        seen = []
        async with running_server(Accepts(seen)) as port:
            headers = (("x-scope-orgid", "fixed"), ("authorization", "Bearer t"))
            exporter = OtlpGrpcExporter(f"127.0.0.1:{port}", lambda *_: headers)
            await deliver(exporter, "shop")
            await deliver(exporter, "")
            await exporter.close()
        tenants = [[v for k, v in metadata if k == "x-scope-orgid"] for metadata in seen]
        assert tenants == [["shop"], ["fixed"]]
        assert all(("authorization", "Bearer t") in metadata for metadata in seen)

    async def test_a_large_delivery_fits(self, exporter):
        payload = b"".join([make_payload(500)] * 60)
        assert len(payload) > 5 * 2**20
        assert (await deliver(exporter, payload=payload)).fate is Fate.DELIVERED

    async def test_partial_success_is_read(self, sink, exporter):
        sink.script(Reply(message="two were bad", rejected_spans=2))
        outcome = await deliver(exporter)
        assert (outcome.fate, outcome.rejected_spans) == (Fate.DELIVERED, 2)
        assert outcome.message == "two were bad"

    async def test_retry_info_is_read(self, sink, exporter):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        sink.script(Reply(code=code, message="RATE_LIMITED: rate limit", retry_after_s=2.5))
        outcome = await deliver(exporter)
        assert (outcome.fate, outcome.retry_after_s) == (Fate.RETRY, 2.5)
        assert outcome.code == "RESOURCE_EXHAUSTED"

    async def test_a_long_message_is_cut(self, sink, exporter):
        sink.script(Reply(code=grpc.StatusCode.INVALID_ARGUMENT, message="x" * 3000))
        assert len((await deliver(exporter)).message) == client.MESSAGE_CHARS

    async def test_nobody_there_is_no_lost_connection(self):
        exporter = OtlpGrpcExporter(f"127.0.0.1:{free_ports().otlp}")
        outcome = await deliver(exporter)
        await exporter.close()
        assert (outcome.fate, outcome.code) == (Fate.RETRY, "UNAVAILABLE")
        assert not outcome.lost_connection

    async def test_a_connection_that_breaks_in_mid_call_is_told(self, sink, exporter):
        sink.script(RESET)
        outcome = await deliver(exporter)
        assert (outcome.fate, outcome.lost_connection) == (Fate.RETRY, True)

    async def test_no_answer_in_time_is_to_be_retried(self, sink, exporter):
        sink.script(HANG)
        outcome = await deliver(exporter, timeout_s=0.1)
        assert (outcome.fate, outcome.code) == (Fate.RETRY, "DEADLINE_EXCEEDED")

    async def test_it_finds_a_backend_again_that_was_away(self, sink, exporter):
        await sink.die()
        async with asyncio.timeout(DEADLINE_S):
            assert (await deliver(exporter)).fate is Fate.RETRY
            await sink.revive()
            while (await deliver(exporter)).fate is not Fate.DELIVERED:
                await asyncio.sleep(0.05)

    async def test_cancellation_passes(self, sink, exporter):
        sink.script(HANG)
        task = asyncio.get_running_loop().create_task(deliver(exporter))
        async with asyncio.timeout(DEADLINE_S):
            while not sink.requests:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_close_under_way_leaves_a_delivery_to_be_retried(self, sink, exporter):
        sink.script(HANG)
        task = asyncio.get_running_loop().create_task(deliver(exporter))
        async with asyncio.timeout(DEADLINE_S):
            while not sink.requests:
                await asyncio.sleep(0.01)
        await exporter.close()
        assert (await task).fate is Fate.RETRY
        assert (await deliver(exporter)).fate is Fate.RETRY

    async def test_an_operators_mistake_is_said_loudly_once(self, sink, exporter, caplog):
        sink.script(*[Reply(code=grpc.StatusCode.UNAUTHENTICATED, message="no token")] * 3)
        outcomes = [await deliver(exporter) for _ in range(3)]
        assert {outcome.retry_after_s for outcome in outcomes} == {OPERATOR_DELAY_S}
        (record,) = [r for r in caplog.records if r.getMessage() == "backend refuses the gateway"]
        assert record.levelname == "ERROR"
        assert "TEMPO_OTLP_HEADERS" in record.facts["check"]

    async def test_tls(self):
        server = identity_of("localhost")
        credentials = grpc.ssl_server_credentials([(server.key, server.chain)])
        async with running_server(Accepts([]), credentials) as port:
            address = f"localhost:{port}"
            trusting = OtlpGrpcExporter(address, tls=True, root_certificates=ROOT)
            wary = OtlpGrpcExporter(address, tls=True)
            assert (await deliver(trusting)).fate is Fate.DELIVERED
            assert (await deliver(wary)).fate is Fate.RETRY
            await trusting.close()
            await wary.close()

    def test_it_never_waits_long_before_it_connects_again(self):
        assert dict(client._OPTIONS)["grpc.max_reconnect_backoff_ms"] <= 2000


class Accepts(grpc.GenericRpcHandler):
    """Says OK to everything and notes the metadata as it came."""

    def __init__(self, seen: list) -> None:
        self._seen = seen

    def service(self, handler_call_details):
        async def export(request: bytes, context) -> bytes:
            self._seen.append([tuple(pair) for pair in context.invocation_metadata()])
            return b""

        return grpc.unary_unary_rpc_method_handler(export)


@asynccontextmanager
async def running_server(handler: grpc.GenericRpcHandler, credentials=None):
    """A plain gRPC server on a free port, with TLS where there are credentials."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@pytest.fixture
async def site():
    async with running_site() as site:
        yield site


@pytest.fixture
async def http(site):
    exporter = OtlpHttpExporter(site.url, lambda *_: (("authorization", "Bearer t"),))
    yield exporter
    await exporter.close()


STATUS_8 = b"\x08\x08\x12\x0flarger than max"
PARTIAL_2 = b"\x0a\x07\x08\x02\x12\x03bad"


class TestHttp:
    async def test_the_request_is_as_the_specification_has_it(self, site, http):
        assert (await deliver(http, "shop")).fate is Fate.DELIVERED
        ((path, headers, body),) = site.requests
        assert (path, body) == ("/v1/traces", PAYLOAD)
        assert headers["content-type"] == "application/x-protobuf"
        assert headers["x-scope-orgid"] == "shop"
        assert headers["authorization"] == "Bearer t"

    async def test_any_2xx_is_a_success_and_a_partial_one_is_read(self, site, http):
        site.answer = lambda: web.Response(status=202, body=PARTIAL_2)
        outcome = await deliver(http)
        assert (outcome.fate, outcome.rejected_spans, outcome.message) == (
            Fate.DELIVERED,
            2,
            "bad",
        )

    @pytest.mark.parametrize(
        ("retry_after", "delay_s"),
        [("7", 7.0), ("", None), ("soon", None), ("-3", None), ("9" * 400, None)],
    )
    async def test_retry_after_is_read(self, site, http, retry_after, delay_s):
        site.answer = lambda: web.Response(status=503, headers={"Retry-After": retry_after})
        outcome = await deliver(http)
        assert (outcome.fate, outcome.retry_after_s) == (Fate.RETRY, delay_s)

    async def test_retry_after_may_be_a_date(self, site, http):
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
        header = {"Retry-After": email.utils.format_datetime(moment, usegmt=True)}
        site.answer = lambda: web.Response(status=503, headers=header)
        assert 50 < ((await deliver(http)).retry_after_s or 0.0) <= 100

    async def test_the_status_in_the_body_of_a_500_is_believed(self, site, http):
        site.answer = lambda: web.Response(status=500, body=STATUS_8)
        outcome = await deliver(http)
        assert (outcome.fate, outcome.code) == (Fate.SPLIT, "HTTP 500")
        assert outcome.message == "larger than max"

    async def test_a_redirect_is_not_followed_and_is_the_operators(self, site, http, caplog):
        site.answer = lambda: web.Response(status=307, headers={"Location": site.url})
        outcome = await deliver(http)
        assert (outcome.fate, outcome.retry_after_s) == (Fate.RETRY, OPERATOR_DELAY_S)
        assert len(site.requests) == 1
        assert "backend refuses the gateway" in caplog.text

    async def test_a_page_for_people_is_no_ok_whatever_its_status(self, site, http, caplog):
        """From a proxy or a web server that answers anything so: nobody has the spans."""
        site.answer = lambda: web.Response(text="<h1>Welcome</h1>", content_type="text/html")
        outcome = await deliver(http)
        assert (outcome.fate, outcome.retry_after_s) == (Fate.RETRY, OPERATOR_DELAY_S)
        assert "backend refuses the gateway" in caplog.text

    async def test_a_page_without_end_is_not_read_to_its_end(self, site, http):
        site.endless = True
        outcome = await deliver(http, timeout_s=1000.0)
        assert (outcome.fate, len(outcome.message)) == (Fate.RETRY, client.MESSAGE_CHARS)

    async def test_nobody_there_is_no_lost_connection(self):
        exporter = OtlpHttpExporter(f"http://127.0.0.1:{free_ports().http}/v1/traces")
        outcome = await deliver(exporter)
        await exporter.close()
        assert (outcome.fate, outcome.code) == (Fate.RETRY, "UNAVAILABLE")
        assert not outcome.lost_connection

    async def test_a_connection_that_breaks_in_mid_call_is_told(self, site, http):
        site.break_connection = True
        outcome = await deliver(http)
        assert (outcome.fate, outcome.lost_connection) == (Fate.RETRY, True)

    async def test_no_answer_in_time_is_to_be_retried(self, site, http):
        site.let_go.clear()
        outcome = await deliver(http, timeout_s=0.1)
        assert (outcome.fate, outcome.code) == (Fate.RETRY, "DEADLINE_EXCEEDED")

    async def test_cancellation_passes(self, site, http):
        site.let_go.clear()
        task = asyncio.get_running_loop().create_task(deliver(http))
        async with asyncio.timeout(DEADLINE_S):
            while not site.requests:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_close_leaves_deliveries_to_be_retried(self, site, http):
        site.let_go.clear()
        task = asyncio.get_running_loop().create_task(deliver(http))
        async with asyncio.timeout(DEADLINE_S):
            while not site.requests:
                await asyncio.sleep(0.01)
        await http.close()
        outcome = await task
        assert (outcome.fate, outcome.lost_connection) == (Fate.RETRY, False)
        assert (await deliver(http)).fate is Fate.RETRY


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1:4317", OtlpGrpcExporter),
        ("https://tempo.example.com", OtlpGrpcExporter),
        ("https://tempo.example.com/", OtlpGrpcExporter),
        ("http://[::1]:4317", OtlpGrpcExporter),
        ("https://tempo.example.com/v1/traces", OtlpHttpExporter),
        ("http://127.0.0.1:4318/otlp/v1/traces", OtlpHttpExporter),
    ],
)
async def test_the_url_decides_the_protocol(url, kind):
    exporter = await asyncio.to_thread(make_exporter, url)  # it reads certificates
    assert isinstance(exporter, kind)
    await exporter.close()


async def test_a_url_reaches_its_server(sink, site):
    for url in (f"http://{sink.address}", site.url):
        exporter = make_exporter(url, lambda *_: (("x-key", "1"),))
        assert (await deliver(exporter)).fate is Fate.DELIVERED
        await exporter.close()
    assert sink.requests[0].metadata["x-key"] == "1"
    assert site.requests[0][1]["x-key"] == "1"


class TestByProxy:
    """The name is left to the proxy: nobody here knows ``tempo.test``."""

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch):
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        proxy_for.cache_clear()
        yield monkeypatch
        proxy_for.cache_clear()

    async def test_grpc_goes_through_a_tunnel(self, sink, environment):
        async with running_tunnel({"tempo.test:4317": sink.port}) as tunnel:
            environment.setenv("HTTP_PROXY", tunnel.url)
            exporter = make_exporter("http://tempo.test:4317")
            assert (await deliver(exporter)).fate is Fate.DELIVERED
            await exporter.close()
        assert tunnel.asked == ["tempo.test:4317"]

    async def test_https_goes_through_a_tunnel_to_the_certificate_of_the_name(
        self, environment, tmp_path
    ):
        environment.setenv("SSL_CERT_FILE", root_file(tmp_path))
        tls_context.cache_clear()
        async with running_site(tls=identity_of("tempo.test").context) as site:
            port = int(site.url.split(":")[2].split("/")[0])
            async with running_tunnel({"tempo.test:443": port}) as tunnel:
                environment.setenv("https_proxy", tunnel.url)
                exporter = OtlpHttpExporter("https://tempo.test/v1/traces")
                assert (await deliver(exporter)).fate is Fate.DELIVERED
                await exporter.close()
        tls_context.cache_clear()
        assert tunnel.asked == ["tempo.test:443"]

    async def test_plain_http_is_asked_of_the_proxy_itself(self, site, environment):
        environment.setenv("http_proxy", site.url.removesuffix("/v1/traces"))
        exporter = OtlpHttpExporter("http://tempo.test/v1/traces")
        assert (await deliver(exporter)).fate is Fate.DELIVERED
        await exporter.close()
        assert site.requests[0][1]["host"] == "tempo.test"
