"""What the operator sees of a request."""

from __future__ import annotations

import pytest

from gateway.errors import Cause, Refused
from gateway.otlp.media import Decoded, Media
from gateway.receivers.books import Books, Sender
from gateway.telemetry.metrics import Metrics

HTTP = Sender("http", "10.0.0.1:4711", "request-1")
GRPC = Sender("grpc", "10.0.0.2:4712")
DECODED = Decoded(
    accepted=5,
    rejected={"trace_id_zero": 2, "start_zero": 1},
    message="3 of 8 spans",
    trace_id="00" * 16,
    repairs={"base64_id": 4},
)


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def books(metrics):
    return Books(metrics)


def logged(caplog):
    assert {(record.levelname, record.msg) for record in caplog.records} <= {
        ("WARNING", "otlp rejected")
    }
    return [record.facts for record in caplog.records]


def test_counts_accepted_and_rejected_spans_by_transport_encoding_and_reason(books, metrics):
    books.success(HTTP, Media.JSON, DECODED)
    books.success(GRPC, Media.PROTOBUF, Decoded(accepted=1))
    assert metrics.received_spans.series("http", "json").value == 8
    assert metrics.received_spans.series("grpc", "protobuf").value == 1
    assert metrics.accepted_spans.total() == 6
    assert metrics.rejected_spans.series("trace_id_zero").value == 2
    assert metrics.rejected_spans.series("start_zero").value == 1
    assert metrics.repaired_values.series("base64_id").value == 4
    assert metrics.refused_requests.total() == 0


def test_counts_a_refusal_by_its_reason_alone(books, metrics):
    books.refusal(HTTP, Refused(Cause.SPOOL_FULL, "full", retry_after_s=1))
    assert metrics.refused_requests.series("spool_full").value == 1
    assert metrics.received_spans.total() == 0


def test_shows_every_reason_for_refusal_before_its_first(books, metrics):
    (refused,) = [
        family for family in metrics.collect() if family.name == "gateway_refused_requests"
    ]
    shown = {sample.labels["reason"]: sample.value for sample in refused.samples}
    assert shown == {cause.value.reason: 0 for cause in Cause}


def test_logs_a_refusal_with_its_sender(books, caplog):
    books.refusal(HTTP, Refused(Cause.MALFORMED, "not OTLP"))
    assert logged(caplog) == [
        {
            "reason": "malformed",
            "transport": "http",
            "peer": "10.0.0.1:4711",
            "request_id": "request-1",
            "message": "not OTLP",
        }
    ]


def test_logs_bad_spans_by_reason_with_their_count(books, caplog):
    books.success(GRPC, Media.PROTOBUF, DECODED)
    shared = {
        "transport": "grpc",
        "peer": "10.0.0.2:4712",
        "trace_id": "00" * 16,
        "message": "3 of 8 spans",
    }
    assert logged(caplog) == [
        {"reason": "trace_id_zero", "count": 2, **shared},
        {"reason": "start_zero", "count": 1, **shared},
    ]


def test_logs_a_reason_once_in_a_while_and_tells_the_reasons_apart(books, caplog):
    for _ in range(50):
        books.refusal(HTTP, Refused(Cause.MALFORMED, "not OTLP"))
        books.refusal(HTTP, Refused(Cause.TOO_LARGE, "too large"))
    assert [facts["reason"] for facts in logged(caplog)] == ["malformed", "too_large"]


def test_logs_no_more_than_a_line_of_what_a_client_sent(books, caplog):
    sender = Sender("http", "10.0.0.1:4711", "x" * 8000)
    books.refusal(sender, Refused(Cause.MALFORMED, "y" * 8000))
    assert sum(len(str(value)) for value in logged(caplog)[0].values()) < 1000


def test_clean_requests_are_not_logged(books, caplog):
    books.success(HTTP, Media.PROTOBUF, Decoded(accepted=1))
    assert caplog.records == []


def test_observes_durations_by_transport(books, metrics):
    books.duration("http", 0.003)
    books.duration("grpc", 20.0)
    assert metrics.request_duration.series("http").total == 0.003
    assert metrics.request_duration.series("grpc").counts[-1] == 1
