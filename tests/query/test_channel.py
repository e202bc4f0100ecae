from __future__ import annotations

import asyncio
import base64

import grpc
import pytest

from gateway.access.outbound import trusted_roots
from gateway.errors import GrpcCode
from gateway.query.channel import Channel, Ended, LostError, Target
from tests.kit.authority import ROOT, identity_of
from tests.query.scripted_grpc import GrpcBackend, grpc_server


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:3200", Target("127.0.0.1:3200", None, False, None)),
        ("http://localhost:3200/", Target("localhost:3200", None, False, None)),
        ("http://tempo/prefix", Target("tempo:80", None, False, None)),
        ("https://tempo", Target("tempo:443", None, True, None)),
        ("http://[2001:db8::1]:3200", Target("[2001:db8::1]:3200", None, False, None)),
    ],
)
def test_the_target_is_host_and_port_of_the_url_as_it_is_for_grafana(url, expected):
    assert Target.of(url) == expected


@pytest.mark.parametrize(
    ("user", "expected"),
    [("me:secret", b"me:secret"), ("me", b"me:"), ("m%3Ae:%C3%BC", b"m:e:\xc3\xbc")],
)
def test_user_and_password_of_the_url_are_shown_to_the_backend(user, expected):
    authorization = Target.of(f"https://{user}@tempo").authorization
    assert authorization == f"Basic {base64.b64encode(expected).decode()}"


async def test_by_tls_only_to_whom_is_trusted():
    server = identity_of("localhost")
    await asyncio.to_thread(trusted_roots)  # reads a file, and remembers it
    credentials = grpc.ssl_server_credentials([(server.key, server.chain)])
    backend = GrpcBackend()
    async with grpc_server(backend, credentials) as port:
        target = Target.of(f"https://localhost:{port}")
        trusting = Channel(target, max_message_bytes=100, root_certificates=ROOT)
        answer = trusting.ask("/a.B/C", b"", metadata=())
        assert await answer.read() == b"fine"
        assert await answer.read() == Ended(GrpcCode.OK)
        await trusting.close()
        doubting = Channel(target, max_message_bytes=100)
        with pytest.raises(LostError):
            await doubting.ask("/a.B/C", b"", metadata=()).read()
        await doubting.close()
    assert len(backend.calls) == 1


async def test_a_backend_may_say_itself_that_it_is_unavailable():
    async def script(_request, context):
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no querier is connected")

    async with grpc_server(GrpcBackend(script)) as port:
        channel = Channel(Target.of(f"http://127.0.0.1:{port}"), max_message_bytes=100)
        answer = channel.ask("/a.B/C", b"", metadata=())
        assert await answer.read() == Ended(GrpcCode.UNAVAILABLE, "no querier is connected")
        await channel.close()


async def test_a_long_message_is_cut():
    async def script(_request, context):
        await context.abort(grpc.StatusCode.INTERNAL, "x" * 3000)

    async with grpc_server(GrpcBackend(script)) as port:
        channel = Channel(Target.of(f"http://127.0.0.1:{port}"), max_message_bytes=100)
        ended = await channel.ask("/a.B/C", b"", metadata=()).read()
        assert ended == Ended(GrpcCode.INTERNAL, "x" * 2000)
        await channel.close()
