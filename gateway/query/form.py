"""Reads the parameters of a query that came by POST."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.query.failure import Failure

MEDIA_TYPE = "application/x-www-form-urlencoded"


async def read_form(request: web.Request, *, max_bytes: int, deadline: float) -> str:
    """The form as it was encoded, undecodable bytes as surrogates. ``deadline`` is of the loop's
    clock. Raises Failure for what is no form, too large or too late.
    """
    if not request.body_exists:
        return ""
    if request.content_type != MEDIA_TYPE or "Content-Encoding" in request.headers:
        raise Failure(415, "unsupported body", f"send a form, not compressed, as {MEDIA_TYPE}")
    try:
        async with asyncio.timeout_at(deadline):
            body = await _read(request, max_bytes)
    except TimeoutError:
        raise Failure(408, "slow request", "the form did not arrive in time") from None
    return body.strip().decode("utf-8", "surrogateescape")


async def _read(request: web.Request, max_bytes: int) -> bytes:
    body = bytearray()
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > max_bytes:
            raise Failure(413, "query too large", f"a form has at most {max_bytes} bytes")
    return bytes(body)
