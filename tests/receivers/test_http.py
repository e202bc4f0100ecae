"""OTLP over HTTP, by real clients over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import sys
import zlib
from contextlib import asynccontextmanager

import aiohttp
import pytest
import zstandard
from aiohttp import web
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from gateway.errors import Cause, Refused
from gateway.receivers.http import add_routes
from tests.kit.receivers import HOST, MIB, eventually, started_receivers
from tests.kit.spans import make_payload, make_request, make_span

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
SUCCESS = ExportTraceServiceResponse()


def json_body(*spans):
    """The official JSON example's shape."""
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]
                    },
                    "scopeSpans": [{"scope": {"name": "tests"}, "spans": list(spans)}],
                }
            ]
        }
    ).encode()


def json_span(**fields):
    return {
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "EEE19B7EC3C1B174",
        "name": "checkout",
        "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": "1544712661000000000",
        "kind": 2,
        **fields,
    }


ENCODINGS = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


class TestHandover:
    """What a gateway that stops sends, marked as such."""

    MARK = PROTOBUF | {"X-Gateway-Handover": "some-id"}

    async def test_its_spans_count_as_recovered_since_they_were_accepted_before(
        self, receivers, client
    ):
        bad = make_span(trace_id=bytes(16))
        body = make_request(make_span(), bad).SerializeToString()
        async with client.post(receivers.url + "/v1/traces", data=body, headers=self.MARK) as r:
            answer = ExportTraceServiceResponse.FromString(await r.read())
        assert answer.partial_success.rejected_spans == 1
        assert receivers.intake.spans == 1
        counts = receivers.counts()
        assert counts["recovered_spans"] == 1
        assert counts["received_spans/http/protobuf"] == 1  # the bad one
        assert "accepted_spans" not in counts
        assert receivers.metrics.imbalance()[0] == 0

    async def test_what_comes_again_is_taken_once(self, receivers, client):
        for _ in range(2):
            async with client.post(
                receivers.url + "/v1/traces", data=make_payload(3), headers=self.MARK
            ) as r:
                assert r.status == 200
        assert receivers.intake.spans == 3
        assert receivers.counts()["recovered_spans"] == 3
        assert receivers.budget.used == 0

    async def test_what_was_refused_is_taken_when_it_comes_again(self, receivers, client):
        receivers.intake.refusals.append(Refused(Cause.SPOOL_FULL, "full", retry_after_s=1.0))
        statuses = []
        for _ in range(2):
            async with client.post(
                receivers.url + "/v1/traces", data=make_payload(3), headers=self.MARK
            ) as r:
                statuses.append(r.status)
        assert statuses == [503, 200]
        assert receivers.intake.spans == 3


@pytest.fixture
async def client():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def receivers():
    async with started_receivers() as started:
        yield started


async def post(client, receivers, body, headers=PROTOBUF, path="/v1/traces", **options):
    """(status, headers, body) of one request."""
    url = receivers.url + path
    async with client.post(url, data=body, headers=headers, **options) as answer:
        return answer.status, answer.headers, await answer.read()


def status_of(headers, body):
    """The google.rpc.Status of a failure, in the form that the headers say."""
    if headers["Content-Type"] == "application/json":
        told = json.loads(body)
        return told["code"], told["message"]
    assert headers["Content-Type"] == "application/x-protobuf"
    status = Status.FromString(body)
    return status.code, status.message


# -- success -------------------------------------------------------------------------------------


