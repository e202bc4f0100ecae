from __future__ import annotations

from gateway.access.handovers import Handovers, id_of


def test_an_id_is_that_of_the_spans():
    assert id_of(b"some spans") == id_of(b"some spans")
    assert id_of(b"some spans") != id_of(b"other spans")


def test_what_was_taken_is_known_by_tenant_and_id():
    handovers = Handovers()
    handovers.note("shop", "1")
    assert handovers.knows("shop", "1")
    assert not handovers.knows("shop", "2")
    assert not handovers.knows("", "1")


def test_the_oldest_are_forgotten():
    handovers = Handovers(most=3)
    for number in range(5):
        handovers.note("", str(number))
    assert len(handovers) == 3
    assert [handovers.knows("", str(number)) for number in range(5)] == [False] * 2 + [True] * 3


def test_what_is_no_id_of_ours_takes_no_memory():
    handovers = Handovers()
    handovers.note("", "x" * 8000)
    assert not len(handovers)
