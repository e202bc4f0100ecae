"""One read-out made of several."""

from __future__ import annotations

import json

from prometheus_client import generate_latest
from prometheus_client.registry import Collector

from gateway.telemetry.metrics import Metrics
from gateway.workers.merge import from_plain, merge_families, merge_status, to_plain
from tests.kit.ledger import assert_books_balance


def read_out(metrics: Metrics) -> list:
    """As it arrives at another process."""
    return json.loads(json.dumps(to_plain(metrics.collect())))


def samples(parts) -> dict:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in from_plain(merge_families(parts))
        for sample in family.samples
    }


class Merged(Collector):
    def __init__(self, parts) -> None:
        self.parts = parts

    def collect(self):
        return from_plain(merge_families(self.parts))


def worker(*, accepted: int, pending: int, transport: str) -> Metrics:
    metrics = Metrics()
    metrics.received_spans.series(transport, "protobuf").value = accepted
    metrics.accepted_spans.series().value = accepted
    metrics.delivered_spans.series().value = accepted - pending
    metrics.follow(metrics.pending_spans, lambda: pending)
    metrics.workers.series().value = 1
    metrics.request_duration.series(transport).observe(0.003)
    metrics.backend_up.series().value = 1
    metrics.backend_restarts.series().value = 2
    metrics.backend_scrape_failures.series("slow").value = 1
    return metrics


def two() -> list:
    one = worker(accepted=5, pending=1, transport="http")
    return [read_out(one), read_out(worker(accepted=7, pending=3, transport="grpc"))]


def test_what_is_counted_is_summed_and_the_books_still_balance():
    merged = samples(two())
    assert merged["gateway_accepted_spans_total",] == 12
    assert merged["gateway_pending_spans",] == 4
    assert merged["gateway_workers",] == 2
    assert merged["gateway_backend_scrape_failures_total", ("reason", "slow")] == 2

    assert assert_books_balance(generate_latest(Merged(two())).decode())["accepted"] == 12


def test_series_that_only_one_has_are_kept():
    merged = samples(two())
    assert (
        merged["gateway_received_spans_total", ("encoding", "protobuf"), ("transport", "http")] == 5
    )
    assert (
        merged["gateway_received_spans_total", ("encoding", "protobuf"), ("transport", "grpc")] == 7
    )


def test_histograms_are_summed_by_bucket():
    parts = [*two(), read_out(worker(accepted=0, pending=0, transport="http"))]
    merged = samples(parts)

    def bucket(bound: str, transport: str) -> float:
        name = "gateway_request_duration_seconds_bucket"
        return merged[name, ("le", bound), ("transport", transport)]

    assert bucket("0.0025", "http") == 0
    assert bucket("0.005", "http") == bucket("+Inf", "http") == 2
    assert bucket("+Inf", "grpc") == 1
    assert merged["gateway_request_duration_seconds_count", ("transport", "http")] == 2


def test_the_one_backend_is_not_counted_twice():
    merged = samples([read_out(Metrics()), *two()])
    assert merged["gateway_backend_up",] == 1
    assert merged["gateway_backend_restarts_total",] == 2


def test_a_gateway_began_when_its_first_process_did():
    start = "gateway_process_start_time_seconds"
    parts = [[[start, "", "gauge", [[start, {}, at]]]] for at in (30.0, 10.0, 20.0)]
    assert samples(parts) == {(start,): 10.0}


def test_of_a_status_numbers_are_summed_and_words_are_the_first():
    parent = {"uptime_s": 9.5, "backend": {"restarts": 1}, "workers": {"wanted": 2}}
    one = {
        "uptime_s": 8.0,
        "accepting": True,
        "backend": {"restarts": 0},
        "queue": {"pending_spans": 3, "backlog_on_disk": False, "last_delivery_error": None},
        "workers": {"wanted": 2, "answered": 1},
    }
    other = {
        "uptime_s": 4.0,
        "accepting": False,
        "backend": {"restarts": 0},
        "queue": {"pending_spans": 4, "backlog_on_disk": True, "last_delivery_error": "gone"},
        "workers": {"wanted": 2, "answered": 1},
    }
    assert merge_status([parent, one, other]) == {
        "uptime_s": 9.5,
        "accepting": False,
        "backend": {"restarts": 1},
        "queue": {"pending_spans": 7, "backlog_on_disk": True, "last_delivery_error": "gone"},
        "workers": {"wanted": 2, "answered": 2},
    }
