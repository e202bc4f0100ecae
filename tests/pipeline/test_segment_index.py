from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st

from gateway.envelope import Envelope
from gateway.pipeline.framing import HEADER_BYTES, decode, encode_head, record_bytes
from gateway.pipeline.segment_index import BLOCK_BYTES, Damage, Scan, SegmentIndex, scan

MARKER = b"\x93marker\xff"
FIRST = 100


def make_envelopes(count, *, size=9, spans=2):
    return [Envelope("", bytes([65 + n]) * size, spans, float(n)) for n in range(count)]


def encode(envelopes, first=FIRST):
    return b"".join(
        encode_head(MARKER, sequence, envelope) + envelope.payload
        for sequence, envelope in enumerate(envelopes, first)
    )


def scan_bytes(data: bytes) -> Scan:
    return scan(lambda offset, size: data[offset : offset + size], len(data), MARKER, FIRST)


def whole(found: Scan, data: bytes) -> dict[int, Envelope]:
    """Sequence -> envelope of the records that the scan takes for whole."""
    records = [
        decode(data, found.index.offset_of(number), MARKER)
        for number in range(len(found.index))
        if number not in found.lost
    ]
    return {record[0]: record[1] for record in records if record}


def expected(envelopes, without=()):
    numbered = dict(enumerate(envelopes, FIRST))
    return {sequence: numbered[sequence] for sequence in numbered if sequence not in without}


