from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import LATENCY_BUCKETS_S, Distribution, Metrics


def exposition(metrics: Metrics) -> dict:
    registry = CollectorRegistry()
    registry.register(metrics)
    text = generate_latest(registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_family_is_in_the_exposition_with_prefix_and_help():
    families = exposition(Metrics())
    assert {f"gateway_{f.row.name}" for f in Metrics().families()} == set(families)
    assert all(family.documentation for family in families.values())


def test_a_counter_is_read_out_with_its_labels_and_suffix():
    metrics = Metrics()
    metrics.received_spans.series("http", "json").value += 3
    (sample,) = exposition(metrics)["gateway_received_spans"].samples
    assert sample.name == "gateway_received_spans_total"
    assert sample.labels == {"transport": "http", "encoding": "json"}
    assert sample.value == 3


def test_an_unlabelled_counter_shows_zero_before_its_first_event():
    (sample,) = exposition(Metrics())["gateway_accepted_spans"].samples
    assert sample.value == 0


def test_a_series_asked_for_with_the_wrong_labels_is_a_bug():
    with pytest.raises(ValueError, match="received_spans"):
        Metrics().received_spans.series("http")
    with pytest.raises(ValueError, match="request_duration"):
        Metrics().request_duration.series()


@given(st.lists(st.floats(min_value=0, max_value=100)))
def test_buckets_are_cumulative_and_end_with_the_count(values):
    series = Distribution(LATENCY_BUCKETS_S)
    for value in values:
        series.observe(value)
    buckets = list(series.buckets())
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == ("+Inf", len(values))
    for bound, count in buckets[:-1]:
        assert count == sum(value <= float(bound) for value in values)
    assert math.isclose(series.total, sum(values), abs_tol=1e-9)


def test_a_gauge_is_what_its_owners_say_at_each_scrape_taken_together():
    metrics, values = Metrics(), [7, 2]
    for number in range(2):
        metrics.follow(metrics.pending_spans, lambda number=number: values[number])
    assert exposition(metrics)["gateway_pending_spans"].samples[0].value == 9
    values[0] = 1
    assert exposition(metrics)["gateway_pending_spans"].samples[0].value == 3


def test_imbalance_names_what_is_missing_in_each_book():
    metrics = Metrics()
    metrics.received_spans.series("grpc", "protobuf").value = 10
    metrics.accepted_spans.series().value = 7
    metrics.rejected_spans.series("trace_id_zero").value = 2
    metrics.delivered_spans.series().value = 4
    metrics.pending_spans.series().value = 1
    assert metrics.imbalance() == (1, 2)
