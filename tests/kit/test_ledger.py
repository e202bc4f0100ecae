from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry

from gateway.telemetry.metrics import Metrics
from tests.kit.ledger import assert_books_balance

BALANCED = {
    "received": 100,
    "accepted": 90,
    "rejected": 10,
    "recovered": 5,
    "delivered": 78,
    "handed_over": 2,
    "dropped": 7,
    "pending": 8,
}


def metrics(books: dict[str, int]) -> Metrics:
    metrics = Metrics()
    metrics.received_spans.series("grpc", "protobuf").value = books["received"] - 1
    metrics.received_spans.series("http", "json").value = 1
    metrics.rejected_spans.series("trace_id_zero").value = books["rejected"]
    metrics.dropped_spans.series("refused").value = books["dropped"]
    for column in ("accepted", "recovered", "delivered", "handed_over", "pending"):
        getattr(metrics, f"{column}_spans").series().value = books[column]
    return metrics


def text(books: dict[str, int]) -> str:
    registry = CollectorRegistry()
    registry.register(metrics(books))
    return generate_latest(registry).decode()


@pytest.mark.parametrize("form", [metrics, text])
def test_books_that_balance_are_returned(form):
    assert assert_books_balance(form(BALANCED)) == BALANCED


@pytest.mark.parametrize("form", [metrics, text])
@pytest.mark.parametrize("column", sorted(BALANCED))
def test_one_span_too_many_in_any_column_is_found(form, column):
    with pytest.raises(AssertionError):
        assert_books_balance(form(BALANCED | {column: BALANCED[column] + 1}))


def test_a_column_that_is_negative_is_found():
    with pytest.raises(AssertionError, match="negative"):
        assert_books_balance(metrics(BALANCED | {"delivered": 87, "pending": -1}))


@pytest.mark.parametrize("column", ["accepted", "recovered", "delivered", "pending"])
def test_a_column_that_is_missing_does_not_balance_as_zero(column):
    lines = text(dict.fromkeys(BALANCED, 0) | {"received": 1}).splitlines()
    without = "\n".join(line for line in lines if f"gateway_{column}_spans" not in line) + "\n"
    with pytest.raises(AssertionError, match="no such columns"):
        assert_books_balance(without)


def test_a_fresh_gateway_has_empty_books():
    registry = CollectorRegistry()
    registry.register(Metrics())
    assert not any(assert_books_balance(generate_latest(registry).decode()).values())
