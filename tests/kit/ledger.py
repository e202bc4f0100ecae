"""The books of the spans: what came in is what went out, was given up, or still waits."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import Metrics

COLUMNS = (
    *("received", "accepted", "rejected", "recovered"),
    *("delivered", "handed_over", "dropped", "pending"),
)


def read_books(source: Metrics | str) -> dict[str, int]:
    """The columns of the books, from metrics in this process or from the text of ``/metrics``.

    Fails when a column is not there at all, so that a renamed metric does not balance as zero.
    """
    families: Iterable[Metric] = (
        source.collect() if isinstance(source, Metrics) else text_string_to_metric_families(source)
    )
    totals = {
        family.name.removeprefix("gateway_").removesuffix("_spans"): sum(
            sample.value for sample in family.samples if not sample.name.endswith("_created")
        )
        for family in families
        if family.name.startswith("gateway_") and family.name.endswith("_spans")
    }
    # A labelled metric shows nothing before its first event.
    for labelled in ("received", "rejected", "dropped"):
        totals.setdefault(labelled, 0)
    missing = [column for column in COLUMNS if column not in totals]
    assert not missing, f"no such columns: {missing}; there are {sorted(totals)}"
    return {column: int(totals[column]) for column in COLUMNS}


def assert_books_balance(source: Metrics | str) -> dict[str, int]:
    """received = accepted + rejected, and accepted + recovered = delivered + handed over + dropped
    + pending; to be asked at a quiet moment. Returns the columns.
    """
    books = read_books(source)
    assert min(books.values()) >= 0, f"a column is negative: {books}"
    received, answered = books["received"], books["accepted"] + books["rejected"]
    assert received == answered, f"received {received}, answered {answered}: {books}"
    came_in = books["accepted"] + books["recovered"]
    gone = books["delivered"] + books["handed_over"] + books["dropped"]
    accounted = gone + books["pending"]
    assert came_in == accounted, f"{came_in} came in, {accounted} are accounted for: {books}"
    return books
