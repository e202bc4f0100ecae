from __future__ import annotations

from gateway.otlp.memo import Memo


def content(memo: Memo) -> int:
    """The bytes of everything that can still be found."""
    everything = memo._older | memo
    return sum(len(source) + len(result or b"") for source, result in everything.items())


def test_what_is_kept_is_found_and_nothing_else():
    memo = Memo(10_000, longest=100)
    memo.keep(b"a", b"1")
    memo.keep(b"empty", b"")
    assert (memo[b"a"], memo[b"empty"], memo[b"b"]) == (b"1", b"", None)
    assert b"b" not in memo


def test_long_sources_are_not_kept():
    memo = Memo(10_000, longest=100)
    memo.keep(b"x" * 100, b"kept")
    memo.keep(b"x" * 101, b"not")
    assert (memo[b"x" * 100], memo[b"x" * 101]) == (b"kept", None)


def test_a_flood_stays_within_the_bound():
    memo = Memo(50_000, longest=100)
    for index in range(5000):
        memo.keep(b"%d" % index, b"r" * (index % 100))
        assert content(memo) <= 50_000
    assert 50 < len(memo._older) + len(memo) < 50_000 // 150


def test_what_is_in_use_outlives_a_flood():
    memo = Memo(50_000, longest=100)
    memo.keep(b"used", b"1")
    memo.keep(b"unused", b"2")
    for index in range(5000):
        memo.keep(b"%d" % index, b"")
        assert memo[b"used"] == b"1"
    assert memo[b"unused"] is None
