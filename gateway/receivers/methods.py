"""gRPC methods other than Export: handlers on serialized messages, the same behind both engines.

Each takes one message and answers with as many as it likes. Status codes are numbers, so that no
gRPC library has to be loaded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

MAX_REQUEST_BYTES = 2**20
"""Of a request to a handler, also after decompression: a query, the name of a service."""

FAILED = "the gateway failed; the reason is in its log"
"""What a client is told of a handler that raised."""

Metadata: TypeAlias = Sequence[tuple[str, str]]
Trailers: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Metadata that follows the answer: bytes where the name ends in ``-bin``."""


class Aborted(Exception):  # noqa: N818 - an outcome, not a fault
    """A handler raises it to end its call with this status."""

    def __init__(self, code: int, message: str, trailers: Trailers = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trailers = trailers


class Context(Protocol):
    """What a handler may ask and do."""

    trailers: Trailers
    """For the handler to set: what follows an answer that ends well."""

    peer: str
    """Address and port of the client."""

    @property
    def metadata(self) -> Metadata:
        """What the client has sent beside its message, but for binary values."""

    def time_remaining(self) -> float | None:
        """Seconds to the client's deadline; None where it has set none."""

    async def write(self, message: bytes) -> None:
        """Send a message. Returns when nearly all of it is on its way, so that a handler is as
        fast as its client.
        """


Handler: TypeAlias = Callable[[bytes, Context], Awaitable[None]]
"""Answers a request by ``Context.write``. It is cancelled when the client leaves or its deadline
has passed.
"""


def unary(method: Callable[[bytes, Context], Awaitable[bytes]]) -> Handler:
    """A method with one answer."""

    async def handler(request: bytes, context: Context) -> None:
        await context.write(await method(request, context))

    return handler


class Answers(Protocol):
    """Somebody who answers calls of some paths, and gives back how each ended: its code, a message
    and what follows it.
    """

    async def answer(
        self,
        path: str,
        message: bytes,
        *,
        metadata: Metadata,
        peer: str,
        timeout_s: float | None,
        write: Callable[[bytes], Awaitable[None]],
    ) -> tuple[int, str, Trailers]: ...


def passed_on(path: str, answers: Answers) -> Handler:
    """A method that somebody else answers."""

    async def handler(request: bytes, context: Context) -> None:
        code, message, trailers = await answers.answer(
            path,
            request,
            metadata=context.metadata,
            peer=context.peer,
            timeout_s=context.time_remaining(),
            write=context.write,
        )
        if code:
            raise Aborted(code, message, trailers)
        context.trailers = trailers

    return handler
