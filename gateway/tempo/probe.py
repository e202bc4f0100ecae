"""Asks the query side of somebody else's Tempo whether it is ready."""

from __future__ import annotations

import aiohttp

from gateway.access.outbound import proxy_for, tls_context

TIMEOUT_S = 4.0
_REASON_CHARS = 300


class Probe:
    """One look after the other, on the event loop."""

    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/ready"
        self._proxy = proxy_for(base_url)
        self._tls = tls_context() if base_url.startswith("https:") else True
        self._session: aiohttp.ClientSession | None = None
        self.fault: str | None = None
        """Why it is not ready, empty where it is; None before the first look."""

    async def look(self) -> None:
        """Ask ``/ready``. Never raises for what it finds.

        An answer of 4xx does for ready: a service in front of Tempo may not have that page, or not
        for us, and does answer.
        """
        session = self._session = self._session or self._open()
        try:
            async with session.get(self._url, proxy=self._proxy, allow_redirects=False) as answer:
                text = (await answer.content.read(_REASON_CHARS)).decode(errors="replace").strip()
        except TimeoutError:
            self.fault = f"TEMPO_QUERY_URL does not answer in {TIMEOUT_S:g} s"
        except (aiohttp.ClientError, OSError) as error:
            self.fault = f"TEMPO_QUERY_URL does not answer: {str(error)[:_REASON_CHARS]}"
        else:
            is_fine = answer.status < 500
            self.fault = "" if is_fine else f"TEMPO_QUERY_URL says {answer.status}: {text}"

    async def close(self) -> None:
        """Safe before the first look, and twice."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )
