"""The containers of one app on a platform: they find each other by what the platform tells them,
and each tenant's spans get through with the token of the tenant.

Played with real processes; a proxy leads the public name to a router of the test's own, since the
name means something else on the internet.
"""

from __future__ import annotations

import asyncio

import grpc
import pytest

from gateway.receivers.headers import EXPORT_METHOD
from tests.kit.authority import CERTIFICATE, KEY, channel_credentials, identity_of, root_file
from tests.kit.gateway import RunningGateway, eventually, logfmt
from tests.kit.router import running_router
from tests.kit.sink import running_sink
from tests.kit.spans import make_request, make_span
from tests.kit.tunnel import running_tunnel

NAME = "shop.osc-fr1.scalingo.io"
TOKENS = {"a": "token-of-a-0123", "": "token-of-all-0123"}
APP = {
    "APP": "shop",
    "REGION_NAME": "osc-fr1",
    "GATEWAY_INGEST_TOKENS": f"a={TOKENS['a']},{TOKENS['']}",
    "GATEWAY_DRAIN_TIMEOUT": "6s",
    "TEMPO_MODE": "external",
}
DEAD = "http://127.0.0.1:9"
SPANS = {"of-a": "a", "of-b": "b", "of-nobody": ""}
"""Name of a span, and its tenant: one with a token of its own, one that is named by the client, and
none."""


class Platform:
    """Starts containers with the environment of the platform."""

    def __init__(self, folder, environ, router) -> None:
        self._folder = folder
        self._environ = environ
        self._started: list[RunningGateway] = []
        self.router = router

    async def start(self, container: str, *arguments: str, **environ: str) -> RunningGateway:
        """Once it listens it serves, as on the platform."""
        return await asyncio.to_thread(self._start, container, arguments, environ)

    def _start(self, container, arguments, environ) -> RunningGateway:
        data = self._folder / f"{container}-{len(self._started)}"
        started = RunningGateway(
            data, self._environ | {"CONTAINER": container} | environ, *arguments
        )
        self._started.append(started)
        listening = "msg=listening.*logger=gateway.receivers.*protocol={}"
        started.grpc_port = int(logfmt(started.wait_for_line(listening.format("grpc")))["port"])
        if container.startswith("web"):
            line = started.wait_for_line(listening.format("http"))
            started.http_port = self.router.target = int(logfmt(line)["port"])
        return started

    def kill_all(self) -> None:
        for each in self._started:
            each.kill()


@pytest.fixture
async def sink():
    async with running_sink(durable=True) as sink:
        yield sink


@pytest.fixture
async def platform(tmp_path):
    tls = identity_of(NAME).context
    async with running_router(tls) as router, running_tunnel({f"{NAME}:443": router.port}) as way:
        out = {"https_proxy": way.url, "SSL_CERT_FILE": root_file(tmp_path)}
        platform = Platform(tmp_path, APP | out, router)
        try:
            yield platform
        finally:
            await asyncio.to_thread(platform.kill_all)


def send(container: RunningGateway, credentials: grpc.ChannelCredentials | None = None) -> None:
    """A span of each tenant, by gRPC."""
    address = container.grpc_address
    with (
        grpc.insecure_channel(address)
        if credentials is None
        else grpc.secure_channel(address, credentials)
    ) as channel:
        export = channel.unary_unary(EXPORT_METHOD)
        for name, tenant in SPANS.items():
            token = TOKENS.get(tenant, TOKENS[""])
            metadata = [("authorization", f"Bearer {token}")]
            if tenant not in TOKENS:
                metadata.append(("x-scope-orgid", tenant))
            export(make_request(make_span(name)).SerializeToString(), metadata=metadata, timeout=20)


def tenants(sink) -> dict[str, str]:
    """Of each span that has arrived."""
    return {name: request.tenant or "" for request in sink.requests for name in request.names}


async def until_all_are_in(sink) -> None:
    await asyncio.to_thread(eventually, lambda: len(tenants(sink)) == len(SPANS))
    assert tenants(sink) == SPANS


async def test_a_relay_finds_its_gateway_and_each_tenant_gets_through(platform, sink):
    """Also where the gateway comes later, since a deploy starts both kinds of container at once,
    and with TLS on the gRPC port of both, since they have the same settings.
    """
    tls = {"GATEWAY_TLS_CERT": CERTIFICATE.decode(), "GATEWAY_TLS_KEY": KEY.decode()}
    network = {"SCALINGO_APPLICATION_ID": "ap-1", "SCALINGO_PRIVATE_NETWORK_ID": "pn-2"}
    relay = await platform.start("tcp-1", "relay", TEMPO_MODE="auto", **tls, **network)
    assert f"https://{NAME}/v1/traces" in relay.log
    await asyncio.to_thread(send, relay, channel_credentials())
    await asyncio.to_thread(relay.wait_for_line, "delivery failed.*HTTP 503")
    web = await platform.start("web-1", TEMPO_OTLP_ENDPOINT=f"http://{sink.address}", **tls)
    await until_all_are_in(sink)
    assert await asyncio.to_thread(relay.stop) == 0
    assert logfmt(relay.wait_for_line("msg=stopped"))["spans_left_in_spool"] == "0"
    assert await asyncio.to_thread(web.stop) == 0


async def test_a_deploy_hands_over_to_the_next_container_with_each_tenant(platform, sink):
    old = await platform.start("web-1", TEMPO_OTLP_ENDPOINT=DEAD)
    await asyncio.to_thread(send, old)
    new = await platform.start("web-1", TEMPO_OTLP_ENDPOINT=f"http://{sink.address}")
    assert await asyncio.to_thread(old.stop) == 0
    last = logfmt(old.wait_for_line("msg=stopped"))
    assert (last["handed_over"], last["spans_left_in_spool"]) == ("3", "0")
    await until_all_are_in(sink)
    assert await asyncio.to_thread(new.stop) == 0
