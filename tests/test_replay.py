from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from gateway.credentials import Token
from gateway.pipeline.dead_letters import DeadLetterFolder
from gateway.replay import Replayed, replay
from tests.kit.spans import make_payload


class Server:
    """Keeps what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, str | None]] = []
        self.authorizations: list[str | None] = []
        self.answers: list[tuple[int, bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((await request.read(), request.headers.get("X-Scope-OrgID")))
        self.authorizations.append(request.headers.get("Authorization"))
        status, body = self.answers.pop(0) if self.answers else (200, b"")
        return web.Response(status=status, body=body)


@pytest.fixture
async def gateway():
    server, app = Server(), web.Application()
    app.router.add_post("/v1/traces", server.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    yield server
    await runner.cleanup()


async def letters(directory, *payloads: bytes, tenant: str = "") -> None:
    folder = DeadLetterFolder(directory, max_bytes=10**6)
    for payload in payloads:
        await folder.keep(tenant, payload, spans=1, reason="INVALID_ARGUMENT: no")


async def test_what_is_taken_is_sent_with_its_tenant_and_deleted(tmp_path, gateway):
    first, second = make_payload(), make_payload()
    await letters(tmp_path, first, second, tenant="acme")
    assert await asyncio.to_thread(replay, tmp_path, gateway.url, print) == Replayed(
        sent=2, failed=0
    )
    assert gateway.got == [(first, "acme"), (second, "acme")]
    assert list(tmp_path.iterdir()) == []


async def test_without_a_tenant_no_tenant_is_named(tmp_path, gateway):
    await letters(tmp_path, make_payload())
    await asyncio.to_thread(replay, tmp_path, gateway.url, print)
    assert gateway.got[0][1] is None


async def test_the_token_of_the_tenant_goes_with_it(tmp_path, gateway):
    tokens = [Token("of-nobody-0123"), Token("of-acme-0123", "acme")]
    for tenant in ("", "acme", "other"):
        await letters(tmp_path, make_payload(), tenant=tenant)
    assert await asyncio.to_thread(replay, tmp_path, gateway.url, print, tokens) == (3, 0)
    shown = {
        tenant: token
        for (_, tenant), token in zip(gateway.got, gateway.authorizations, strict=True)
    }
    assert shown == {
        None: "Bearer of-nobody-0123",
        "acme": "Bearer of-acme-0123",
        "other": "Bearer of-nobody-0123",
    }


@pytest.mark.parametrize("answer", [(503, b""), (200, b"\x0a\x04\x08\x01\x12\x00")])
async def test_what_is_refused_stays_and_the_next_is_sent(tmp_path, gateway, answer):
    await letters(tmp_path, make_payload(), make_payload())
    gateway.answers.append(answer)
    said: list[str] = []
    assert await asyncio.to_thread(replay, tmp_path, gateway.url, said.append) == Replayed(
        sent=1, failed=1
    )
    assert len(said) == 1
    assert len(list(tmp_path.glob("*.otlp"))) == 1


async def test_nobody_there_is_a_failure_in_words(tmp_path):
    await letters(tmp_path, make_payload())
    said: list[str] = []
    outcome = await asyncio.to_thread(replay, tmp_path, "http://127.0.0.1:9/v1/traces", said.append)
    assert outcome == Replayed(sent=0, failed=1)
    assert "does not answer" in said[0]


async def test_a_letter_whose_reason_is_gone_is_not_sent_to_the_wrong_tenant(tmp_path, gateway):
    await letters(tmp_path, make_payload(), tenant="acme")
    next(tmp_path.glob("*.json")).write_text(json.dumps({}))
    outcome = await asyncio.to_thread(replay, tmp_path, gateway.url, print)
    assert outcome == Replayed(sent=0, failed=1)
    assert gateway.got == []
