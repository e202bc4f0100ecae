"""Load that is meant to exhaust memory: the budget holds, nothing dies, and others are served."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import resource
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import grpc
import h2.config
import h2.connection
import pytest

from tests.faults.gateways import BASE_BYTES, MIB, external_env, memory_of, wait_until_quiet
from tests.faults.ledger import ledger_client
from tests.faults.sizes import MARKS, SIZE
from tests.kit.gateway import RunningGateway
from tests.kit.sink import EXPORT
from tests.kit.spans import attribute, make_request, make_span

pytestmark = MARKS

AT_ONCE = 5
PROTOBUF, JSON = "application/x-protobuf", "application/json"


# -- large requests ------------------------------------------------------------------------------


def large_spans(size: int) -> bytes:
    one = make_request(make_span(attributes=[attribute("text", "x" * 100_000)]))
    return repeat(one.SerializeToString(), size)


def small_spans(size: int) -> bytes:
    """As small as valid ones get, so that there are as many as possible."""
    span = make_span("", kind=0, attributes=[])
    return repeat(make_request(*[span] * 1000).SerializeToString(), size)


def empty_messages(size: int) -> bytes:
    return repeat(b"\n\0", size)


def empty_objects(size: int) -> bytes:
    return b'{"resourceSpans":[%s{}]}' % repeat(b"{},", size - 22)


def repeat(data: bytes, size: int) -> bytes:
    return data * (size // len(data))


class Request:
    """``answers`` are those that are right; with others at once, so is to be put off."""

    def __init__(self, body: bytes, media: str, answers: set[str]) -> None:
        self.body = body
        self.zipped = gzip.compress(body, 1)
        self.media = media
        self.answers = answers


LATER = {"503 with a hint", "UNAVAILABLE with a hint"}
TAKEN, MALFORMED, TOO_LARGE = (
    {"200", "OK"},
    {"400", "INVALID_ARGUMENT"},
    {"413", "RESOURCE_EXHAUSTED"},
)


def requests_for(memory_bytes: int) -> list[Request]:
    """Those that fit alone, as large as they may be, and one that never does."""
    fits = (
        memory_bytes * 3 // 4 // 3 * 9 // 10
    )  # the share of requests, thrice their size, less some
    return [
        Request(large_spans(64 * MIB - 2**17), PROTOBUF, TOO_LARGE),
        Request(large_spans(fits), PROTOBUF, TAKEN),
        Request(small_spans(fits), PROTOBUF, TAKEN),
        Request(empty_messages(fits), PROTOBUF, MALFORMED),
        Request(empty_objects(fits), JSON, TOO_LARGE),
    ]


def over_http(gateway: RunningGateway, request: Request, *, zipped: bool) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.http_port, timeout=60)
    headers = {"Content-Type": request.media} | ({"Content-Encoding": "gzip"} if zipped else {})
    body = request.zipped if zipped else request.body
    with contextlib.closing(connection):
        connection.request("POST", "/v1/traces", body, headers)
        answer = connection.getresponse()
        answer.read()
        hint = " with a hint" if "Retry-After" in answer.headers else ""
        return f"{answer.status}{hint}"


def over_grpc(gateway: RunningGateway, request: Request, *, zipped: bool) -> str:
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    compression = grpc.Compression.Gzip if zipped else None
    with grpc.insecure_channel(gateway.grpc_address, options) as channel:
        try:
            channel.unary_unary(EXPORT)(request.body, timeout=60, compression=compression)
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
            hint = " with a hint" if b"RetryInfo" in details else ""
            return f"{error.code().name}{hint}"
        return "OK"


class _Hollow(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda _body, _context: b"")


@pytest.fixture
def hollow_backend() -> Iterator[str]:
    """Says OK to everything and looks at nothing, so that it is never what holds up the load."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, [_Hollow()], options=options)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.mark.parametrize("memory_mib", SIZE.memory_mib)
