from __future__ import annotations

import pytest

from gateway.embedded.literals import duration_ns, show_duration, unquote_name, unquote_string


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1ns", 1),
        ("1.5us", 1500),
        ("5µs", 5000),
        ("5μs", 5000),
        ("10ms", 10**7),
        ("0.1s", 10**8),
        ("1h30m", 5400 * 10**9),
        ("1d", 86400 * 10**9),
        ("1w1y", 372 * 86400 * 10**9),
    ],
)
def test_durations_are_nanoseconds(text, expected):
    assert duration_ns(text) == expected


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (10**7, "10ms"),
        (500_500_000, "500.5ms"),
        (10**9, "1s"),
        (61_500_000_000, "1m1.5s"),
        (3600 * 10**9, "1h0m0s"),
        (-1500, "-1.5µs"),
    ],
)
def test_durations_are_shown_as_go_does(nanoseconds, expected):
    assert show_duration(nanoseconds) == expected


@pytest.mark.parametrize(
    ("quoted", "expected"),
    [
        (r'"plain"', "plain"),
        (r'"a\"b\\c"', 'a"b\\c'),
        (r'"\a\b\f\n\r\t\v"', "\a\b\f\n\r\t\v"),
        (r'"\x41\101\u00e9\U0001F600"', "AAé😀"),
        (r'"\ud800\UFFFFFFFF"', "\ufffd\ufffd"),
    ],
)
def test_strings_have_gos_escapes(quoted, expected):
    assert unquote_string(quoted) == expected


def test_an_unknown_escape_is_an_error():
    with pytest.raises(ValueError, match="invalid char escape"):
        unquote_string(r'"\q"')


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("http.status", "http.status"),
        ('"status code"', "status code"),
        ('http."status code".x', "http.status code.x"),
        (r'"a\"b\\c\n"', r'a"b\c\n'),
    ],
)
def test_names_may_be_quoted_in_parts(name, expected):
    assert unquote_name(name) == expected
