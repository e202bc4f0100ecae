from __future__ import annotations

import socket

import aiohttp
import grpc
import pytest
from aiohttp import web

from gateway.access.budget import MemoryBudget
from gateway.receivers.health import CHECK_METHOD, NOT_SERVING, SERVING, request_for
from gateway.receivers.http import add_routes
from gateway.receivers.ingest import Ingest, Limits
from gateway.receivers.listeners import (
    Address,
    FrontDoorListeners,
    LibraryListeners,
    PortTaken,
)
from gateway.telemetry.metrics import Metrics
from tests.kit.receivers import ScriptedIntake
from tests.kit.spans import make_payload

HERE = "127.0.0.1"


class Served:
    """Listeners over a scripted intake."""

    def __init__(self, kind) -> None:
        self.intake = ScriptedIntake()
        self.serving = True
        ingest = Ingest(
            intake=self.intake,
            budget=MemoryBudget(2**26),
            metrics=Metrics(),
            limits=Limits(request_bytes=2**20, envelope_spans=8192, envelope_bytes=2**20),
        )
        app = web.Application()
        add_routes(app, ingest)
        self.listeners = kind(app, ingest, lambda: self.serving, {})


@pytest.fixture(params=[FrontDoorListeners, LibraryListeners])
async def served(request):
    served = Served(request.param)
    yield served
    await served.listeners.stop(1.0)


async def post(port: int) -> int:
    headers = {"Content-Type": "application/x-protobuf"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{HERE}:{port}/v1/traces", data=make_payload(), headers=headers) as r,
    ):
        return r.status


async def test_both_transports_are_taken_on_the_ports_that_were_bound(served):
    bound = await served.listeners.start(Address(HERE, 0, 0))
    assert await post(bound.http_port) == 200
    async with grpc.aio.insecure_channel(f"{HERE}:{bound.grpc_port}") as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        assert await export(make_payload(), timeout=10) == b""


async def test_health_says_what_it_is_told(served):
    bound = await served.listeners.start(Address(HERE, 0, 0))
    async with grpc.aio.insecure_channel(f"{HERE}:{bound.grpc_port}") as channel:
        check = channel.unary_unary(CHECK_METHOD)
        assert await check(request_for(""), timeout=10) == SERVING
        served.serving = False
        assert await check(request_for(""), timeout=10) == NOT_SERVING


@pytest.mark.parametrize("setting", ["PORT", "TCP_GRPC_PORT"])
async def test_a_taken_port_is_named_with_its_setting(served, setting):
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
        address = Address(HERE, port, 0) if setting == "PORT" else Address(HERE, 0, port)
        with pytest.raises(PortTaken, match=f"port {port} .* set {setting}"):
            await served.listeners.start(address)


async def test_an_address_of_another_machine_is_named_with_its_setting(served):
    for address in (Address("203.0.113.1", 0, 0), Address("203.0.113.1", None, 0)):
        with pytest.raises(PortTaken, match="GATEWAY_HOST must be an address of this machine"):
            await served.listeners.start(address)


async def test_without_an_http_port_the_other_one_is_the_only_one(served):
    bound = await served.listeners.start(Address(HERE, None, 0, grpc_setting="PORT"))
    assert bound == Address(HERE, None, bound.grpc_port, "PORT")
    async with grpc.aio.insecure_channel(f"{HERE}:{bound.grpc_port}") as channel:
        assert await channel.unary_unary(CHECK_METHOD)(request_for(""), timeout=10) == SERVING
    if isinstance(served.listeners, FrontDoorListeners):
        assert await post(bound.grpc_port) == 200


async def test_the_only_port_is_named_with_the_setting_that_chose_it(served):
    with socket.create_server((HERE, 0)) as taken:
        address = Address(HERE, None, taken.getsockname()[1], grpc_setting="PORT")
        with pytest.raises(PortTaken, match="set PORT"):
            await served.listeners.start(address)


async def test_after_stop_nobody_listens_and_stop_is_safe_twice(served):
    bound = await served.listeners.start(Address(HERE, 0, 0))
    await served.listeners.stop(1.0)
    await served.listeners.stop(1.0)
    for port in (bound.http_port, bound.grpc_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HERE, port), timeout=2).close()


async def test_stop_is_safe_before_start(served):
    await served.listeners.stop(1.0)
