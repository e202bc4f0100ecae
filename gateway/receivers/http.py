"""OTLP over HTTP/1.1: aiohttp's server as a thin adapter over ``Ingest``."""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.access.handovers import HEADER as HANDOVER_HEADER
from gateway.errors import Cause, Refused
from gateway.receivers.address import shown
from gateway.receivers.books import Sender
from gateway.receivers.ingest import Exchange, Head, Ingest
from gateway.receivers.replies import Reply

IDLE_TIMEOUT_S = 10.0
"""Longest pause inside a body; SDKs give up on a whole export after 10 s."""
BODY_TIMEOUT_S = 60.0
"""Longest time for a whole body: 64 MiB at 9 Mbit/s."""

_KEEPALIVE_S = 75.0
_LINGERING_S = 30.0


def make_runner(app: web.Application, *, shutdown_timeout_s: float = 1.0) -> web.AppRunner:
    """The server under ``app``, tuned for ``add_routes``:

    - Bodies come as they were sent: aiohttp would inflate them outside of our limits and budget.
    - A handler is cancelled when its client leaves. Exchanges are right either way; the query proxy
      wants it, so that Tempo stops working for nobody.
    - After an early refusal the rest of the body is read and thrown away for up to 30 s, so that
      the client gets to read its answer instead of a connection reset.
    - Idle connections live 75 s: longer than the 60 s of common load balancers, so that they and
      not we end a connection, which they may be about to use.
    - Headers are limited to 128 lines of 8190 bytes each, aiohttp's defaults.

    To stop: ``site.stop()`` for each site, then ``ingest.stop(...)``, then ``runner.cleanup()``.
    The last at once stops reading from all connections, so it must find nothing in hand.
    """
    return web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,
        keepalive_timeout=_KEEPALIVE_S,
        lingering_time=_LINGERING_S,
        shutdown_timeout=shutdown_timeout_s,
    )


def add_routes(
    app: web.Application,
    ingest: Ingest,
    *,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
    body_timeout_s: float = BODY_TIMEOUT_S,
) -> None:
    """Serve everything under ``/v1/``; run ``app`` by ``make_runner``."""
    receiver = _Receiver(ingest, idle_timeout_s, body_timeout_s)
    app.router.add_route("*", "/v1/{path:.*}", receiver.handle, expect_handler=_say_nothing_yet)


async def _say_nothing_yet(_request: web.Request) -> None:
    """Leave ``100 Continue`` until the request is admitted."""


class _Receiver:
    def __init__(self, ingest: Ingest, idle_timeout_s: float, body_timeout_s: float) -> None:
        self._ingest = ingest
        self._idle_timeout_s = idle_timeout_s
        self._body_timeout_s = body_timeout_s

    async def handle(self, request: web.Request) -> web.Response:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def tell(reply: Reply) -> None:
            if not answer.done():  # it is cancelled when the client has left
                answer.set_result(reply)

        exchange = self._ingest.begin(_head(request), tell)
        unasked = answer.done() and _expects_continue(request)
        try:
            if not answer.done():
                await self._feed(request, exchange, answer)
            response = _response(await answer)
        finally:
            exchange.abandon()
        if unasked:  # the client may or may not send its body now, so no other request can follow
            response.force_close()
        return response

    async def _feed(
        self, request: web.Request, exchange: Exchange, answer: asyncio.Future[Reply]
    ) -> None:
        """Feed the body until its end or an early answer."""
        try:
            if _expects_continue(request):
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # the response proper has not begun
            loop = asyncio.get_running_loop()
            latest = loop.time() + self._body_timeout_s
            async with asyncio.timeout_at(latest) as timeout:
                while not answer.done():
                    timeout.reschedule(min(loop.time() + self._idle_timeout_s, latest))
                    data = await request.content.readany()
                    if not data:
                        exchange.end()
                        break
                    exchange.feed(data)
        except TimeoutError:
            exchange.refuse(self._too_slow())
        except (web.RequestPayloadError, HttpProcessingError):
            message = "the body ends too early or its chunks are not framed as HTTP/1.1 asks"
            exchange.refuse(Refused(Cause.MALFORMED, message))

    def _too_slow(self) -> Refused:
        return Refused(
            Cause.SLOW_CLIENT,
            f"the body did not come in time: {self._idle_timeout_s:g} s without a byte or"
            f" {self._body_timeout_s:g} s in all; send smaller batches or compress them",
        )


def _head(request: web.Request) -> Head:
    headers = request.headers
    return Head(
        sender=Sender("http", _peer(request), headers.get("X-Request-ID")),
        method=request.method,
        path=request.path,
        content_type=headers.get("Content-Type"),
        content_encoding=", ".join(headers.getall("Content-Encoding", ())),
        content_length=request.content_length,
        tenants=headers.getall("X-Scope-OrgID", ()),
        authorization=headers.getall("Authorization", ()),
        handover=headers.get(HANDOVER_HEADER, ""),
    )


def _peer(request: web.Request) -> str:
    address = request.transport and request.transport.get_extra_info("peername")
    return shown(address) if address else ""


def _expects_continue(request: web.Request) -> bool:
    expected = request.headers.get("Expect", "").lower() == "100-continue"
    return expected and request.version >= HttpVersion11


def _response(reply: Reply) -> web.Response:
    response = web.Response(status=reply.http_status, headers=reply.http_headers(), body=reply.body)
    if reply.ends_connection:
        response.force_close()
    return response