def test_large_requests(gateways, report, hollow_backend, memory_mib):
    """In a row and at once, over both transports, compressed and not."""
    env = external_env(hollow_backend) | {"GATEWAY_MEMORY_BYTES": f"{memory_mib}MiB"}
    gateway = gateways(env).start()
    told: Counter[str] = Counter()
    for request in requests_for(memory_mib * MIB):
        for send in (over_http, over_grpc)[: 2 if request.media == PROTOBUF else 1]:
            for zipped in (False, True):
                one = partial(send, gateway, request, zipped=zipped)
                told += flood(one, request.answers)
                wait_until_quiet(gateway, SIZE.drain_s)  # the next shall find room in the spool
    peak = memory_of(gateway).peak
    report(**told, peak_mib=peak // MIB, budget_mib=memory_mib)
    assert told.keys() > LATER  # or it was too little
    assert peak <= memory_mib * MIB + BASE_BYTES
    assert gateway.stop() == 0


def flood(send: Callable[[], str], answers: set[str]) -> Counter[str]:
    """First one after the other, then several at a time; of the former none is put off."""
    alone = Counter(send() for _ in range(SIZE.large_requests))
    assert answers >= alone.keys()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        together = Counter(pool.map(lambda _: send(), range(AT_ONCE * SIZE.large_requests)))
    assert answers | LATER >= together.keys()
    return alone + together


# -- slow connections ----------------------------------------------------------------------------

CONNECTIONS = 1000
ANNOUNCED_BYTES = 12 * MIB
"""By each: four of them announce as much as all requests together may take."""


class Slow(NamedTuple):
    """What a connection sends at first, and then every now and then."""

    first: bytes
    then: bytes


def slow_http() -> Slow:
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n"
    return Slow(f"{head}Content-Length: {ANNOUNCED_BYTES}\r\n\r\n\n".encode(), b"x")


def slow_grpc() -> Slow:
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    head = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": EXPORT}
    head |= {"content-type": "application/grpc", "te": "trailers"}
    peer.send_headers(1, list(head.items()))
    peer.send_data(1, b"\0" + ANNOUNCED_BYTES.to_bytes(4, "big") + b"\n")
    first = peer.data_to_send()
    peer.send_data(1, b"x")
    return Slow(first, peer.data_to_send())


class SlowClients:
    """Many connections that each begin a large request, and send a byte twice a second."""

    def __init__(self, port: int, slow: Slow) -> None:
        self._slow = slow
        self._sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        for sock in self._sockets:
            sock.sendall(slow.first)
            sock.setblocking(False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._dribble)
        self._thread.start()

    def _dribble(self) -> None:
        while not self._stop.wait(0.5):
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.send(self._slow.then)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CONNECTIONS:
        pytest.skip("this machine lets a process have too few connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CONNECTIONS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("slow", "port"), [(slow_http, "http_port"), (slow_grpc, "grpc_port")], ids=["http", "grpc"]
)
def test_slow_connections_that_announce_large_bodies(
    gateways, report, stack, many_files, slow, port
):
    memory_bytes = 4 * ANNOUNCED_BYTES * 4 // 3  # of which three quarters are for requests
    env = {"TEMPO_MODE": "embedded", "GATEWAY_MEMORY_BYTES": str(memory_bytes)}
    gateway = gateways(env).start()
    gateway.wait_until_ready()
    slow_clients = SlowClients(getattr(gateway, port), slow())
    stack.callback(slow_clients.stop)
    with ledger_client(gateway) as client:
        client.wait_for_more(SIZE.slow_spans)
        ledger = client.finish()
    peak = memory_of(gateway).peak
    wait_until_quiet(gateway)
    report(
        connections=CONNECTIONS,
        acknowledged=ledger.counts.acknowledged,
        refused_requests=ledger.counts.refused,
        peak_mib=peak // MIB,
        budget_mib=memory_bytes // MIB,
    )
    assert ledger.counts.refused == 0
    assert peak <= memory_bytes + BASE_BYTES
