"""The backend as the query side sees it."""

from __future__ import annotations

from typing import Protocol

import aiohttp


class Upstream(Protocol):
    """Where the backend's HTTP API is at this moment; read anew for each request."""

    mode: str
    """Such as ``managed``: whose it is, and who has configured it."""

    @property
    def base_url(self) -> str | None:
        """Such as ``http://127.0.0.1:3201``, with user and password where it wants them; None
        while there is nobody to ask.
        """

    @property
    def streaming_url(self) -> str | None:
        """The same for its streamed queries, which most backends have on the same port."""

    @property
    def state(self) -> str:
        """One word such as ``starting``, for programs."""

    @property
    def reason(self) -> str:
        """For people: why the backend is not there, as far as it is known; may be empty."""

    default_tenant: str
    """Whose traces a query is about that names no tenant; empty where the backend needs none."""


def open_session(*, connect_timeout_s: float) -> aiohttp.ClientSession:
    """An HTTP client that adds nothing of its own to a request or an answer.

    It keeps no cookies, which would carry one client's into another's request, and leaves bodies
    encoded. The caller bounds how many requests are under way and how long each takes.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
    )
