"""What a client is told, as JSON, where there is no answer of the backend's to pass on."""

from __future__ import annotations

from aiohttp import web


class Failure(Exception):  # noqa: N818 - an answer that travels, not a fault of the program
    """A query that the backend did not answer. The texts are meant for the client."""

    def __init__(
        self,
        status: int,
        error: str,
        reason: str,
        *,
        retry_after_s: int | None = None,
        allow: tuple[str, ...] = (),
    ) -> None:
        super().__init__(f"{error}: {reason}")
        self.status = status
        self.error = error
        self.reason = reason
        self.retry_after_s = retry_after_s
        """Set where the same query can succeed later."""
        self.allow = allow
        """Methods that the path takes; set with 405."""

    def response(self, backend_state: str) -> web.Response:
        """``error`` names the kind, ``reason`` says what is wrong, ``backend`` is its state."""
        body = {"error": self.error, "reason": self.reason, "backend": backend_state}
        response = web.json_response(body, status=self.status)
        if self.retry_after_s is not None:
            response.headers["Retry-After"] = str(self.retry_after_s)
        if self.allow:
            response.headers["Allow"] = ", ".join(self.allow)
        return response


def not_listed() -> Failure:
    reason = "the gateway passes on only the read paths of Tempo's query API"
    return Failure(404, "not found", reason)


def two_tenants(reason: str) -> Failure:
    return Failure(400, "bad request", reason)


def wrong_method(allow: tuple[str, ...]) -> Failure:
    return Failure(405, "method not allowed", f"ask with {' or '.join(allow)}", allow=allow)


def busy(in_flight: int) -> Failure:
    reason = f"{in_flight} queries are under way; ask again in a moment"
    return Failure(503, "too many queries at once", reason, retry_after_s=1)


def unavailable(reason: str) -> Failure:
    return Failure(503, "the backend is not available", reason, retry_after_s=5)


def broken() -> Failure:
    reason = "it ended the connection, or sent what is no HTTP, before its answer began"
    return Failure(502, "the backend failed", reason)


def slow(waited_s: float) -> Failure:
    reason = (
        f"no answer within {waited_s:g} s; a shorter time range, a narrower query or a smaller"
        " limit asks less of it"
    )
    return Failure(504, "the backend is slow", reason)


def cut() -> Failure:
    return Failure(502, "the backend failed", "it ended the connection in the middle of its answer")
