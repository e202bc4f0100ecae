"""The table of a backend's habits. The texts are those that Tempo and grpcio really say."""

from __future__ import annotations

import pytest

from gateway.envelope import Fate
from gateway.errors import GrpcCode as Code
from gateway.tempo.outcomes import (
    NAMES,
    OPERATOR_DELAY_S,
    http_outcome,
    is_misdirected,
    lost,
    outcome_of,
)

RATE = (
    "RATE_LIMITED: ingestion rate limit (local: 15000000 bytes/s, global: 0 bytes/s, burst:"
    " 20000000 bytes) exceeded while adding 3000000 bytes for user single-tenant."
)
RATE_2_4 = (
    "RATE_LIMITED: ingestion rate limit (15000000 bytes) exceeded while adding 3000000 bytes for"
    " user single-tenant"
)
BURST = (
    "RATE_LIMITED: batch size (21000000 bytes) exceeds ingestion limit (local: 15000000 bytes/s,"
    " global: 0 bytes/s, burst: 20000000 bytes) while adding 21000000 bytes for user x."
)
RECEIVED = "grpc: received message larger than max (17825920 vs. 16777216)"
INFLATED = "grpc: received message after decompression larger than max 16777216"


@pytest.mark.parametrize("code", NAMES)
def test_every_code_has_an_outcome_that_carries_its_name(code):
    outcome = outcome_of(code, "words")
    assert (outcome.code, outcome.message) == (NAMES[code], "words")


def test_a_code_that_does_not_exist_yet_is_retried():
    assert outcome_of(99, "?") == (Fate.RETRY, "99", "?", None, 0, False)


@pytest.mark.parametrize(
    ("code", "fate"),
    [
        (Code.OK, Fate.DELIVERED),
        (Code.CANCELLED, Fate.RETRY),
        (Code.UNKNOWN, Fate.RETRY),
        (Code.INVALID_ARGUMENT, Fate.REFUSED),
        (Code.DEADLINE_EXCEEDED, Fate.RETRY),
        (Code.NOT_FOUND, Fate.RETRY),
        (Code.ALREADY_EXISTS, Fate.REFUSED),
        (Code.PERMISSION_DENIED, Fate.RETRY),
        (Code.FAILED_PRECONDITION, Fate.REFUSED),
        (Code.ABORTED, Fate.RETRY),
        (Code.OUT_OF_RANGE, Fate.RETRY),
        (Code.UNIMPLEMENTED, Fate.RETRY),
        (Code.INTERNAL, Fate.REFUSED),
        (Code.UNAVAILABLE, Fate.RETRY),
        (Code.DATA_LOSS, Fate.RETRY),
        (Code.UNAUTHENTICATED, Fate.RETRY),
    ],
)
def test_codes_without_a_doubt(code, fate):
    assert outcome_of(code, "").fate is fate


@pytest.mark.parametrize(
    ("message", "retry_after_s", "fate"),
    [
        (RATE, 1.0, Fate.RETRY),
        (RATE, None, Fate.RETRY),
        (RATE_2_4, None, Fate.RETRY),
        (BURST, 5.0, Fate.SPLIT),
        (BURST, None, Fate.SPLIT),
        (RECEIVED, None, Fate.SPLIT),
        (INFLATED, 5.0, Fate.SPLIT),
        ("out of something", 5.0, Fate.RETRY),
        ("out of something", None, Fate.SPLIT),
        ("generated too many", None, Fate.SPLIT),
        ("", None, Fate.SPLIT),
    ],
)
def test_exhausted_is_said_of_rates_and_of_sizes(message, retry_after_s, fate):
    outcome = outcome_of(Code.RESOURCE_EXHAUSTED, message, retry_after_s=retry_after_s)
    assert outcome.fate is fate
    assert outcome.retry_after_s == (retry_after_s if fate is Fate.RETRY else None)


@pytest.mark.parametrize("code", [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.NOT_FOUND])
def test_what_only_an_operator_can_change_is_retried_slowly(code):
    assert outcome_of(code, "").retry_after_s == OPERATOR_DELAY_S
    assert outcome_of(code, "", retry_after_s=60.0).retry_after_s == 60.0


