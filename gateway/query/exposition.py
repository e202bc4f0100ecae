"""``GET /metrics``: the backend's metrics and the gateway's own as one Prometheus exposition.

Always text format 0.0.4, which every Prometheus takes. The gateway's own part is there whatever
the backend does. Tempo keeps its names (``process_*``, ``go_*``), which its dashboards ask for;
the gateway's are ``gateway_*`` (``gateway_process_*`` for its process) and ``python_*``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import NamedTuple

import aiohttp
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.access.outbound import proxy_for
from gateway.query.backend import Upstream, open_session
from gateway.query.families import Malformed, merge
from gateway.query.headers import takes_gzip
from gateway.telemetry.logs import Throttle, facts
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ASK = {"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "identity"}


Families = Callable[[], Awaitable[Iterable[Metric]]]
"""The gateway's own part as of now, of all its processes."""


class Limits(NamedTuple):
    """Bounds on one read-out; Prometheus itself waits for 10 s unless told otherwise."""

    timeout_s: float = 3.0
    max_bytes: int = 8 * 2**20
    """Of the backend's part. Tempo's is about 0.2 MB."""
    concurrent: int = 4
    """Read-outs at once; the next is told to come back."""


_DEFAULT = Limits()


class _Missing(Exception):  # noqa: N818 - an outcome of a read-out, not a fault of the program
    """The backend's part cannot be had; ``reason`` is a metric label, from this module only."""

    def __init__(self, reason: str, detail: str, *, is_down: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.is_down = is_down
        """True where the backend did not answer at all, whatever the answer would have been."""


class _Snapshot(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Exposition:
    """Both sides' metrics, read when somebody asks."""

    def __init__(
        self, upstream: Upstream, metrics: Metrics, families: Families, limits: Limits
    ) -> None:
        self._upstream = upstream
        self._failures = metrics.backend_scrape_failures
        self._families = families
        self._limits = limits
        self._in_flight = 0
        self._throttle = Throttle()
        self._session: aiohttp.ClientSession

    async def life(self, _app: web.Application) -> AsyncIterator[None]:
        """Keeps the connection to the backend while the application runs (``cleanup_ctx``)."""
        async with open_session(connect_timeout_s=self._limits.timeout_s) as session:
            self._session = session
            yield

    async def handle(self, request: web.Request) -> web.Response:
        if self._in_flight >= self._limits.concurrent:
            text = "too many read-outs at once\n"
            return web.Response(status=503, text=text, headers={"Retry-After": "1"})
        self._in_flight += 1
        try:
            body = await self._read_out()
        finally:
            self._in_flight -= 1
        fields = {"Content-Type": CONTENT_TYPE, "Vary": "Accept-Encoding"}
        response = web.Response(body=body, headers=fields)
        if takes_gzip(",".join(request.headers.getall("Accept-Encoding", ()))):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def _read_out(self) -> bytes:
        try:
            theirs = await self._theirs()
            # In a thread: 7 ms for 0.2 MB of Tempo's, and another backend may have more to say.
            return await asyncio.to_thread(merge, await self._own(), theirs)
        except Malformed as error:
            missing = _Missing("malformed", str(error))
        except _Missing as error:
            missing = error
        self._note(missing)
        return await self._own(is_down=missing.is_down)

    async def _own(self, *, is_down: bool = False) -> bytes:
        families = await self._families()
        if is_down:  # whatever its owner knows so far
            families = map(_zero_backend_up, families)
        return generate_latest(_Snapshot(families))

    async def _theirs(self) -> bytes:
        """The backend's exposition, empty where it has no address. Raises _Missing."""
        if (base := self._upstream.base_url) is None:
            return b""
        try:
            async with (
                asyncio.timeout(self._limits.timeout_s),
                self._session.get(
                    f"{base.rstrip('/')}/metrics", headers=_ASK, proxy=proxy_for(base)
                ) as answer,
            ):
                _check(answer)
                return await _read(answer.content, self._limits.max_bytes)
        except TimeoutError:
            detail = f"no whole answer within {self._limits.timeout_s:g} s"
            raise _Missing("slow", detail, is_down=True) from None
        except aiohttp.ClientConnectionError as error:
            raise _Missing("unreachable", str(error) or repr(error), is_down=True) from None
        except aiohttp.ClientError as error:
            raise _Missing("broken", repr(error)) from None

    def _note(self, missing: _Missing) -> None:
        self._failures.series(missing.reason).value += 1
        if (quiet := self._throttle.ready(missing.reason)) is not None:
            logger.warning(
                "backend metrics missing",
                extra=facts(reason=missing.reason, why=str(missing), quiet=quiet),
            )


def _zero_backend_up(metric: Metric) -> Metric:
    if metric.name != "gateway_backend_up":
        return metric
    zeroed = Metric(metric.name, metric.documentation, metric.type)
    zeroed.add_sample(metric.name, {}, 0)
    return zeroed


def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status != 200:
        raise _Missing("status", f"HTTP {answer.status}")
    if answer.content_type != "text/plain" or "Content-Encoding" in answer.headers:
        raise _Missing("media_type", answer.headers.get("Content-Type", "none"))


async def _read(stream: aiohttp.StreamReader, max_bytes: int) -> bytes:
    body = bytearray()
    while piece := await stream.readany():
        body += piece
        if len(body) > max_bytes:
            raise _Missing("too_large", f"more than {max_bytes} bytes")
    return bytes(body)


def add_routes(
    app: web.Application,
    upstream: Upstream,
    metrics: Metrics,
    families: Families,
    *,
    limits: Limits = _DEFAULT,
) -> None:
    """Answer ``GET /metrics`` with ``families``; ``metrics`` is where failures are counted."""
    exposition = Exposition(upstream, metrics, families, limits)
    app.cleanup_ctx.append(exposition.life)
    app.router.add_get("/metrics", exposition.handle)
