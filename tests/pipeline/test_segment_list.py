from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.envelope import Envelope
from gateway.pipeline.framing import MARK_BYTES
from gateway.pipeline.segment_file import Segment
from gateway.pipeline.segment_index import Damage
from gateway.pipeline.segment_list import SegmentList, runs_of


@pytest.fixture
def segments(tmp_path):
    """Two segments with the sequences 1 to 3 and 4 to 6, the second still written to."""
    created = [Segment.create(tmp_path, first, fsync=False) for first in (1, 4)]
    listed = SegmentList()
    listed.insert(*created)
    for segment in created:
        listed.add_records(segment, [Envelope("", b"", 2, 0.0)] * 3, [100] * 3)
    created[0].seal()
    yield listed
    created[1].seal()


def test_knows_size_and_what_is_pending(segments):
    assert segments.size_bytes == 6 * (100 + MARK_BYTES)
    assert (segments.pending_records, segments.pending_spans) == (6, 12)


def test_settles_what_is_pending_across_segments_and_passes_over_the_rest(segments):
    first, second = segments

    assert segments.settle([0, 3, 4, 4, 6, 99]) == {first: [(2, 3)], second: [(0, 1), (2, 3)]}
    assert segments.settle([3]) == {first: []}
    assert (segments.pending_records, segments.pending_spans) == (3, 6)


def test_deletes_a_segment_when_nothing_of_it_is_pending_and_nobody_writes_to_it(segments):
    first, second = segments
    segments.settle(range(1, 7))

    segments.delete_finished()

    assert list(segments) == [second]
    assert not first.path.exists()
    assert second.path.exists()
    assert segments.size_bytes == 3 * (100 + MARK_BYTES)


def test_a_segment_that_cannot_be_deleted_stays_counted_until_it_can(segments):
    first, second = segments
    segments.settle(range(1, 4))
    first.path.unlink()
    first.path.mkdir()

    segments.delete_finished()

    assert list(segments) == [first, second]
    assert segments.size_bytes == 6 * (100 + MARK_BYTES)

    first.path.rmdir()
    segments.delete_finished()

    assert list(segments) == [second]


def test_losing_a_record_counts_it_unless_it_was_released_meanwhile(segments):
    first, _ = segments
    segments.settle([1])

    assert segments.lose(first, [0, 1]) == Damage(records=1, spans=2, bytes=100)
    assert segments.damage == Damage(records=1, spans=2, bytes=100)
    assert segments.pending_records == 4


def test_an_empty_segment_does_not_hide_the_one_with_the_same_first_sequence(segments, tmp_path):
    empty = Segment.create(tmp_path, 4, fsync=False)
    segments.insert(empty)
    empty.seal()

    segments.settle([5])

    assert segments.pending_records == 5


@given(st.lists(st.integers(0, 30)))
def test_runs_hold_each_number_once_and_do_not_touch(numbers):
    runs = list(runs_of(numbers))

    assert [n for start, stop in runs for n in range(start, stop)] == sorted(set(numbers))
    assert all(left[1] < right[0] for left, right in itertools.pairwise(runs))
