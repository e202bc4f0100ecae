from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.receivers.frontdoor.gather import Gathered


def test_a_large_piece_is_passed_on_as_it_is():
    piece = bytes(5000)
    assert Gathered().add(piece) is piece


def test_small_pieces_are_joined():
    gathered = Gathered()
    passed = [gathered.add(b"x") for _ in range(512)]
    assert passed == [b""] * 511 + [b"x" * 512]


@given(st.lists(st.integers(0, 6000)))
def test_nothing_is_lost_or_reordered(sizes):
    gathered = Gathered()
    pieces = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    passed = [gathered.add(piece) for piece in pieces]
    assert b"".join([*passed, gathered.rest()]) == b"".join(pieces)
    assert gathered.rest() == b""
