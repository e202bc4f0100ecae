"""A port with a certificate: real clients, with and without TLS, good and bad ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import socket
import ssl
from collections.abc import Iterator

import grpc
import pytest
from grpc import aio

from gateway.receivers.frontdoor import porch
from gateway.receivers.headers import EXPORT_METHOD
from gateway.receivers.health import CHECK_METHOD, SERVING, request_for
from tests.kit.authority import (
    AUTHORITY,
    MUTUAL_TLS,
    STRANGER,
    TLS,
    channel_credentials,
    client_context,
)
from tests.kit.receivers import HOST, MIB, eventually, started_receivers
from tests.kit.spans import make_payload
from tests.receivers.frontdoor.doors import QUICK, started_door

ENGINES = {"grpcio": started_receivers, "front door": started_door}
PAYLOAD = make_payload(2)
POST = (
    b"POST /v1/traces HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/x-protobuf\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(PAYLOAD), PAYLOAD)
)
GET_READY = b"GET /ready HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"


async def export(port: int, credentials: grpc.ChannelCredentials | None) -> str:
    """``OK`` or the name of the status; ``credentials`` None for a client in plain."""
    target = f"localhost:{port}"
    async with (
        aio.insecure_channel(target)
        if credentials is None
        else aio.secure_channel(target, credentials)
    ) as channel:
        try:
            await channel.unary_unary(EXPORT_METHOD)(PAYLOAD, timeout=10)
        except aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    return "OK"


async def ask(port: int, context: ssl.SSLContext | None, request: bytes) -> bytes:
    """What comes back until the end of the connection."""
    reader, writer = await asyncio.open_connection(
        HOST, port, ssl=context, server_hostname="localhost" if context else None
    )
    writer.write(request)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("engine", ENGINES)
async def test_grpc_over_tls(engine):
    async with ENGINES[engine](tls=TLS) as receivers:
        assert await export(receivers.grpc_port, channel_credentials()) == "OK"
        assert receivers.intake.spans == 2


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_that_trusts_somebody_else_does_not_come_in(engine):
    async with ENGINES[engine](tls=TLS) as receivers:
        told = await export(receivers.grpc_port, channel_credentials(trusts=STRANGER))
        assert told.startswith("UNAVAILABLE")
        assert not receivers.intake.spans


@pytest.mark.parametrize("engine", ENGINES)
async def test_mutual_tls_takes_only_clients_with_a_certificate_of_the_authority(engine):
    async with ENGINES[engine](tls=MUTUAL_TLS) as receivers:
        good = channel_credentials(signed_by=AUTHORITY)
        assert await export(receivers.grpc_port, good) == "OK"
        for bad in (channel_credentials(), channel_credentials(signed_by=STRANGER)):
            assert (await export(receivers.grpc_port, bad)).startswith("UNAVAILABLE")
        assert receivers.intake.spans == 2


@pytest.mark.parametrize(
    ("stranger", "why"),
    [(None, "peer did not return a certificate"), (STRANGER, "certificate verify failed")],
)
async def test_mutual_tls_holds_for_http_too_and_the_log_says_why(stranger, why, caplog):
    async with started_door(tls=MUTUAL_TLS) as receivers:
        good, bad = client_context(signed_by=AUTHORITY), client_context(signed_by=stranger)
        assert b" 200 OK" in await ask(receivers.grpc_port, good, POST)
        with contextlib.suppress(ConnectionResetError):
            assert await ask(receivers.grpc_port, bad, POST) == b""
        assert receivers.intake.spans == 2
        (record,) = caplog.records
        assert (record.getMessage(), record.facts["message"]) == ("tls handshake failed", why)


async def test_every_protocol_goes_over_tls():
    """Also what is handed over to the general server, on the same connection as before."""
    async with started_door(tls=TLS) as receivers:
        context = client_context()
        assert b" 200 OK" in await ask(receivers.grpc_port, context, POST)
        both = POST.replace(b"Connection: close\r\n", b"") + GET_READY
        answer = await ask(receivers.grpc_port, context, both)
        assert answer.count(b" 200 OK") == 2
        assert answer.endswith(b"ready")
        async with aio.secure_channel(
            f"localhost:{receivers.grpc_port}", channel_credentials()
        ) as channel:
            assert await channel.unary_unary(CHECK_METHOD)(request_for(""), timeout=9) == SERVING


@pytest.mark.parametrize("offered", [["h2"], ["http/1.1"], ["http/1.1", "h2"], ["spdy/3"], []])
async def test_alpn_agrees_on_what_both_speak(offered):
    async with started_door(tls=TLS) as receivers:
        context = client_context()
        if offered:
            context.set_alpn_protocols(offered)
        _, writer = await asyncio.open_connection(
            HOST, receivers.grpc_port, ssl=context, server_hostname="localhost"
        )
        agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        writer.close()
        await writer.wait_closed()
        assert agreed == next((name for name in ("h2", "http/1.1") if name in offered), None)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(version):
    async with started_door(tls=TLS) as receivers:
        context = client_context()
        context.minimum_version = context.maximum_version = version
        assert b" 200 OK" in await ask(receivers.grpc_port, context, POST)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_older_versions_are_not(caplog):
    async with started_door(tls=TLS) as receivers:
        context = client_context()
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await ask(receivers.grpc_port, context, POST)
        assert caplog.records[0].facts["message"] == "unsupported protocol"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_over_tls(tmp_path):
    root = tmp_path / "root.pem"
    AUTHORITY.cert_pem.write_to_path(str(root))
    async with started_door(tls=TLS) as receivers:
        for version in ("--http1.1", "--http2"):
            process = await asyncio.create_subprocess_exec(
                "curl", "-sS", version, "--cacert", str(root), "-w", "%{http_version} %{http_code}",
                f"https://localhost:{receivers.grpc_port}/ready",
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            said = (await process.communicate())[0].decode()
            if version == "--http1.1":
                assert said == "ready1.1 200"
            else:  # as without TLS: HTTP/2 is for gRPC
                assert said.endswith("2 505")
                assert "HTTP/1.1" in said


# -- clients in plain ------------------------------------------------------------------------------


async def test_a_plain_client_is_told_in_its_own_protocol():
    async with started_door(tls=TLS) as receivers:
        answer = await ask(receivers.grpc_port, None, POST)
        assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        assert b"https://" in answer
        told = await export(receivers.grpc_port, None)
        assert told.startswith("FAILED_PRECONDITION: this port takes TLS only")
        assert receivers.counts() == {"refused_requests/plaintext": 2}
        assert not receivers.intake.spans


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_plain_http2_is_told_too():
    async with started_door(tls=TLS) as receivers:
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--http2-prior-knowledge", "-d", "x", "-w", "%{http_code}",
            f"http://localhost:{receivers.grpc_port}/v1/traces",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        assert said.endswith("426")
        assert "https://" in said


async def test_a_plain_client_of_grpcios_server_is_not_served():
    async with started_receivers(tls=TLS) as receivers:
        assert (await export(receivers.grpc_port, None)).startswith("UNAVAILABLE")
        assert not receivers.intake.spans


async def test_a_large_plain_body_does_not_lose_the_answer():
    async with started_door(tls=TLS) as receivers:
        head = b"POST /v1/traces HTTP/1.1\r\nHost: g\r\nContent-Length: 3000000\r\n\r\n"
        assert b" 426 " in await ask(receivers.grpc_port, None, head + bytes(3_000_000))
        assert receivers.budget.peak == 0


async def test_an_early_answer_over_tls_reaches_a_client_that_is_still_sending():
    async with started_door(tls=TLS, max_request_bytes=1000) as receivers:
        head = (
            POST.partition(b"Content-Length")[0]
            + b"Connection: close\r\nContent-Length: 3000000\r\n\r\n"
        )
        assert b" 413 " in await ask(receivers.grpc_port, client_context(), head + bytes(3_000_000))


# -- clients that do not shake hands --------------------------------------------------------------


def hello() -> bytes:
    """A ClientHello."""
    out = ssl.MemoryBIO()
    client = client_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.parametrize(
    "sent",
    [b"", b"\x16", hello()[:100], hello()],
    ids=["nothing", "a byte", "half a hello", "half a handshake"],
)
async def test_a_handshake_that_does_not_go_on_is_given_up(sent, caplog):
    async with started_door(tls=TLS, timing=QUICK._replace(head_s=0.2)) as receivers:
        reader, writer = await asyncio.open_connection(HOST, receivers.grpc_port)
        writer.write(sent)
        async with asyncio.timeout(5):
            await reader.read()
        writer.close()
        assert "tls handshake failed" in caplog.text


async def test_what_is_no_handshake_is_logged_and_disturbs_nobody(caplog):
    async with started_door(tls=TLS) as receivers:
        answer = await ask(receivers.grpc_port, None, b"\x16\x03\x01\x00\x05hello")
        assert answer[:1] in {b"", b"\x15"}  # an alert, or nothing
        await eventually(lambda: "tls handshake failed" in caplog.text)
        assert await export(receivers.grpc_port, channel_credentials()) == "OK"


async def test_who_looks_whether_the_port_is_open_is_no_news(caplog):
    """As the health check of a load balancer does."""
    caplog.set_level(logging.INFO)
    async with started_door(tls=TLS) as receivers:
        for reset in (False, True):
            with socket.create_connection((HOST, receivers.grpc_port)) as client:
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        assert await export(receivers.grpc_port, channel_credentials()) == "OK"
        assert not [record for record in caplog.records if "handshake" in record.getMessage()]


async def test_of_too_many_that_do_not_shake_hands_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(porch, "LEAST_ENTERING", 3)
    async with started_door(tls=TLS, memory_bytes=MIB) as receivers:
        idle = [await asyncio.open_connection(HOST, receivers.grpc_port) for _ in range(5)]
        assert await export(receivers.grpc_port, channel_credentials()) == "OK"
        async with asyncio.timeout(5):
            assert await idle[0][0].read() == b""
        for _, writer in idle:
            writer.close()


async def test_a_flood_of_handshakes_that_do_not_go_on_keeps_nobody_out(monkeypatch):
    monkeypatch.setattr(porch, "LEAST_ENTERING", 3)
    async with started_door(tls=TLS, memory_bytes=MIB) as receivers:
        flood = [socket.create_connection((HOST, receivers.grpc_port)) for _ in range(50)]
        for client in flood:
            client.send(hello()[:50])
        assert await export(receivers.grpc_port, channel_credentials()) == "OK"
        for client in flood:
            client.close()


def test_how_many_may_shake_hands_goes_by_the_memory():
    counts = [porch.most_entering(mib * MIB) for mib in (1, 100, 4096)]
    assert counts == [64, 290, 1024]


async def test_without_a_file_descriptor_left_it_waits_and_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(porch, "_PAUSE_S", 0.05)
    async with started_door(tls=TLS) as receivers:
        with socket.socket() as client, no_file_descriptors():
            client.connect((HOST, receivers.grpc_port))
            await eventually(lambda: "no connection accepted" in caplog.text)
        assert await export(receivers.grpc_port, channel_credentials()) == "OK"


@contextlib.contextmanager
def no_file_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(hoard) + 20, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                hoard.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for number in hoard:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_the_stop_does_not_wait_for_those_who_have_not_shaken_hands():
    async with started_door(tls=TLS) as receivers:
        idle = [await asyncio.open_connection(HOST, receivers.grpc_port) for _ in range(2)]
        idle[1][1].write(hello()[:50])
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await receivers.grpc.stop(30)
            for reader, writer in idle:
                assert await reader.read() == b""
                writer.close()


async def test_the_stop_ends_connections_over_tls_and_cuts_none():
    async with (
        started_door(tls=TLS, timing=QUICK._replace(linger_s=0.2)) as receivers,
        aio.secure_channel(f"localhost:{receivers.grpc_port}", channel_credentials()) as channel,
    ):
        await channel.unary_unary(EXPORT_METHOD)(PAYLOAD, timeout=10)
        _, idle = await asyncio.open_connection(
            HOST, receivers.grpc_port, ssl=client_context(), server_hostname="localhost"
        )
        async with asyncio.timeout(5):
            assert await receivers.grpc.stop(30) == 0
        idle.close()


async def test_a_port_that_is_taken_is_an_error():
    async with started_door(tls=TLS) as receivers:
        context = await asyncio.to_thread(TLS.server_context)
        with pytest.raises(OSError, match="in use"):
            await receivers.grpc.start(HOST, receivers.grpc_port, tls=context)
