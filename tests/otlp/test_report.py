from __future__ import annotations

from gateway.otlp.report import Report
from gateway.otlp.rules import REMEDIES


def test_clean_request_has_no_message():
    report = Report()
    report.accept(3)
    assert (report.message(), report.trace_id, report.rejected) == ("", None, {})


def test_counts_by_reason_and_names_the_first():
    report = Report()
    report.accept(2)
    report.refuse("a", b"\x01" * 16, "span_id_zero")
    report.accept()
    report.refuse("b", b"", "trace_id_length")
    report.refuse("c", b"", "trace_id_length")
    assert report.rejected == {"span_id_zero": 1, "trace_id_length": 2}
    assert report.trace_id == "01" * 16
    assert report.message() == (
        "3 of 6 spans refused: span_id_zero 1, trace_id_length 2. First span 2 ('a'): "
        + REMEDIES["span_id_zero"]
    )


def test_long_names_and_ids_are_cut():
    report = Report()
    report.refuse("x" * 10_000, b"y" * 10_000, "trace_id_length")
    assert len(report.message()) < 300
    assert len(report.trace_id or "") == 64


def test_control_characters_of_a_name_are_escaped():
    report = Report()
    report.refuse("a\nb\x1b[31m", b"", "trace_id_length")
    assert report.message().isprintable()


def test_refusals_outweigh_a_warning():
    report = Report()
    report.warn("nothing found")
    assert report.message() == "nothing found"
    report.refuse("a", b"", "trace_id_length")
    assert "1 of 1 spans refused" in report.message()
