"""Tokens in front of what takes spans, on both engines, by real clients over real sockets."""

from __future__ import annotations

import asyncio
import re

import grpc
import pytest
from grpc import aio

from gateway.access.tokens import Gates
from gateway.credentials import Token
from gateway.receivers.headers import EXPORT_METHOD
from gateway.receivers.health import CHECK_METHOD, SERVING, request_for
from tests.kit.receivers import HOST, started_receivers
from tests.kit.spans import make_payload
from tests.receivers.frontdoor.doors import started_door

ENGINES = {"libraries": started_receivers, "front door": started_door}
OF_NOBODY, OF_A, OF_ASKING = "of-nobody-0123", "of-tenant-a-0123", "of-asking-0123"
GATE = Gates.of(ingest=[Token(OF_NOBODY), Token(OF_A, "a")], query=[Token(OF_ASKING)]).ingest
PAYLOAD = make_payload(2)

CASES = {
    "none": ([], 401),
    "wrong": (["Bearer of-nobody-0124"], 401),
    "near": (["Bearer of-nobody-012"], 401),
    "long": (["Bearer " + "x" * 2000], 401),
    "not ASCII": (["Bearer öf-nobody-0123"], 401),
    "two": ([f"Bearer {OF_NOBODY}", f"Bearer {OF_A}"], 401),
    "of the other side": ([f"Bearer {OF_ASKING}"], 403),
    "of nobody": ([f"Bearer {OF_NOBODY}"], 200),
    "of a": ([f"Bearer {OF_A}"], 200),
}
REASONS = {401: "unauthenticated", 403: "forbidden"}
CODES = {401: "16", 403: "7", 200: "0"}


async def post(port: int, authorization: list[str], *more: str, body: bytes = PAYLOAD) -> bytes:
    """What comes back for a POST to ``/v1/traces`` on a connection of its own."""
    reader, writer = await asyncio.open_connection(HOST, port)
    lines = [
        "POST /v1/traces HTTP/1.1",
        "Host: gateway",
        "Content-Type: application/x-protobuf",
        *(f"Authorization: {value}" for value in authorization),
        *more,
    ]
    if not any(line.lower().startswith("content-length") for line in more):
        lines.append(f"Content-Length: {len(body)}")
    lines.append("Connection: close")
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def export(port: int, authorization: list[str], *more: tuple[str, str]) -> str:
    """The status code of an Export by grpcio's client."""
    metadata = [*(("authorization", value) for value in authorization), *more]
    async with aio.insecure_channel(f"{HOST}:{port}") as channel:
        try:
            await channel.unary_unary(EXPORT_METHOD)(PAYLOAD, metadata=metadata, timeout=10)
        except aio.AioRpcError as error:
            return str(error.code().value[0])
    return "0"


