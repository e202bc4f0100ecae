"""The form of an answer on each transport."""

from __future__ import annotations

import pytest
from google.rpc.status_pb2 import Status

from gateway.errors import Cause, Refused
from gateway.otlp.media import Decoded, Media
from gateway.receivers.replies import Reply


def refusal(cause=Cause.SPOOL_FULL, message="no", delay_s=None, media=Media.PROTOBUF):
    return Reply.of_refusal(media, Refused(cause, message, retry_after_s=delay_s))


@pytest.mark.parametrize(
    ("media", "content_type", "body"),
    [
        (Media.PROTOBUF, "application/x-protobuf", b""),
        (Media.JSON, "application/json", b"{}"),
    ],
)
def test_success_says_nothing_but_its_type(media, content_type, body):
    reply = Reply.of_success(media, Decoded(accepted=3))
    assert (reply.http_status, reply.body) == (200, body)
    assert reply.http_headers() == {"Content-Type": content_type}
    assert (reply.grpc_code, reply.grpc_message, reply.grpc_trailers()) == (0, "", ())
    assert not reply.ends_connection


@pytest.mark.parametrize(
    ("delay_s", "header"), [(0.0, "1"), (0.001, "1"), (1.0, "1"), (1.01, "2"), (30.0, "30")]
)
def test_retry_after_is_in_whole_seconds_and_never_too_soon(delay_s, header):
    assert refusal(delay_s=delay_s).http_headers()["Retry-After"] == header


def test_what_is_final_has_no_retry_after():
    assert "Retry-After" not in refusal(Cause.MALFORMED).http_headers()


@pytest.mark.parametrize(
    ("cause", "header", "value"),
    [
        (Cause.METHOD, "Allow", "POST"),
        (Cause.CONTENT_TYPE, "Accept", "application/x-protobuf, application/json"),
        (Cause.CONTENT_ENCODING, "Accept-Encoding", "identity, gzip, deflate, zstd"),
    ],
)
def test_says_in_a_header_what_would_be_taken(cause, header, value):
    assert refusal(cause).http_headers()[header] == value


@pytest.mark.parametrize("cause", Cause)
def test_ends_the_connection_only_of_the_slow_and_while_stopping(cause):
    assert refusal(cause).ends_connection == (cause in {Cause.SLOW_CLIENT, Cause.STOPPING})


def test_grpc_details_are_the_whole_status_and_the_message_fits_into_metadata():
    reply = refusal(message="x" * 5000, delay_s=1.5)
    ((name, details),) = reply.grpc_trailers()
    assert name == "grpc-status-details-bin"
    assert Status.FromString(details).code == reply.grpc_code == 14
    assert len(reply.grpc_message) == 1000
    assert len(reply.grpc_message) + len(details) < 8192
