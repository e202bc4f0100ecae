"""What is sent: requests of several sizes in every form that OTLP has."""

from __future__ import annotations

import gzip
import random
import re
import time
from itertools import product
from typing import NamedTuple

from benchmarks import decode

MARKER = b"user_agent.original"
"""Once in every span, and nowhere else: how spans are counted."""
SIZES = (1, 10, 100, 512)
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_VARIED_SPANS = 20_480
"""Of all bodies of a JSON case together, each with a path of its own: more than the gateway's table
of known attributes holds, so that of ten attributes one is always new to it, as in real life."""


class Case(NamedTuple):
    """One kind of request."""

    form: str
    """``gRPC``, ``HTTP protobuf`` or ``HTTP JSON``."""
    gzip: bool
    spans: int

    @property
    def title(self) -> str:
        return self.form + (", gzip" if self.gzip else "")

    @property
    def name(self) -> str:
        return f"{self.title}, {self.spans}"

    @property
    def path(self) -> str:
        return EXPORT if self.form == "gRPC" else "/v1/traces"

    @property
    def headers(self) -> dict[str, str]:
        if self.form == "gRPC":
            encoding = {"grpc-encoding": "gzip"} if self.gzip else {}
            return {"content-type": "application/grpc", "te": "trailers", **encoding}
        kind = "json" if self.form == "HTTP JSON" else "x-protobuf"
        encoding = {"content-encoding": "gzip"} if self.gzip else {}
        return {"content-type": f"application/{kind}", **encoding}


FORMS = ("gRPC", "HTTP protobuf", "HTTP JSON")
CASES = [Case(*each) for each in product(FORMS, (False, True), SIZES)]


def bodies(case: Case) -> list[bytes]:
    """What the case's requests carry: JSON varies, protobuf need not since nothing of it is
    remembered from one request to the next.
    """
    request = realistic(case.spans)
    if case.form == "HTTP JSON":
        plain = _varied(decode.as_json(request), _VARIED_SPANS // case.spans)
    else:
        plain = [request]
    sent = [gzip.compress(body) for body in plain] if case.gzip else plain
    return [_framed(body, case) for body in sent] if case.form == "gRPC" else sent


def realistic(spans: int) -> bytes:
    """Spans of now, since those of the distant future are refused."""
    return decode.realistic(spans, now_ns=time.time_ns())


def _framed(message: bytes, case: Case) -> bytes:
    return bytes([case.gzip]) + len(message).to_bytes(4, "big") + message


def _varied(body: bytes, count: int) -> list[bytes]:
    chance = random.Random(2)

    def another(_match: re.Match[bytes]) -> bytes:
        return b'/cart/%d"' % chance.randrange(10**6)

    return [re.sub(rb"/cart/\d+\"", another, body) for _ in range(count)]