async def test_takes_protobuf_as_it_came(receivers, client):
    payload = make_payload(3)
    status, headers, body = await post(client, receivers, payload)
    assert (status, headers["Content-Type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(body) == SUCCESS
    (envelope,) = receivers.intake.taken
    assert (envelope.payload, envelope.spans, envelope.tenant) == (payload, 3, "")
    assert receivers.counts() == {"received_spans/http/protobuf": 3, "accepted_spans": 3}


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
async def test_takes_json_and_answers_in_json(receivers, client, content_type):
    status, headers, body = await post(
        client, receivers, json_body(json_span()), {"Content-Type": content_type}
    )
    assert (status, headers["Content-Type"], json.loads(body)) == (200, "application/json", {})
    request = ExportTraceServiceRequest.FromString(receivers.intake.payload)
    assert request.resource_spans[0].scope_spans[0].spans[0].name == "checkout"
    assert receivers.counts() == {"received_spans/http/json": 1, "accepted_spans": 1}


async def test_counts_json_values_it_repaired(receivers, client):
    span = json_span(traceId="W47/95gDgQPSabYzgT/GDA==")
    status, _, _ = await post(client, receivers, json_body(span), JSON)
    assert status == 200
    assert receivers.metrics.repaired_values.total() == 1


async def test_takes_a_trailing_slash(receivers, client):
    status, _, _ = await post(client, receivers, make_payload(), path="/v1/traces/")
    assert (status, receivers.intake.spans) == (200, 1)


@pytest.mark.parametrize(
    ("headers", "body", "answer"),
    [(PROTOBUF, b"", b""), (JSON, b"{}", b"{}"), (JSON, b'{"resourceSpans":[]}', b"{}")],
)
async def test_an_empty_request_succeeds(receivers, client, headers, body, answer):
    assert (await post(client, receivers, body, headers))[::2] == (200, answer)
    assert receivers.intake.taken == []
    assert receivers.counts() == {}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_takes_each_content_encoding(receivers, client, encoding, chunked):
    payload = make_payload(50)
    body = ENCODINGS[encoding](payload)
    headers = PROTOBUF | {"Content-Encoding": encoding}

    async def pieces():
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    # as an iterable the body is sent as it is: else the client would compress it once more
    sent = pieces()
    headers |= {} if chunked else {"Content-Length": str(len(body))}
    status, _, answer = await post(client, receivers, sent, headers)
    assert (status, answer) == (200, b"")
    assert receivers.intake.payload == payload


async def test_many_requests_on_one_connection(receivers, client):
    for _ in range(3):
        assert (await post(client, receivers, make_payload()))[0] == 200
    assert receivers.intake.spans == 3


async def test_splits_what_is_larger_than_a_batch(client):
    async with started_receivers(batch_spans=10) as receivers:
        assert (await post(client, receivers, make_payload(25)))[0] == 200
        sizes = [envelope.spans for envelope in receivers.intake.taken]
        assert (max(sizes), sum(sizes)) == (10, 25)


# -- partial success -----------------------------------------------------------------------------


async def test_bad_spans_are_told_by_partial_success(receivers, client):
    bad = make_span("lost", trace_id=bytes(16))
    body = make_request(make_span(), bad, make_span()).SerializeToString()
    status, _, answer = await post(client, receivers, body)
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (status, partial.rejected_spans) == (200, 1)
    assert "trace_id_zero" in partial.error_message
    assert receivers.counts() == {
        "received_spans/http/protobuf": 3,
        "accepted_spans": 2,
        "rejected_spans/trace_id_zero": 1,
    }


async def test_a_request_of_bad_spans_only_is_a_partial_success(receivers, client):
    body = json_body(json_span(spanId="0" * 16), json_span(startTimeUnixNano="0"))
    status, _, answer = await post(client, receivers, body, JSON)
    assert (status, json.loads(answer)["partialSuccess"]["rejectedSpans"]) == (200, "2")
    assert receivers.intake.taken == []
    assert receivers.counts() == {
        "received_spans/http/json": 2,
        "rejected_spans/span_id_zero": 1,
        "rejected_spans/start_zero": 1,
    }


# -- refusals by the head ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_405_with_allow(receivers, client, method):
    async with client.request(method, receivers.url + "/v1/traces") as answer:
        body = await answer.read()
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    if method != "HEAD":
        code, message = status_of(answer.headers, body)
        assert (code, answer.content_type) == (12, "application/json")
        assert "POST" in message
    assert receivers.counts() == {"refused_requests/method": 1}


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/grpc"])
async def test_another_content_type_is_415_and_told_what_is_taken(receivers, client, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    options = {"skip_auto_headers": ["Content-Type"]}
    status, headers, body = await post(client, receivers, make_payload(), headers, **options)
    assert (status, headers["Content-Type"]) == (415, "application/json")
    assert headers["Accept"] == "application/x-protobuf, application/json"
    assert "application/x-protobuf or application/json" in status_of(headers, body)[1]
    assert receivers.counts() == {"refused_requests/content_type": 1}


@pytest.mark.parametrize(
    "encoding", ["br", "gzip, gzip", "gzip\r\nContent-Encoding: gzip", "snappy"]
)
async def test_another_content_encoding_is_415_and_told_what_is_taken(receivers, encoding):
    head = f"Content-Type: application/x-protobuf\r\nContent-Encoding: {encoding}\r\n"
    async with raw_connection(receivers) as (reader, writer):
        writer.write(raw_request(b"x", head))
        status, headers, body = await raw_answer(reader)
    assert (status, headers["accept-encoding"]) == (415, "identity, gzip, deflate, zstd")
    assert Status.FromString(body).code == 12
    assert receivers.counts() == {"refused_requests/content_encoding": 1}


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/logs", "/v1/", "/v1/traces/x"])
@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
async def test_other_signals_are_404_with_a_status_that_says_traces_only(
    receivers, client, path, headers
):
    status, answered, body = await post(client, receivers, b"", headers, path=path)
    assert (status, answered["Content-Type"]) == (404, headers["Content-Type"])
    assert "traces only" in status_of(answered, body)[1]
    assert receivers.counts() == {"refused_requests/not_found": 1}


async def test_passes_on_the_tenant(receivers, client):
    headers = PROTOBUF | {"X-Scope-OrgID": "team-7"}
    assert (await post(client, receivers, make_payload(), headers))[0] == 200
    assert receivers.intake.taken[0].tenant == "team-7"


async def test_a_refusal_is_logged_with_who_sent_it(receivers, client, caplog):
    headers = PROTOBUF | {"X-Request-ID": "router-7"}
    await post(client, receivers, b"\xff", headers)
    (record,) = [record for record in caplog.records if record.msg == "otlp rejected"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", record.facts["peer"])
    assert (record.facts["transport"], record.facts["request_id"]) == ("http", "router-7")


@pytest.mark.parametrize("tenants", [["a/b"], [".."], ["a", "b"], ["x" * 151]])
async def test_a_bad_tenant_is_400_and_told_the_rule(receivers, client, tenants):
    headers = [*PROTOBUF.items(), *(("X-Scope-OrgID", tenant) for tenant in tenants)]
    status, answered, body = await post(client, receivers, make_payload(), headers)
    assert status == 400
    assert "X-Scope-OrgID" in status_of(answered, body)[1]
    assert receivers.counts() == {"refused_requests/malformed": 1}


# -- refusals by the body ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (PROTOBUF, b"\xff\xff\xff"),
        (PROTOBUF, make_payload()[:-1]),
        (JSON, b"{"),
        (JSON, b"[]"),
        (PROTOBUF, json_body(json_span())),
        (JSON, make_payload()),
        (PROTOBUF | {"Content-Encoding": "gzip"}, make_payload()),
        (PROTOBUF | {"Content-Encoding": "gzip"}, gzip.compress(make_payload())[:-9]),
        (PROTOBUF | {"Content-Encoding": "zstd"}, b"\x28\xb5\x2f\xfd\xff"),
    ],
)
async def test_what_cannot_be_decoded_is_400(receivers, body, headers):
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    async with raw_connection(receivers) as (reader, writer):
        writer.write(raw_request(body, head))
        status, answered, answer = await raw_answer(reader)
    assert (status, answered["content-type"]) == (400, headers["Content-Type"])
    assert receivers.counts() == {"refused_requests/malformed": 1}
    if headers is JSON:
        assert json.loads(answer)["code"] == 3
    else:
        assert Status.FromString(answer).code == 3


async def test_values_nested_too_deep_are_400(receivers, client):
    value = '{"arrayValue":{"values":[' * 100 + '{"intValue":1}' + "]}}" * 100
    span = json_span(attributes=[{"key": "deep", "value": json.loads(value)}])
    status, headers, body = await post(client, receivers, json_body(span), JSON)
    assert (status, status_of(headers, body)[0]) == (400, 3)
    assert receivers.counts() == {"refused_requests/too_deep": 1}


# -- limits --------------------------------------------------------------------------------------

LIMIT = 64 * 1024


def payload_of(size):
    """A valid request of one span with exactly ``size`` bytes."""
    padding = size
    while True:
        body = make_request(make_span("x" * padding)).SerializeToString()
        if len(body) == size:
            return body
        padding -= len(body) - size


@pytest.fixture
async def limited():
    async with started_receivers(max_request_bytes=LIMIT) as started:
        yield started


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_of_just_the_limit_is_taken(limited, encoding, chunked):
    assert (await send_encoded(limited, payload_of(LIMIT), encoding, chunked=chunked))[0] == 200
    assert limited.intake.spans == 1


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_just_over_the_limit_is_413_and_told_the_setting(
    limited, encoding, chunked
):
    status, headers, body = await send_encoded(
        limited, payload_of(LIMIT + 1), encoding, chunked=chunked
    )
    assert (status, headers["content-type"]) == (413, "application/x-protobuf")
    told = Status.FromString(body)
    assert (told.code, list(told.details)) == (8, [])
    assert f"{LIMIT} bytes (GATEWAY_MAX_REQUEST_BYTES)" in told.message
    assert limited.counts() == {"refused_requests/too_large": 1}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
async def test_a_bomb_is_413_before_it_takes_memory(limited, encoding):
    bomb = ENCODINGS[encoding](bytes(50 * MIB))
    status, _, _ = await send_encoded(limited, bomb, encoding, compress=False)
    assert status == 413
    assert limited.budget.peak < 4 * LIMIT


@pytest.mark.parametrize("size", [2 * MIB, 40 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_sends_a_large_body_before_it_reads_sees_the_413(
    limited, size, chunked
):
    async with raw_connection(limited) as (reader, writer):
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        writer.write(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            + framing
            + b"\r\n\r\n"
        )
        for _ in range(size // MIB):
            writer.write(b"%x\r\n%s\r\n" % (MIB, bytes(MIB)) if chunked else bytes(MIB))
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        assert (await raw_answer(reader))[0] == 413
        # and the connection goes on
        writer.write(raw_request(make_payload()))
        assert (await raw_answer(reader))[0] == 200
    assert limited.budget.peak <= 4 * LIMIT


async def test_a_full_budget_is_503_with_a_delay_and_passes(receivers, client):
    filler = receivers.budget.limit - 1000
    assert receivers.budget.try_reserve(filler)
    status, headers, body = await post(client, receivers, make_payload(20))
    assert (status, headers["Retry-After"]) == (503, "1")
    told = Status.FromString(body)
    info = RetryInfo()
    assert told.details[0].Unpack(info)
    assert (told.code, info.retry_delay.ToTimedelta().total_seconds()) == (14, 1.0)
    assert "GATEWAY_MEMORY_BYTES" in told.message
    receivers.budget.release(filler)
    assert (await post(client, receivers, make_payload(20)))[0] == 200
    assert receivers.counts()["refused_requests/memory_full"] == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_that_never_fits_the_budget_is_413_and_told_the_setting(chunked):
    async with started_receivers(memory_bytes=MIB, max_request_bytes=8 * MIB) as receivers:
        body = payload_of(MIB)
        status, _, answer = await send_encoded(receivers, body, "identity", chunked=chunked)
        assert status == 413
        assert "GATEWAY_MEMORY_BYTES" in Status.FromString(answer).message


async def test_a_body_that_is_announced_counts_only_as_it_comes(receivers):
    """Or few clients that announce much and send little would keep out all others."""
    async with raw_connection(receivers) as (_, writer):
        writer.write(raw_request(bytes(1000), length=MIB))
        await eventually(lambda: receivers.budget.used == 1000)
    await eventually(lambda: receivers.budget.used == 0)
    assert receivers.counts() == {}


async def test_a_body_that_finds_no_room_is_503_before_it_is_sent(receivers):
    filler = receivers.budget.limit - MIB + 1
    receivers.budget.try_reserve(filler)
    async with raw_connection(receivers) as (reader, writer):
        writer.write(raw_request(b"", length=MIB))
        assert (await raw_answer(reader))[0] == 503
    receivers.budget.release(filler)


async def test_counts_chunks_against_the_budget_as_they_come(receivers):
    async with raw_connection(receivers) as (_, writer):
        head = "Content-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n"
        writer.write(raw_request(b"", head, length=None))
        for size in (1000, 2000, 3000):
            writer.write(b"3e8\r\n%s\r\n" % bytes(1000))
            await eventually(lambda size=size: receivers.budget.used == size)
    await eventually(lambda: receivers.budget.used == 0)


async def test_counts_what_it_inflates_against_the_budget_once_it_is_whole(receivers):
    body = gzip.compress(make_payload(2000))
    async with raw_connection(receivers) as (reader, writer):
        head = "Content-Type: application/x-protobuf\r\nContent-Encoding: gzip\r\n"
        writer.write(raw_request(body[:-8], head, length=len(body)))
        await eventually(lambda: receivers.budget.used == len(body) - 8)
        writer.write(body[-8:])
        assert (await raw_answer(reader))[0] == 200
    assert receivers.budget.peak > len(make_payload(2000))


async def test_a_budget_that_fills_while_a_body_comes_in_is_503(receivers):
    async with raw_connection(receivers) as (reader, writer):
        head = "Content-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n"
        writer.write(raw_request(b"", head, length=None) + b"3e8\r\n%s\r\n" % bytes(1000))
        await eventually(lambda: receivers.budget.used == 1000)
        filler = receivers.budget.limit - 1000
        receivers.budget.try_reserve(filler)
        writer.write(b"3e8\r\n%s\r\n0\r\n\r\n" % bytes(1000))
        assert (await raw_answer(reader))[0] == 503
        receivers.budget.release(filler)


# -- slow, odd and leaving clients ---------------------------------------------------------------


async def test_a_client_that_waits_for_100_continue_gets_it(receivers):
    payload = make_payload()
    async with raw_connection(receivers) as (reader, writer):
        head = "Content-Type: application/x-protobuf\r\nExpect: 100-continue\r\n"
        writer.write(raw_request(b"", head, length=len(payload)))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(payload)
        assert (await raw_answer(reader))[0] == 200


async def test_a_client_that_waits_for_100_continue_is_refused_without(limited):
    async with raw_connection(limited) as (reader, writer):
        head = "Content-Type: application/x-protobuf\r\nExpect: 100-continue\r\n"
        writer.write(raw_request(b"", head, length=LIMIT + 1))
        status, headers, _ = await raw_answer(reader)
        assert (status, headers["connection"]) == (413, "close")


@pytest.mark.parametrize("timeouts", [{"idle_timeout_s": 0.05}, {"body_timeout_s": 0.05}])
async def test_a_body_that_does_not_come_is_408(timeouts):
    async with started_receivers(**timeouts) as receivers:
        async with raw_connection(receivers) as (reader, writer):
            writer.write(raw_request(b"abc", length=100))
            status, headers, body = await raw_answer(reader)
        assert (status, headers["connection"]) == (408, "close")
        assert Status.FromString(body).code == 4
        assert receivers.counts() == {"refused_requests/slow_client": 1}


async def test_a_body_that_trickles_is_408():
    async with started_receivers(idle_timeout_s=5, body_timeout_s=0.2) as receivers:
        async with raw_connection(receivers) as (reader, writer):
            writer.write(raw_request(b"", length=10_000))
            answer = asyncio.ensure_future(raw_answer(reader))
            while not answer.done():
                writer.write(b"x")
                await asyncio.sleep(0.01)
        assert (await answer)[0] == 408


async def test_broken_chunks_are_not_waited_for_longer_than_silence():
    """aiohttp's parser in C says nothing of them to who reads the body."""
    async with (
        started_receivers(idle_timeout_s=0.05) as receivers,
        raw_connection(receivers) as (reader, writer),
    ):
        head = "Content-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n"
        writer.write(raw_request(b"", head, length=None))
        await eventually(lambda: receivers.ingest.in_hand == 1)
        writer.write(b"zz\r\nx\r\n")
        assert (await raw_answer(reader))[0] == 408


async def test_broken_chunks_are_400_with_the_parser_in_python():
    """Where aiohttp's parser in C is not to be had; chosen when aiohttp is imported."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BROKEN_CHUNKS),
        env=os.environ | {"AIOHTTP_NO_EXTENSIONS": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # aiohttp tells of them there
    )
    output, _ = await asyncio.wait_for(child.communicate(), 30)
    assert output.decode().splitlines() == ["400", "{'refused_requests/malformed': 1}"]


BROKEN_CHUNKS = """
import asyncio
from tests.kit.receivers import HOST, eventually, started_receivers

async def main():
    async with started_receivers() as receivers:
        reader, writer = await asyncio.open_connection(HOST, receivers.http_port)
        writer.write(
            b"POST /v1/traces HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\n"
            b"Transfer-Encoding: chunked\\r\\n\\r\\n"
        )
        await eventually(lambda: receivers.ingest.in_hand == 1)
        writer.write(b"zz\\r\\nx\\r\\n")
        print((await reader.readline()).split()[1].decode())
        print(receivers.counts())
        writer.close()

asyncio.run(main())
"""


async def test_a_client_that_leaves_inside_a_body_leaves_nothing_behind(receivers):
    async with raw_connection(receivers) as (_, writer):
        writer.write(raw_request(bytes(1000), length=100_000))
        await eventually(lambda: receivers.ingest.in_hand == 1)
    await eventually(lambda: receivers.ingest.in_hand == 0)
    assert receivers.counts() == {}


async def test_spans_of_a_client_that_leaves_before_its_answer_stay_accepted(receivers):
    receivers.intake.holding = True
    async with raw_connection(receivers) as (_, writer):
        writer.write(raw_request(make_payload(2)))
        await eventually(lambda: receivers.intake.open == 1)
    # the handler is cancelled, and the exchange goes on
    await eventually(lambda: len(receivers.runner.server.connections) == 0)
    assert receivers.ingest.in_hand == 1
    receivers.intake.settle()
    assert receivers.ingest.in_hand == 0
    assert receivers.counts() == {"received_spans/http/protobuf": 2, "accepted_spans": 2}


async def test_holds_without_cancelled_handlers_too():
    """aiohttp's own defaults, as an application may run it, lose nothing either."""
    async with started_receivers() as receivers:
        app = web.Application()
        add_routes(app, receivers.ingest)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            _, writer = await asyncio.open_connection(HOST, port)
            writer.write(raw_request(bytes(1000), length=100_000))
            await eventually(lambda: receivers.budget.used > 0)
            writer.close()
            await eventually(lambda: receivers.budget.used == 0)
        finally:
            await runner.cleanup()


# -- the pipeline refuses ------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [PROTOBUF, JSON], ids=["protobuf", "json"])
@pytest.mark.parametrize("cause", Cause)
async def test_each_cause_is_told(receivers, client, cause, headers):
    delay_s = 2.5 if cause.value.retry else None
    refused = Refused(cause, "do something else", retry_after_s=delay_s)
    receivers.intake.refusals.append(refused)
    body = make_payload(2) if headers is PROTOBUF else json_body(json_span())
    status, answered, answer = await post(client, receivers, body, headers)
    assert status == cause.value.http
    assert status_of(answered, answer) == (cause.value.grpc, "do something else")
    assert answered["Content-Type"] == headers["Content-Type"]
    assert answered.get("Retry-After") == ("3" if delay_s else None)
    assert receivers.counts() == {f"refused_requests/{cause.value.reason}": 1}


async def test_ok_then_retryable_then_permanent_then_ok(receivers, client):
    later = Refused(Cause.SPOOL_FULL, "come back", retry_after_s=0.2)
    never = Refused(Cause.FORBIDDEN, "go away")
    payload = make_payload(2)
    seen = []
    for refusal in (None, later, never, None):
        if refusal:
            receivers.intake.refusals.append(refusal)
        status, headers, _ = await post(client, receivers, payload)
        seen.append((status, headers.get("Retry-After"), receivers.counts()))
    ok = {"received_spans/http/protobuf": 2, "accepted_spans": 2}
    full = ok | {"refused_requests/spool_full": 1}
    gone = full | {"refused_requests/forbidden": 1}
    again = gone | {"received_spans/http/protobuf": 4, "accepted_spans": 4}
    assert seen == [(200, None, ok), (503, "1", full), (403, None, gone), (200, None, again)]


async def test_a_fault_of_the_gateway_is_500_and_logged(receivers, client, caplog):
    receivers.intake.refusals.append(ZeroDivisionError("a bug"))
    status, headers, body = await post(client, receivers, make_payload())
    assert (status, status_of(headers, body)[0]) == (500, 13)
    assert "a bug" not in status_of(headers, body)[1]
    assert "ingest failed" in caplog.text
    assert receivers.counts() == {"refused_requests/internal": 1}


# -- stop ----------------------------------------------------------------------------------------


async def test_stop_answers_what_is_in_hand_and_refuses_what_is_new(receivers, client):
    receivers.intake.holding = True
    first = asyncio.ensure_future(post(client, receivers, make_payload()))
    await eventually(lambda: receivers.intake.open == 1)
    stop = asyncio.ensure_future(receivers.ingest.stop(5))
    await eventually(lambda: receivers.ingest.stopping)
    status, headers, _ = await post(client, receivers, make_payload())
    assert (status, headers["Retry-After"], headers["Connection"]) == (503, "1", "close")
    assert not stop.done()
    receivers.intake.settle()
    assert (await stop, (await first)[0]) == (0, 200)
    assert receivers.counts()["refused_requests/stopping"] == 1


async def test_stop_takes_the_rest_of_a_body(receivers):
    payload = make_payload(2)
    async with raw_connection(receivers) as (reader, writer):
        writer.write(raw_request(payload[:10], length=len(payload)))
        await eventually(lambda: receivers.ingest.in_hand == 1)
        stop = asyncio.ensure_future(receivers.ingest.stop(5))
        await eventually(lambda: receivers.ingest.stopping)
        writer.write(payload[10:])
        assert (await raw_answer(reader))[0] == 200
        assert await stop == 0


async def test_what_was_told_ok_while_stopping_is_taken_and_nothing_after(receivers):
    """Clients keep sending through the stop; each answer says the truth."""
    told = []

    async def keep_sending(client):
        while True:
            try:
                told.append((await post(client, receivers, make_payload()))[0])
            except aiohttp.ClientError:
                return

    async with aiohttp.ClientSession() as client:
        senders = [asyncio.ensure_future(keep_sending(client)) for _ in range(4)]
        await eventually(lambda: len(told) > 50)
        for site in receivers.runner.sites:
            await site.stop()
        assert await receivers.ingest.stop(5) == 0
        taken = receivers.intake.spans
        await receivers.runner.cleanup()
        await asyncio.gather(*senders)
    assert set(told) <= {200, 503}
    assert told.count(200) == taken == receivers.intake.spans


# -- raw HTTP ------------------------------------------------------------------------------------


@asynccontextmanager
async def raw_connection(receivers):
    reader, writer = await asyncio.open_connection(HOST, receivers.http_port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()


def raw_request(body, head="Content-Type: application/x-protobuf\r\n", *, length=-1):
    """A POST; ``length`` is what it declares: -1 the truth, None nothing."""
    if length is not None:
        head += f"Content-Length: {len(body) if length < 0 else length}\r\n"
    return f"POST /v1/traces HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body


async def raw_answer(reader):
    """(status, headers by lower-case name, body)."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip("\r\n").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(first.split()[1]), headers, body


async def send_encoded(receivers, body, encoding, *, chunked=False, compress=True):
    """One request in ``encoding``; returns what ``raw_answer`` does."""
    body = ENCODINGS[encoding](body) if compress else body
    head = f"Content-Type: application/x-protobuf\r\nContent-Encoding: {encoding}\r\n"
    async with raw_connection(receivers) as (reader, writer):
        if chunked:
            head += "Transfer-Encoding: chunked\r\n"
            framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            writer.write(raw_request(b"", head, length=None) + framed)
        else:
            writer.write(raw_request(body, head))
        return await raw_answer(reader)
