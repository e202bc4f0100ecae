"""The backend as a worker has it: a child of the parent's, of which the parent tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gateway.envelope import Fate, Outcome
from gateway.errors import GrpcCode
from gateway.tempo.children import ChildBackend, ChildExporter
from gateway.tempo.client import OtlpExporter
from gateway.tempo.discards import NONE_DISCARDED
from gateway.tempo.outcomes import NAMES
from gateway.tempo.ports import Ports
from gateway.tempo.states import State
from gateway.tempo.window import Window
from gateway.workers.link import Link, Unanswered

DELIVERED_TIMEOUT_S = 5.0

_UNCERTAIN = Outcome(
    Fate.RETRY, NAMES[GrpcCode.UNAVAILABLE], "the parent process did not answer after a delivery"
)


class Terms(NamedTuple):
    """What does not change while the backend is the same; ``*Terms`` is what travels."""

    mode: str
    hold_s: float
    max_message_bytes: int
    default_tenant: str
    window_bytes: int | None
    """This worker's part; None for no window."""
    window_hold_s: float
    stop_s: float
    """Longest time that the end of all takes."""


class Facts(NamedTuple):
    """The backend as of now; ``*Facts`` is what travels."""

    state: str
    reason: str
    generation: int
    restarts: int
    alive_s: float
    base_url: str | None
    streaming_url: str | None
    ports: Sequence[int]


def terms_of(backend: ChildBackend, count: int, stop_s: float) -> Terms:
    """For each of ``count`` workers."""
    window = backend.window
    return Terms(
        backend.mode,
        backend.hold_s,
        backend.max_message_bytes,
        backend.default_tenant,
        window.limit // count if window else None,
        window.hold_s if window else 0.0,
        stop_s,
    )


def facts_of(backend: ChildBackend) -> Facts:
    return Facts(
        backend.state,
        backend.reason,
        backend.generation,
        backend.restarts,
        backend.alive_s(),
        backend.base_url,
        backend.streaming_url,
        backend.ports,
    )


class ParentsBackend:
    """A ``Backend``, and the ``Life`` that its exporter asks."""

    usage = None  # the parent tells of it
    discarded = NONE_DISCARDED

    def __init__(self, link: Link, terms: Terms, facts: Facts) -> None:
        self.mode = terms.mode
        self.hold_s = terms.hold_s
        self.max_message_bytes = terms.max_message_bytes
        self.default_tenant = terms.default_tenant
        self._stop_s = terms.stop_s
        self._flushed: bool | None = None
        self._link = link
        self._facts = facts
        self._changed: Callable[[], None] = lambda: None
        window = None
        if terms.window_bytes is not None:
            window = Window(terms.window_bytes, terms.window_hold_s)
        self.exporter: OtlpExporter = _Announcing(
            ChildExporter(_Life(self), window, default_tenant=terms.default_tenant), link
        )
        link.hear("backend", self._heard)

    def _heard(self, value: list[Any]) -> None:
        before, self._facts = self._facts, Facts(*value)
        if (before.state, before.reason) != (self._facts.state, self._facts.reason):
            self._changed()

    @property
    def base_url(self) -> str | None:
        return self._facts.base_url

    @property
    def streaming_url(self) -> str | None:
        return self._facts.streaming_url

    @property
    def state(self) -> str:
        return self._facts.state

    @property
    def reason(self) -> str:
        return self._facts.reason

    @property
    def generation(self) -> int:
        return self._facts.generation

    @property
    def restarts(self) -> int:
        return self._facts.restarts

    @property
    def ports(self) -> Ports:
        return Ports(*self._facts.ports)

    def alive_s(self) -> float:
        return self._facts.alive_s

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        changed()

    async def stop(self, timeout_s: float) -> bool:
        """The parent answers when all workers have delivered what they could and the backend has
        ended. It is the parent who keeps to the time.
        """
        await self.exporter.close()
        if self._flushed is None:
            try:
                within_s = max(timeout_s, self._stop_s)
                self._flushed = await self._link.ask("drained", timeout_s=within_s)
            except Unanswered:
                self._flushed = False
        return self._flushed is True


class _Life:
    """What the exporter has to know, with the state as it knows it."""

    def __init__(self, backend: ParentsBackend) -> None:
        self._backend = backend

    @property
    def ports(self) -> Ports:
        return self._backend.ports

    @property
    def state(self) -> State:
        return State(self._backend.state)

    @property
    def generation(self) -> int:
        return self._backend.generation

    def alive_s(self) -> float:
        return self._backend.alive_s()


class _Announcing:
    """Tells the parent of each OK before it counts.

    The parent has to know, since it watches what the backend does with what it was given; and its
    answer brings the backend's clock as it stands after the OK, however long ago this worker has
    heard of it. A clock that is behind would have the OK certain too early.
    """

    def __init__(self, exporter: ChildExporter, link: Link) -> None:
        self._exporter = exporter
        self._link = link

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        outcome = await self._exporter.export(tenant, payload, timeout_s=timeout_s)
        if outcome.fate is Fate.DELIVERED:
            try:
                await self._link.ask("delivered", timeout_s=DELIVERED_TIMEOUT_S)
            except Unanswered:
                return _UNCERTAIN  # a duplicate, if anything
        return outcome

    async def close(self) -> None:
        await self._exporter.close()
