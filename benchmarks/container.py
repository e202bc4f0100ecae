"""Do the gateway and Tempo fit in a small container? Memory of both under load and queries.

    TEMPO_BIN=bin/tempo python -m benchmarks.container [--minutes 10] [--json FILE]

A gateway that was told of a container's memory runs Tempo as its child. Spans come at a fixed rate
in requests of 50, traces of ten spans; meanwhile searches, reads by id, tags and TraceQL metrics
are asked in turn, one each second. Once a second the memory of both is looked at, and what was sent
must be there in the end: no restart, nothing refused, dropped or discarded.

Two figures: resident memory as the kernel counts it for each process, and the anonymous part of it.
A container is charged for the latter, and for pages of files as long as nobody else needs them; so
the first is more than it takes to be killed, the second less.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from tests.kit.gateway import RunningGateway, eventually, running_gateway
from tests.kit.spans import attribute, make_request, make_span

MIB = 2**20
SPANS, TRACES = 50, 5
"""Of a request."""
FRESH_S = 5.0
"""After which the times in the requests are set anew."""
_SETTLE_S = 300.0
"""Most after the last request, for all of it to be delivered and certain."""
_MEMORY = re.compile(r"^(Rss\w+):\s+(\d+) kB", re.MULTILINE)


class Sample(NamedTuple):
    """Bytes at one moment."""

    gateway: int
    gateway_anonymous: int
    tempo: int
    tempo_anonymous: int

    @property
    def both(self) -> int:
        return self.gateway + self.tempo

    @property
    def both_anonymous(self) -> int:
        return self.gateway_anonymous + self.tempo_anonymous


class Load:
    """Sends at a fixed rate; what could not be sent in time is not made up for."""

    def __init__(self, gateway: RunningGateway, spans_per_s: float) -> None:
        self._address = ("127.0.0.1", gateway.http_port)
        self._interval_s = SPANS / spans_per_s
        self._marks = [f"TRACE-{n:02}".encode() for n in range(TRACES)]
        self._made_at = 0.0
        self.sent = 0
        self.answers: Counter[str] = Counter()
        self.trace_ids: list[bytes] = []
        """One of each request."""

    def run(self, stop: threading.Event) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        for moment in itertools.count(time.monotonic(), self._interval_s):
            if stop.wait(max(0.0, moment - time.monotonic())):
                break
            body = self._body()
            connection.request(
                "POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"}
            )
            with connection.getresponse() as answer:
                self.answers[f"{answer.status} {answer.read()!r}"] += 1
            self.sent += SPANS
        connection.close()

    def _body(self) -> bytes:
        if time.monotonic() - self._made_at > FRESH_S:
            self._made_at, self._template = time.monotonic(), self._make_template()
        body = self._template
        for mark in self._marks:
            tail = os.urandom(8)
            body = body.replace(mark, tail)
        self.trace_ids.append(_HEAD + tail)
        return body

    def _make_template(self) -> bytes:
        """Each trace id ends with a mark that stands for random bytes."""
        spans = [
            make_span(
                f"operation {n % 17}",
                trace_id=_HEAD + self._marks[n % TRACES],
                attributes=[
                    attribute("http.request.method", "GET"),
                    attribute("http.route", f"/api/{n % 13}/items/{{id}}"),
                    attribute("http.response.status_code", 500 if n % 25 == 0 else 200),
                    attribute("server.address", f"host-{n % 7}.example.com"),
                    attribute("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) Firefox/1"),
                    attribute("db.query.text", f"SELECT * FROM items WHERE id = {n} AND x > 7"),
                    attribute("thread.id", n),
                    attribute("queue.wait_ms", n / 7),
                ],
            )
            for n in range(SPANS)
        ]
        return make_request(*spans, service="shop").SerializeToString()


_HEAD = os.urandom(8)


class Queries:
    """What people with Grafana ask, one a second."""

    def __init__(self, gateway: RunningGateway, load: Load) -> None:
        self._gateway = gateway
        self._load = load
        self.answers: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        for number in itertools.count():
            if stop.wait(1.0):
                break
            name, path = self._path(number)
            try:
                status: object = self._gateway.get(path)[0]
            except OSError as error:
                status = type(error).__name__
            self.answers[f"{name}: {status}"] += 1

    def _path(self, number: int) -> tuple[str, str]:
        now = int(time.time())
        window = {"start": now - 600, "end": now}
        match number % 6:
            case 0:
                q = "{ resource.service.name = `shop` && span.http.response.status_code = 500 }"
                return "search", _with("/api/search", q=q, limit=20, **window)
            case 1:
                q = "{ span.db.query.text =~ `.*id = 4.*` } && { duration > 10ms }"
                return "search by pattern", _with("/api/search", q=q, limit=100, **window)
            case 2:
                return "tags", _with("/api/v2/search/tags", **window)
            case 3:
                return "tag values", _with("/api/v2/search/tag/span.http.route/values", **window)
            case 4:
                q = "{ } | rate() by (span.http.route)"
                return "metrics", _with("/api/metrics/query_range", q=q, step="10s", **window)
            case _:
                sent = self._load.trace_ids
                return "by id", f"/api/traces/{sent[-min(len(sent), 400)].hex()}"


def _with(path: str, **parameters: object) -> str:
    return f"{path}?{urllib.parse.urlencode(parameters)}"


def sample(gateway: RunningGateway, tempo_pid: int) -> Sample:
    return Sample(*_memory(gateway.process.pid), *_memory(tempo_pid))


def _memory(pid: int) -> tuple[int, int]:
    """Resident and anonymous bytes."""
    found = dict(_MEMORY.findall(Path(f"/proc/{pid}/status").read_text()))
    return sum(map(int, found.values())) * 1024, int(found["RssAnon"]) * 1024


def tempo_pid(gateway: RunningGateway) -> int:
    (pid,) = subprocess.run(
        ["pgrep", "-P", str(gateway.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    return int(pid)


def measure(chosen: argparse.Namespace, directory: Path) -> dict[str, Any]:
    env = {
        "TEMPO_MODE": "managed",
        "TEMPO_BIN": os.environ["TEMPO_BIN"],
        "CONTAINER_MEMORY": str(chosen.container_mib * MIB),
    }
    with running_gateway(directory, env | dict(chosen.env)) as gateway:
        gateway.wait_until_ready()
        child, stop = tempo_pid(gateway), threading.Event()
        idle = sample(gateway, child)
        load = Load(gateway, chosen.spans_per_s)
        queries = Queries(gateway, load)
        threads = [threading.Thread(target=part.run, args=(stop,)) for part in (load, queries)]
        for thread in threads:
            thread.start()
        samples, began = [], time.monotonic()
        try:
            while time.monotonic() < began + chosen.minutes * 60:
                time.sleep(1.0)
                samples.append(sample(gateway, child))
                if len(samples) % 30 == 0:
                    _say(time.monotonic() - began, samples[-1], load)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        eventually(
            lambda: "gateway_pending_spans 0.0" in gateway.get("/metrics")[1], timeout_s=_SETTLE_S
        )
        status = json.loads(gateway.get("/gateway/status")[1])
        code = gateway.stop()
    return {
        "idle": idle._asdict(),
        "samples": [one._asdict() for one in samples],
        "sent_spans": load.sent,
        "seconds": round(time.monotonic() - began),
        "answers": dict(load.answers),
        "queries": dict(sorted(queries.answers.items())),
        "status": status,
        "exit_code": code,
    }


def _say(seconds: float, one: Sample, load: Load) -> None:
    print(
        f"{seconds:5.0f} s  gateway {one.gateway / MIB:.0f}  Tempo {one.tempo / MIB:.0f}"
        f"  both {one.both / MIB:.0f} MiB (anonymous {one.both_anonymous / MIB:.0f})"
        f"  {load.sent} spans",
        file=sys.stderr,
    )


def table(found: dict[str, Any]) -> str:
    samples = [Sample(**one) for one in found["samples"]]
    idle = Sample(**found["idle"])
    rows = [("MiB", "idle", "median", "highest"), ("---",) * 4]
    for name in (*Sample._fields, "both", "both_anonymous"):
        values = [getattr(one, name) for one in samples]
        shown = (getattr(idle, name), statistics.median(values), max(values))
        rows.append((name.replace("_", ", "), *(f"{value / MIB:.0f}" for value in shown)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def faults(found: dict[str, Any]) -> list[str]:
    """What must not be in a run whose figures count."""
    status, sent = found["status"], found["sent_spans"]
    wrong = [answer for answer in found["answers"] if not answer.startswith("200 b''")]
    told = {
        "answers to spans": wrong,
        "restarts of Tempo": status["backend"]["restarts"],
        "spans discarded by Tempo": status["backend"]["discarded_spans"],
        "spans dropped": status["spans"]["dropped"],
        "spans missing": sent - status["spans"]["delivered"],
        "exit code": found["exit_code"],
    }
    return [f"{name}: {value}" for name, value in told.items() if value]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.container",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--spans-per-s", type=float, default=2000.0)
    parser.add_argument("--container-mib", type=int, default=512)
    parser.add_argument("--env", type=_pair, action="append", default=[], help="of the gateway")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if "TEMPO_BIN" not in os.environ:
        parser.error("set TEMPO_BIN")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the gateway is ended
    with tempfile.TemporaryDirectory(prefix="container-") as name:
        found = measure(chosen, Path(name))
    print(f"{table(found)}\n\n{found['sent_spans']} spans in {found['seconds']} s; queries:")
    for answer, count in found["queries"].items():
        print(f"  {answer}: {count}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))
    if wrong := faults(found):
        raise SystemExit("these figures do not count: " + "; ".join(wrong))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("write NAME=VALUE")
    return name, value


if __name__ == "__main__":
    main()
