"""What decoding costs: ``python -m benchmarks.decode [--rounds N] [--against DIR]``.

Each row is measured in turn, round after round, so that a busy moment of the machine hits all of
them; the best and the median of the rounds are printed, in microseconds of CPU time.
``official parse`` is protobuf's own C parser on the full OTLP classes, the yardstick of the
machine. ``DIR`` is another checkout of this repository, whose gateway is measured beside this one,
body by body, with the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, repeat
from pathlib import Path
from statistics import median

import zstandard
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from gateway.errors import Refused
from gateway.otlp.decode import Media, decode
from gateway.otlp.encoding import inflate
from gateway.otlp.fields import delimited

NOW_NS = 1_800_000_000 * 10**9
MIB = 2**20
IDS = ("trace_id", "span_id", "parent_span_id")


def attribute(key: str, value: str | int) -> KeyValue:
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))


def realistic(count: int, *, links: bool = False, seed: int = 1, now_ns: int = NOW_NS) -> bytes:
    """Spans of an HTTP server as an SDK sends them, eight to a trace, about 410 bytes each."""
    chance = random.Random(seed)
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    for key in ("service.name", "service.version", "host.name", "telemetry.sdk.language"):
        resource_spans.resource.attributes.append(attribute(key, "checkout"))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "opentelemetry.instrumentation.asgi"
    trace_id = b""
    for index in range(count):
        if index % 8 == 0:
            trace_id = chance.randbytes(16)
        span = scope_spans.spans.add()
        span.trace_id, span.span_id = trace_id, chance.randbytes(8)
        span.parent_span_id = chance.randbytes(8) if index % 8 else b""
        span.name, span.kind, span.flags = "GET /cart/{id}", 2, 0x101
        span.start_time_unix_nano = now_ns - chance.randrange(10**9)
        span.end_time_unix_nano = now_ns
        values: dict[str, str | int] = {
            "http.request.method": "GET",
            "http.route": "/cart/{id}",
            "http.response.status_code": chance.choice((200, 200, 200, 404)),
            "server.address": "shop.example.com",
            "server.port": 8080,
            "url.scheme": "https",
            "url.path": f"/cart/{chance.randrange(10**6)}",
            "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64)",
            "client.address": f"10.1.2.{chance.randrange(255)}",
            "network.protocol.version": "1.1",
        }
        span.attributes.extend(attribute(key, value) for key, value in values.items())
        if index % 16 == 0:
            event = span.events.add(name="exception", time_unix_nano=now_ns)
            event.attributes.append(attribute("exception.type", "ValueError"))
        if links:
            span.links.add(trace_id=chance.randbytes(16), span_id=chance.randbytes(8))
        span.status.code = 1
    return request.SerializeToString()


def as_json(payload: bytes) -> bytes:
    request = ExportTraceServiceRequest.FromString(payload)
    written = json_format.MessageToDict(request, use_integers_for_enums=True)
    for resource_spans in written["resourceSpans"]:
        for scope_spans in resource_spans["scopeSpans"]:
            spans = request.resource_spans[0].scope_spans[0].spans
            for span, source in zip(scope_spans["spans"], spans, strict=True):
                span["traceId"], span["spanId"] = source.trace_id.hex(), source.span_id.hex()
                if source.parent_span_id:
                    span["parentSpanId"] = source.parent_span_id.hex()
    return json.dumps(written, separators=(",", ":")).encode()


Bodies = Iterator[bytes]
Work = Callable[[bytes], object]


def parsing(body: bytes) -> object:
    return ExportTraceServiceRequest.FromString(body)


def decoding(media: Media = Media.PROTOBUF) -> Work:
    return decoder(decode, media)


def decoder(read: Callable[..., object], media: object) -> Work:
    return lambda body: read(body, media, now_ns=NOW_NS, max_spans=8192, max_bytes=3 * MIB)


def json_bodies(spans: int) -> Bodies:
    """Each time another one: of eleven attributes of a span, one is new and one rare."""
    bodies = [
        as_json(realistic(spans, seed=seed)) for seed in range(max(4, min(64, 2048 // spans)))
    ]
    paths = (b'/cart/%07d"' % number for number in count())
    while True:
        for body in bodies:
            yield re.sub(rb'/cart/\d+"', lambda _: next(paths), body)


def inflating(encoding: str) -> Work:
    return lambda body: inflate(body, encoding, max_bytes=64 * MIB)


def rows() -> dict[str, tuple[int, Bodies, Work]]:
    """What is measured, each with its number of spans."""
    found: dict[str, tuple[int, Bodies, Work]] = {}
    for spans in (1, 10, 100, 512):
        body = repeat(realistic(spans))
        found[f"{spans} spans: official parse"] = spans, body, parsing
        found[f"{spans} spans: protobuf"] = spans, body, decoding()
        found[f"{spans} spans: JSON"] = spans, json_bodies(spans), decoding(Media.JSON)
    body = realistic(512)
    bad = body.replace(body[body.index(b"\x0a\x10") :][:18], b"\x0a\x10" + bytes(16), 1)
    zipped = gzip.compress(body), zstandard.compress(body)
    found["512 spans: with links"] = 512, repeat(realistic(512, links=True)), decoding()
    found["512 spans: 8 bad"] = 512, repeat(bad), decoding()
    found["512 spans: inflate gzip"] = 512, repeat(zipped[0]), inflating("gzip")
    found["512 spans: inflate zstd"] = 512, repeat(zipped[1]), inflating("zstd")
    return found


def measure(work: Work, bodies: list[bytes]) -> float:
    """CPU time of one call, which a busy neighbour disturbs less than the clock's."""
    started = time.thread_time_ns()
    for body in bodies:
        work(body)
    return (time.thread_time_ns() - started) / 1000 / len(bodies)