@pytest.mark.parametrize(
    ("code", "message", "broken"),
    [
        (Code.UNAVAILABLE, "Stream removed (Socket closed)", True),
        (Code.UNAVAILABLE, "Stream removed (recvmsg:Connection reset by peer (104))", True),
        (Code.UNAVAILABLE, "Socket closed", True),
        (
            Code.INTERNAL,
            "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))",
            True,
        ),
        (
            Code.RESOURCE_EXHAUSTED,
            "Stream removed (RST_STREAM (Received RST_STREAM with error code 11))",
            True,
        ),
        (
            Code.UNAVAILABLE,
            "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))",
            False,
        ),
        (
            Code.UNAVAILABLE,
            "Stream removed (Socket closed (GOAWAY received; Error code: 0; Debug Text: ))",
            False,
        ),
        (
            Code.UNAVAILABLE,
            (
                "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed"
                " to connect to remote host: Connection refused"
            ),
            False,
        ),
        (
            Code.UNAVAILABLE,
            (
                "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:46593:"
                " Socket closed"
            ),
            False,
        ),
        (Code.UNAVAILABLE, "no org id", False),
    ],
)
def test_a_connection_that_broke_in_mid_call_is_known_by_grpcios_words(code, message, broken):
    outcome = outcome_of(code, message)
    assert outcome.fate is Fate.RETRY
    assert outcome.lost_connection is broken


def test_a_connection_lost_over_http():
    assert lost("reset") == (Fate.RETRY, "UNAVAILABLE", "reset", None, 0, True)


@pytest.mark.parametrize(
    ("status", "grpc_code", "message", "retry_after_s", "fate", "delay_s"),
    [
        (400, 0, "bad", None, Fate.REFUSED, None),
        (400, Code.INVALID_ARGUMENT, "trace ids must be 128 bit", None, Fate.REFUSED, None),
        (400, 0, "http: request body too large", None, Fate.SPLIT, None),
        (413, 0, "", None, Fate.SPLIT, None),
        (422, 0, "", None, Fate.REFUSED, None),
        (408, 0, "", None, Fate.RETRY, None),
        (429, 0, "slow down", None, Fate.RETRY, None),
        (429, 0, "slow down", 7.0, Fate.RETRY, 7.0),
        (429, Code.RESOURCE_EXHAUSTED, RATE, 5.0, Fate.RETRY, 5.0),
        (429, Code.RESOURCE_EXHAUSTED, BURST, 5.0, Fate.SPLIT, None),
        # Tempo 2.4.0 says 500 to everything, and the truth in the body.
        (500, Code.RESOURCE_EXHAUSTED, RATE_2_4, None, Fate.RETRY, None),
        (500, Code.RESOURCE_EXHAUSTED, RECEIVED, None, Fate.SPLIT, None),
        (500, Code.INVALID_ARGUMENT, "trace ids must be 128 bit", None, Fate.REFUSED, None),
        (500, Code.UNKNOWN, "Ingester is shutting down", None, Fate.RETRY, None),
        (500, 0, "<html>", None, Fate.RETRY, None),
        (502, 0, "", None, Fate.RETRY, None),
        (503, Code.INVALID_ARGUMENT, "", 3.0, Fate.RETRY, 3.0),
        (504, 0, "", None, Fate.RETRY, None),
        # The address or the headers are wrong, not the spans.
        (301, 0, "", None, Fate.RETRY, OPERATOR_DELAY_S),
        (401, 0, "", None, Fate.RETRY, OPERATOR_DELAY_S),
        (403, 0, "", None, Fate.RETRY, OPERATOR_DELAY_S),
        (404, 0, "", None, Fate.RETRY, OPERATOR_DELAY_S),
        (405, 0, "", 60.0, Fate.RETRY, 60.0),
        (415, 0, "", None, Fate.RETRY, OPERATOR_DELAY_S),
    ],
)
def test_http(status, grpc_code, message, retry_after_s, fate, delay_s):
    outcome = http_outcome(status, grpc_code, message, retry_after_s=retry_after_s)
    assert (outcome.fate, outcome.retry_after_s) == (fate, delay_s)
    assert outcome.code == f"HTTP {status}"
    assert not outcome.lost_connection
    assert is_misdirected(status) == (status in {301, 401, 403, 404, 405, 415})
