from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from gateway.errors import Cause, Refused
from gateway.otlp import reply
from gateway.otlp.media import Decoded, Media

PARTIAL = Decoded(accepted=1, rejected={"trace_id_zero": 2, "span_id_zero": 1}, message="3 refused")
WARNING = Decoded(message="no spans found")


def parse_response(media: Media, body: bytes) -> ExportTraceServiceResponse:
    if media is Media.PROTOBUF:
        return ExportTraceServiceResponse.FromString(body)
    return json_format.Parse(body, ExportTraceServiceResponse())


def parse_status(media: Media, body: bytes) -> status_pb2.Status:
    if media is Media.PROTOBUF:
        return status_pb2.Status.FromString(body)
    return json_format.Parse(body, status_pb2.Status())


def retry_delay(status: status_pb2.Status) -> float:
    (detail,) = status.details
    info = error_details_pb2.RetryInfo()
    assert detail.Unpack(info)
    return info.retry_delay.ToNanoseconds() / 1e9


@pytest.mark.parametrize("media", Media)
def test_clean_success_leaves_partial_success_unset(media):
    response = parse_response(media, reply.success(media, Decoded(accepted=5)))
    assert not response.HasField("partial_success")


@pytest.mark.parametrize("media", Media)
def test_partial_success_counts_and_explains(media):
    partial = parse_response(media, reply.success(media, PARTIAL)).partial_success
    assert (partial.rejected_spans, partial.error_message) == (3, "3 refused")


@pytest.mark.parametrize("media", Media)
def test_warning_refuses_nothing(media):
    partial = parse_response(media, reply.success(media, WARNING)).partial_success
    assert (partial.rejected_spans, partial.error_message) == (0, "no spans found")


def test_json_writes_64_bit_integers_as_strings():
    body = json.loads(reply.success(Media.JSON, PARTIAL))
    assert body == {"partialSuccess": {"rejectedSpans": "3", "errorMessage": "3 refused"}}


@pytest.mark.parametrize("media", Media)
@pytest.mark.parametrize("cause", Cause)
def test_failure_is_a_status_with_the_code_of_its_cause(media, cause):
    status = parse_status(media, reply.failure(media, Refused(cause, "why")))
    assert (status.code, status.message) == (cause.value.grpc, "why")
    assert not status.details


@pytest.mark.parametrize("media", Media)
@pytest.mark.parametrize("seconds", [0, 0.25, 1, 5, 1.000000001, 3600.5])
def test_delay_is_told_as_retry_info(media, seconds):
    refused = Refused(Cause.MEMORY_FULL, "full", retry_after_s=seconds)
    assert retry_delay(parse_status(media, reply.failure(media, refused))) == seconds


def test_json_status_has_the_type_of_its_detail():
    refused = Refused(Cause.STOPPING, "stopping", retry_after_s=1.5)
    assert json.loads(reply.failure(Media.JSON, refused)) == {
        "code": 14,
        "message": "stopping",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500000000s"}
        ],
    }


def test_status_details_are_the_protobuf_failure():
    refused = Refused(Cause.SPOOL_FULL, "full", retry_after_s=2)
    assert reply.status_details(refused) == reply.failure(Media.PROTOBUF, refused)


@pytest.mark.parametrize("media", Media)
@pytest.mark.parametrize("message", ["x" * 10_000, "é" * 10_000, "a" + "\U0001f600" * 5_000])
def test_long_messages_are_cut_to_valid_text(media, message):
    status = parse_status(media, reply.failure(media, Refused(Cause.MALFORMED, message)))
    assert len(status.message.encode()) <= reply.MAX_MESSAGE_BYTES
    assert status.message.endswith("...")
    partial = Decoded(rejected={"trace_id_zero": 1}, message=message)
    assert len(reply.success(media, partial)) < 8 * reply.MAX_MESSAGE_BYTES


@pytest.mark.parametrize("media", Media)
def test_lone_surrogates_in_a_message_do_no_harm(media):
    assert parse_status(media, reply.failure(media, Refused(Cause.MALFORMED, "\ud800"))).message


def test_reads_what_a_backend_refused():
    partial = ExportTracePartialSuccess(rejected_spans=7, error_message="no")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    assert reply.read_export_response(body) == (7, "no")
    assert reply.read_export_response(b"") == (0, "")
    assert reply.read_export_response(body.replace(b"no", b"\xff\xff")) == (7, "\ufffd\ufffd")
    negative = ExportTracePartialSuccess(rejected_spans=-7)
    body = ExportTraceServiceResponse(partial_success=negative).SerializeToString()
    assert reply.read_export_response(body) == (0, "")


def test_reads_the_delay_a_backend_asks_for():
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(1_500_000_000)
    status = status_pb2.Status(code=8, message="busy")
    status.details.add().Pack(error_details_pb2.DebugInfo(detail="x"))
    assert reply.read_retry_info(status.SerializeToString()) is None
    status.details.add().Pack(info)
    assert reply.read_retry_info(status.SerializeToString()) == 1.5
    info.retry_delay.seconds, info.retry_delay.nanos = -1, 0
    status.details[1].Pack(info)
    assert reply.read_retry_info(status.SerializeToString()) == 0
    assert reply.read_retry_info(b"") is None


def test_reads_the_status_of_a_backend():
    status = status_pb2.Status(code=8, message="busy").SerializeToString()
    assert reply.read_status(status) == (8, "busy")
    assert reply.read_status(status.replace(b"busy", b"b\xffsy")) == (8, "b\ufffdsy")
    assert reply.read_status(b"") == (0, "")
    assert reply.read_status(b"no org id\n") == (0, "no org id\n")


@given(st.binary(max_size=60))
def test_whatever_a_backend_answers_is_read(body):
    rejected, message = reply.read_export_response(body)
    assert rejected >= 0
    assert isinstance(message, str)
    assert (reply.read_retry_info(body) or 0) >= 0
    code, text = reply.read_status(body)
    assert (type(code), type(text)) == (int, str)
