"""A name with several addresses, by real sockets on several addresses of loopback; only the look-up
is the test's own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from contextlib import asynccontextmanager

import grpc
import pytest

from gateway.access import outbound
from gateway.envelope import Fate
from gateway.tempo.client import make_exporter
from gateway.tempo.names import LOOKUP_S, NamedExporter, look_up
from tests.kit.authority import identity_of, root_file
from tests.kit.site import running_site
from tests.kit.spans import make_payload

NAME = "tempo.test"
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
PAYLOAD = make_payload(2)


class Directory:
    """What the name means at present, and the time."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Collection[str] = addresses
        self.fault: OSError | None = None
        self.looks = 0
        self.now = 0.0

    async def look_up(self, host: str, port: int) -> Collection[str]:
        assert host == NAME
        self.looks += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return self.addresses

    def exporter(self, url: str) -> NamedExporter:
        port = int(url.split(":")[2].split("/", maxsplit=1)[0])
        return NamedExporter(
            NAME,
            port,
            lambda address: make_exporter(url, connect_to=address),
            lookup=self.look_up,
            clock=lambda: self.now,
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Town:
    """A receiver on each address, all on one port."""

    def __init__(self, sites, url: str) -> None:
        self.sites = sites
        self.url = url

    @property
    def requests(self) -> list[int]:
        return [len(site.requests) for site in self.sites]


@pytest.fixture
async def town():
    port = free_port()
    async with (
        running_site(HOSTS[0], port) as one,
        running_site(HOSTS[1], port) as two,
        running_site(HOSTS[2], port) as three,
    ):
        yield Town([one, two, three], f"http://{NAME}:{port}/v1/traces")


async def deliver(exporter: NamedExporter, times: int = 1) -> list[Fate]:
    return [(await exporter.export("", PAYLOAD, timeout_s=10)).fate for _ in range(times)]


async def test_deliveries_go_round_all_addresses_and_ask_for_the_name(town):
    exporter = Directory(*HOSTS).exporter(town.url)
    assert await deliver(exporter, 9) == [Fate.DELIVERED] * 9
    assert town.requests == [3, 3, 3]
    assert all(headers["host"].startswith(f"{NAME}:") for _, headers, _ in town.sites[1].requests)
    await exporter.close()


async def test_a_dead_address_costs_no_delivery_and_is_avoided(town):
    exporter = Directory("127.0.0.9", HOSTS[0], HOSTS[1]).exporter(town.url)
    assert await deliver(exporter, 8) == [Fate.DELIVERED] * 8
    assert sum(town.requests) == 8
    await exporter.close()


async def test_a_change_of_the_records_is_followed_within_seconds(town):
    directory = Directory(HOSTS[0])
    exporter = directory.exporter(town.url)
    await deliver(exporter, 4)
    directory.addresses = HOSTS[1:]
    await deliver(exporter, 2)
    assert (town.requests, directory.looks) == ([6, 0, 0], 1)
    directory.now += LOOKUP_S
    await deliver(exporter, 4)
    assert (town.requests, directory.looks) == ([6, 2, 2], 2)
    await exporter.close()


@pytest.mark.parametrize("fault", [OSError("servfail"), None], ids=["error", "no records"])
async def test_a_look_that_finds_nothing_leaves_what_was_known(town, fault):
    directory = Directory(HOSTS[0])
    exporter = directory.exporter(town.url)
    await deliver(exporter)
    directory.addresses, directory.fault = (), fault
    directory.now += LOOKUP_S
    assert await deliver(exporter, 3) == [Fate.DELIVERED] * 3
    await exporter.close()


async def test_a_name_without_an_address_is_away_until_it_has_one(town):
    directory = Directory(HOSTS[0])
    directory.fault = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    exporter = directory.exporter(town.url)
    outcome = await exporter.export("", PAYLOAD, timeout_s=10)
    assert (outcome.fate, outcome.code) == (Fate.RETRY, "UNAVAILABLE")
    assert f"{NAME} has no address: Name or service not known" in outcome.message
    directory.fault = None
    assert await deliver(exporter) == [Fate.DELIVERED]
    await exporter.close()


async def test_several_at_once_share_one_look(town):
    directory = Directory(*HOSTS)
    exporter = directory.exporter(town.url)
    await asyncio.gather(*(deliver(exporter) for _ in range(6)))
    assert (sum(town.requests), directory.looks) == (6, 1)
    await exporter.close()


async def test_the_name_is_what_a_certificate_has_to_bear(tmp_path, monkeypatch):
    """Over a private authority that SSL_CERT_FILE names, whatever the address."""
    monkeypatch.setenv("SSL_CERT_FILE", root_file(tmp_path))
    outbound.tls_context.cache_clear()
    try:
        async with running_site(HOSTS[1], tls=identity_of(NAME).context) as site:
            url = site.url.replace(HOSTS[1], NAME)
            exporter = Directory(HOSTS[1]).exporter(url)
            assert await deliver(exporter) == [Fate.DELIVERED]
            await exporter.close()
            stranger = make_exporter(url.replace(NAME, "other.test"), connect_to=HOSTS[1])
            outcome = await stranger.export("", PAYLOAD, timeout_s=10)
            assert "certificate" in outcome.message.lower()
            await stranger.close()
    finally:
        outbound.tls_context.cache_clear()


class Accepts(grpc.GenericRpcHandler):
    """Says OK to everything and counts it."""

    def __init__(self) -> None:
        self.count = 0

    def service(self, handler_call_details):
        async def export(request: bytes, context) -> bytes:
            self.count += 1
            return b""

        return grpc.unary_unary_rpc_method_handler(export)


@asynccontextmanager
async def grpc_server(host: str, port: int, credentials=None):
    handler = Accepts()
    options = [("grpc.so_reuseport", 0)]
    server = grpc.aio.server(handlers=(handler,), options=options)
    if credentials is None:
        server.add_insecure_port(f"{host}:{port}")
    else:
        server.add_secure_port(f"{host}:{port}", credentials)
    await server.start()
    try:
        yield handler
    finally:
        await server.stop(0)


async def test_over_grpc_too_deliveries_go_round_and_a_dead_address_is_avoided():
    port = free_port()
    async with grpc_server(HOSTS[0], port) as one, grpc_server(HOSTS[1], port) as two:
        exporter = Directory("127.0.0.9", *HOSTS[:2]).exporter(f"http://{NAME}:{port}")
        assert await deliver(exporter, 8) == [Fate.DELIVERED] * 8
        await exporter.close()
    assert one.count + two.count == 8
    assert min(one.count, two.count) >= 3


async def test_over_grpc_too_the_name_is_what_a_certificate_has_to_bear(tmp_path, monkeypatch):
    server = identity_of(NAME)
    monkeypatch.setenv("SSL_CERT_FILE", root_file(tmp_path))
    outbound.trusted_roots.cache_clear()
    await asyncio.to_thread(outbound.trusted_roots)
    port = free_port()
    try:
        async with grpc_server(
            HOSTS[1], port, grpc.ssl_server_credentials([(server.key, server.chain)])
        ) as served:
            exporter = Directory(HOSTS[1]).exporter(f"https://{NAME}:{port}")
            assert await deliver(exporter) == [Fate.DELIVERED]
            await exporter.close()
            stranger = make_exporter(f"https://other.test:{port}", connect_to=HOSTS[1])
            assert (await stranger.export("", PAYLOAD, timeout_s=10)).fate is Fate.RETRY
            await stranger.close()
        assert served.count == 1
    finally:
        outbound.trusted_roots.cache_clear()


async def test_the_systems_look_up_knows_loopback():
    assert "127.0.0.1" in await look_up("localhost", 4317)