@pytest.mark.parametrize("engine", ENGINES)
async def test_http_takes_spans_only_with_a_token_for_them(engine):
    async with ENGINES[engine](gate=GATE) as receivers:
        for name, (authorization, status) in CASES.items():
            answer = await post(receivers.http_port, authorization)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), name
            assert (b"\r\nWWW-Authenticate: Bearer realm=" in answer) == (status == 401), name
        assert receivers.counts() == {
            "received_spans/http/protobuf": 4,
            "accepted_spans": 4,
            "refused_requests/unauthenticated": 6,
            "refused_requests/forbidden": 1,
        }
        assert [envelope.tenant for envelope in receivers.intake.taken] == ["", "a"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_grpc_takes_spans_only_with_a_token_for_them(engine):
    async with ENGINES[engine](gate=GATE) as receivers:
        for name, (authorization, status) in CASES.items():
            if name != "not ASCII":  # grpcio's client does not send it
                assert await export(receivers.grpc_port, authorization) == CODES[status], name
        assert receivers.counts() == {
            "received_spans/grpc/protobuf": 4,
            "accepted_spans": 4,
            "refused_requests/unauthenticated": 5,
            "refused_requests/forbidden": 1,
        }
        assert [envelope.tenant for envelope in receivers.intake.taken] == ["", "a"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_tenant_is_the_tokens_and_else_what_the_client_says(engine):
    async with ENGINES[engine](gate=GATE) as receivers:
        for token in (OF_A, OF_NOBODY):
            authorization = [f"Bearer {token}"]
            for tenant in ("b", "a"):
                await post(receivers.http_port, authorization, f"X-Scope-OrgID: {tenant}")
                await export(receivers.grpc_port, authorization, ("x-scope-orgid", tenant))
            await post(receivers.http_port, authorization, "X-Scope-OrgID: a|b")
        assert [envelope.tenant for envelope in receivers.intake.taken] == [
            *("a",) * 5,
            *("b", "b", "a", "a"),
        ]
        assert receivers.counts()["refused_requests/malformed"] == 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_body_is_neither_awaited_nor_held_without_a_token(engine):
    async with ENGINES[engine](gate=GATE) as receivers:
        for length in (
            "Content-Length: 4000000",
            "Transfer-Encoding: chunked\r\nContent-Length-: ",
        ):
            reader, writer = await asyncio.open_connection(HOST, receivers.http_port)
            head = f"POST /v1/traces HTTP/1.1\r\nHost: gateway\r\n{length}\r\n\r\n"
            writer.write(head.encode())
            async with asyncio.timeout(5):
                assert b" 401 " in await reader.readline()
            writer.close()
        assert receivers.budget.peak == 0


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_call_is_refused_before_its_message_has_come(engine):
    async with (
        ENGINES[engine](gate=GATE) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        with pytest.raises(aio.AioRpcError) as caught:
            await channel.unary_unary(EXPORT_METHOD)(bytes(3_000_000), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "there is none" in caught.value.details()
        assert receivers.budget.peak == 0


@pytest.mark.parametrize("engine", ENGINES)
async def test_health_is_open(engine):
    async with (
        ENGINES[engine](gate=GATE) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        assert await channel.unary_unary(CHECK_METHOD)(request_for(""), timeout=10) == SERVING


@pytest.mark.parametrize("engine", ENGINES)
async def test_one_connection_can_bring_several_tokens(engine):
    """The front door remembers what it made of a header block; it is that block's alone."""
    async with (
        ENGINES[engine](gate=GATE) as receivers,
        aio.insecure_channel(receivers.grpc_target) as channel,
    ):
        call = channel.unary_unary(EXPORT_METHOD)
        seen = []
        for token in (OF_A, OF_NOBODY, "unknown-0123", OF_A, OF_NOBODY, "unknown-0123") * 2:
            try:
                await call(PAYLOAD, metadata=[("authorization", f"Bearer {token}")], timeout=10)
            except aio.AioRpcError as error:
                seen.append(error.code().name)
            else:
                seen.append(receivers.intake.taken[-1].tenant)
        assert seen == ["a", "", "UNAUTHENTICATED"] * 4


@pytest.mark.parametrize("engine", ENGINES)
async def test_one_http_connection_can_bring_several_tokens(engine):
    """The front door remembers the last head; it is that head's alone."""
    tokens = (OF_A, OF_A, OF_NOBODY, "unknown-0123", OF_A, OF_A[:-1] + "x", OF_NOBODY, OF_NOBODY)
    async with ENGINES[engine](gate=GATE) as receivers:
        reader, writer = await asyncio.open_connection(HOST, receivers.http_port)
        seen = []
        for token in tokens:
            writer.write(
                b"POST /v1/traces HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer %s\r\n"
                b"Content-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n%s"
                % (token.encode(), len(PAYLOAD), PAYLOAD)
            )
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"(?i)content-length: (\d+)", head)
                await reader.readexactly(int(size[1]) if size else 0)
            accepted = head.startswith(b"HTTP/1.1 200 ")
            seen.append(receivers.intake.taken[-1].tenant if accepted else head[9:12])
        writer.close()
        assert seen == ["a", "a", "", b"401", "a", b"401", "", ""]


async def test_the_two_engines_say_the_same():
    answers = []
    for started in ENGINES.values():
        async with started(gate=GATE) as receivers:
            told = []
            for authorization, _ in CASES.values():
                answer = await post(receivers.http_port, authorization)
                told.append((answer[:12], answer.partition(b"\r\n\r\n")[2]))
            answers.append(told)
    assert answers[0] == answers[1]