def print_costs(rounds: int) -> None:
    samples: dict[str, list[float]] = {}
    table = rows()
    for _ in range(rounds):
        for name, (spans, bodies, work) in table.items():
            some = [next(bodies) for _ in range(max(1, 256 // spans))]
            samples.setdefault(name, []).append(measure(work, some))
    print(f"{'':32}{'best':>10}{'median':>10}{'best a span':>14}")
    for name, (spans, _, _) in table.items():
        best = min(samples[name])
        print(f"{name:32}{best:10.1f}{median(samples[name]):10.1f}{best / spans:14.2f}")


def other_decode(checkout: Path) -> tuple[Callable[..., object], type[Media]]:
    """The decoder of another checkout, loaded beside the one of this."""
    ours = {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if name.partition(".")[0] in {"gateway", "proto_stubs"}
    }
    sys.path.insert(0, str(checkout))
    try:
        module = importlib.import_module("gateway.otlp.decode")
    finally:
        sys.path.remove(str(checkout))
        sys.modules.update(ours)
    if not Path(str(module.__file__)).is_relative_to(checkout):
        raise SystemExit(f"{checkout} has no gateway/otlp/decode.py")
    return module.decode, module.Media


def print_comparison(rounds: int, checkout: Path) -> None:
    """Both decode each body, in turn first, and must agree."""
    other, other_media = other_decode(checkout)
    print(f"{'':32}{'other':>10}{'this':>10}{'ratio':>10}   medians, ratio of each round")
    for name, media in (("protobuf", Media.PROTOBUF), ("JSON", Media.JSON)):
        works = decoder(other, other_media[media.name]), decoding(media)
        for spans in (1, 10, 100, 512):
            bodies = json_bodies(spans) if media is Media.JSON else repeat(realistic(spans))
            times: list[tuple[float, float]] = []
            for number in range(rounds):
                total = [0.0, 0.0]
                for turn in range(max(4, 512 // spans)):
                    body = next(bodies)
                    first = (number + turn) % 2
                    for index in (first, 1 - first):
                        total[index] += measure(works[index], [body])
                times.append((total[0] / (turn + 1), total[1] / (turn + 1)))
            if works[0](body) != works[1](body):
                raise SystemExit(f"{name}: they do not agree")
            before, now = (median(column) for column in zip(*times, strict=True))
            ratio = median(mine / theirs for theirs, mine in times)
            print(
                f"{f'{spans} spans: {name}':32}{before:10.1f}{now:10.1f}{ratio:10.2f}", flush=True
            )


def nested(depth: int) -> bytes:
    value = b"\x18\x01"
    for _ in range(depth - 1):
        value = delimited(b"\x2a", delimited(b"\x0a", value))
    return delimited(b"\x4a", b"\x0a\x01k" + delimited(b"\x12", value))


def hostile(size: int) -> dict[str, bytes]:
    """Requests of about this size that are made to be expensive."""
    good = b"\x0a\x10" + b"i" * 16 + b"\x12\x08" + b"i" * 8
    good += b"\x39" + b"\x01" * 8 + b"\x41" + b"\x01" * 8
    zero = b"\x0a\x10" + bytes(16) + good[18:]

    def request(*spans: bytes) -> bytes:
        listed = b"".join(delimited(b"\x12", span) for span in spans)
        return delimited(b"\x0a", delimited(b"\x12", listed * (size // len(listed))))

    deep = nested(60)
    return {
        "the smallest valid spans": request(good),
        "the smallest invalid spans": request(zero),
        "empty spans": request(b""),
        "empty resources": b"\x0a\x00" * (size // 2),
        "empty attributes": request(good + b"\x4a\x00" * 1000),
        "empty links": request(good + b"\x6a\x00" * 1000),
        "60 levels, many spans": request(good + deep * 100),
        "60 levels, one span": request(good + deep * (size // len(deep) // 2)),
        "100 000 levels": request(good + nested(100_000)),
    }


def print_hostile(size: int) -> None:
    print(f"\n{size // MIB} MiB made to be expensive")
    for name, body in hostile(size).items():
        started = time.perf_counter()
        try:
            decoding()(body)
            result = "taken"
        except Refused as refused:
            result = f"{refused.cause.name}"
        print(f"{name:32}{time.perf_counter() - started:8.2f} s  {result}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What decoding costs.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout")
    arguments = parser.parse_args()
    if arguments.against is not None:
        print_comparison(arguments.rounds, arguments.against.resolve())
        return
    print_costs(arguments.rounds)
    print_hostile(16 * MIB)


if __name__ == "__main__":
    main()