class TestScan:
    def test_finds_every_record_of_a_sound_segment(self):
        envelopes = make_envelopes(5)
        data = encode(envelopes)

        found = scan_bytes(data)

        assert whole(found, data) == expected(envelopes)
        assert (found.lost, found.damaged_bytes, found.torn_bytes) == ([], 0, 0)
        assert (found.index.pending_records, found.index.pending_spans) == (5, 10)

    def test_finds_records_larger_than_its_block_holding_no_more_than_a_block(self):
        envelopes = make_envelopes(3, size=3 * BLOCK_BYTES + 7)
        data = encode(envelopes)
        sizes = []

        def read(offset, size):
            sizes.append(size)
            return data[offset : offset + size]

        found = scan(read, len(data), MARKER, FIRST)

        assert whole(found, data) == expected(envelopes)
        assert max(sizes) == BLOCK_BYTES

    def test_a_tail_cut_at_any_byte_costs_the_cut_record_only(self):
        envelopes = make_envelopes(3)
        data = encode(envelopes)
        size = record_bytes(envelopes[0])

        for end in range(len(data)):
            found = scan_bytes(data[:end])

            assert whole(found, data) == expected(envelopes[: end // size])
            assert (found.torn_bytes, found.damaged_bytes) == (end % size, 0)

    def test_a_changed_byte_anywhere_costs_its_record_only(self):
        envelopes = make_envelopes(4)
        data = encode(envelopes)
        size = record_bytes(envelopes[0])

        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 0xFF
            found = scan_bytes(bytes(damaged))

            assert whole(found, bytes(damaged)) == expected(envelopes, {FIRST + place // size})
            assert found.lost == [place // size]
            assert found.damaged_bytes == size

    def test_damage_over_several_records_tells_how_many_from_the_next_sequence(self):
        envelopes = make_envelopes(6)
        size = record_bytes(envelopes[0])
        data = bytearray(encode(envelopes))
        data[size + 3 : 4 * size - 2] = bytes(3 * size - 5)

        found = scan_bytes(bytes(data))

        assert found.lost == [1, 2, 3]
        assert found.damaged_bytes == 3 * size
        assert whole(found, bytes(data)) == expected(envelopes, {101, 102, 103})

    def test_damage_up_to_the_end_counts_as_one_record(self):
        envelopes = make_envelopes(4)
        size = record_bytes(envelopes[0])
        data = encode(envelopes)[:size] + bytes(3 * size)

        found = scan_bytes(data)

        assert (found.lost, found.damaged_bytes) == ([1], 3 * size)

    def test_damage_before_a_torn_tail_is_told_apart_from_it(self):
        envelopes = make_envelopes(3)
        size = record_bytes(envelopes[0])
        data = bytearray(encode(envelopes)[:-1])
        data[size] ^= 1

        found = scan_bytes(bytes(data))

        assert (found.lost, found.damaged_bytes, found.torn_bytes) == ([1], size, size - 1)

    def test_foreign_bytes_between_records_cost_no_record(self):
        envelopes = make_envelopes(2)
        size = record_bytes(envelopes[0])
        data = encode(envelopes)
        data = data[:size] + b"x" * 60 + data[size:]

        found = scan_bytes(data)

        assert (found.lost, found.damaged_bytes) == ([], 60)
        assert whole(found, data) == expected(envelopes)

    def test_a_marker_that_lies_across_two_blocks_is_found(self):
        envelope = Envelope("", b"last", 1, 0.0)
        for overlap in range(10):
            garbage = b"x" * (BLOCK_BYTES - overlap)
            data = garbage + encode([envelope])

            assert whole(scan_bytes(data), data) == {FIRST: envelope}

    def test_a_record_hidden_in_a_payload_is_not_taken_for_one(self):
        """It lacks the segment's marker, which who sends a payload cannot know."""
        forged = encode_head(b"guessed!", FIRST + 1, Envelope("victim", b"forged", 1, 0.0))
        data = bytearray(encode([Envelope("", forged + b"forged", 1, 0.0)]))
        data[0] ^= 1

        found = scan_bytes(bytes(data))

        assert whole(found, bytes(data)) == {}
        assert found.lost == [0]

    def test_a_sequence_that_cannot_be_at_its_place_is_damage(self):
        envelopes = make_envelopes(3)
        ahead = encode(envelopes[:1]) + encode(envelopes[1:2], first=FIRST + 2**40)
        again = encode(envelopes[:1]) * 2

        for data in (ahead, again):
            found = scan_bytes(data)

            assert found.lost == [1]
            assert len(whole(found, data)) == 1

    def test_what_cannot_be_read_counts_as_damage_and_keeps_what_was_read(self):
        envelopes = make_envelopes(4, size=BLOCK_BYTES // 2)
        data = encode(envelopes)

        def read(offset, size):
            if offset + size > len(data) - 10:
                raise OSError(errno.EIO, "bad sector")
            return data[offset : offset + size]

        found = scan(read, len(data), MARKER, FIRST)

        assert found.error is not None
        assert set(whole(found, data)) < set(expected(envelopes))
        assert found.index.end == len(data)
        assert len(found.lost) == 1

    def test_a_file_that_is_shorter_than_it_said_ends_the_scan(self):
        data = encode(make_envelopes(3))

        found = scan(lambda at, size: data[at : at + size], len(data) + 100, MARKER, FIRST)

        assert found.error is not None
        assert len(whole(found, data)) == 3

    @given(st.data())
    def test_any_damage_never_brings_a_wrong_record(self, data):
        sizes = data.draw(st.lists(st.integers(0, 90), max_size=6))
        envelopes = [Envelope("t", b"p" * size, 1, 0.0) for size in sizes]
        log = bytearray(encode(envelopes))
        for _ in range(data.draw(st.integers(0, 3))):
            start = data.draw(st.integers(0, len(log)))
            stop = data.draw(st.integers(start, min(start + 150, len(log))))
            log[start:stop] = data.draw(st.binary(max_size=60))

        found = scan_bytes(bytes(log))

        assert whole(found, bytes(log)).items() <= expected(envelopes).items()
        kept = sum(record_bytes(envelope) for envelope in whole(found, bytes(log)).values())
        assert kept + found.damaged_bytes + found.torn_bytes == len(log)


class TestSegmentIndex:
    @given(st.data())
    def test_pieces_give_the_pending_records_in_order_within_the_limit(self, data):
        sizes = data.draw(st.lists(st.integers(HEADER_BYTES, 99), max_size=20))
        index, pending = SegmentIndex(), set(range(len(sizes)))
        index.add(sizes, [1] * len(sizes))
        for _ in range(data.draw(st.integers(0, 5))):
            start = data.draw(st.integers(0, 25))
            stop = data.draw(st.integers(0, 25))
            settled = {number for run in index.settle(start, stop) for number in range(*run)}
            assert settled == pending & set(range(start, stop))
            pending -= settled
        limit = data.draw(st.integers(0, 400))

        seen, number = [], data.draw(st.integers(0, 25))
        start = number
        while piece := index.piece(number, limit):
            numbers = range(piece.start, piece.stop)
            assert piece.end - piece.begin == sum(sizes[number] for number in numbers)
            assert piece.begin == sum(sizes[: piece.start])
            assert piece.end - piece.begin <= limit or len(numbers) == 1
            seen += numbers
            number = piece.stop

        assert seen == sorted(number for number in pending if number >= start)
        assert index.pending_records == index.pending_spans == len(pending)

    def test_a_piece_is_as_large_as_the_limit_allows(self):
        index = SegmentIndex()
        index.add([100] * 10, [1] * 10)

        assert index.piece(2, 399) == (2, 5, 200, 500)
        assert index.piece(2, 400) == (2, 6, 200, 600)
        assert index.piece(2, 10_000) == (2, 10, 200, 1000)


def test_damage_adds_up():
    assert Damage(1, 2, 3).plus(Damage(10, 20, 30)) == Damage(11, 22, 33)
