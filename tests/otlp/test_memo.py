from __future__ import annotations

from gateway.otlp.memo import Memo


def content(memo: Memo) -> int:
    """The bytes of everything that can still be found."""
    everything = memo._older | memo.recent
    return sum(len(source) + len(result) for source, result in everything.items())


def found(memo: Memo, source: bytes) -> bytes | None:
    known = memo.recent.get(source)
    return memo.find(source) if known is None else known


def test_what_is_kept_is_found_and_nothing_else():
    memo = Memo(10_000, longest=100)
    memo.keep(b"a", b"1")
    memo.keep(b"empty", b"")
    assert (found(memo, b"a"), found(memo, b"empty"), found(memo, b"b")) == (b"1", b"", None)


def test_long_sources_are_not_kept():
    memo = Memo(10_000, longest=100)
    memo.keep(b"x" * 100, b"kept")
    memo.keep(b"x" * 101, b"not")
    assert (found(memo, b"x" * 100), found(memo, b"x" * 101)) == (b"kept", None)


def test_a_flood_stays_within_the_bound():
    memo = Memo(50_000, longest=100)
    for index in range(5000):
        memo.keep(b"%d" % index, b"r" * (index % 100))
        assert content(memo) <= 50_000
    assert 50 < len(memo._older) + len(memo.recent) < 50_000 // 150


def test_what_is_in_use_outlives_a_flood():
    memo = Memo(50_000, longest=100)
    memo.keep(b"used", b"1")
    memo.keep(b"unused", b"2")
    for index in range(5000):
        memo.keep(b"%d" % index, b"")
        assert found(memo, b"used") == b"1"
    assert found(memo, b"unused") is None
