from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.envelope import Envelope
from gateway.pipeline.framing import (
    HEADER_BYTES,
    MARK_BYTES,
    decode,
    decode_marks,
    encode_head,
    encode_marks,
    header_at,
    record_bytes,
    sound_records,
)

MARKER = b"\x93marker\xff"
UINT32 = st.integers(0, 2**32 - 1)
ENVELOPES = st.builds(
    Envelope,
    tenant=st.text(st.characters(), max_size=20),  # lone surrogates among them
    payload=st.binary(max_size=200),
    spans=UINT32,
    received_at=st.floats(allow_nan=False),
)


def encode(sequence: int, envelope: Envelope) -> bytes:
    return encode_head(MARKER, sequence, envelope) + envelope.payload


@given(st.integers(0, 2**64 - 1), ENVELOPES, st.binary(max_size=50), st.binary(max_size=50))
def test_a_record_comes_back_as_it_went_in_wherever_it_stands(sequence, envelope, before, after):
    data = encode(sequence, envelope)

    assert decode(before + data + after, len(before), MARKER) == (sequence, envelope)
    assert record_bytes(envelope) == len(data)


@pytest.mark.parametrize("tenant", ["", "zürich"])
def test_a_record_with_any_one_bit_changed_is_no_record(tenant):
    data = encode(7, Envelope(tenant, b"payload", 3, 1.5))

    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode(bytes(damaged), 0, MARKER) is None


def test_a_record_cut_anywhere_is_no_record():
    data = encode(7, Envelope("shop", b"payload", 3, 1.5))

    assert all(decode(data[:end], 0, MARKER) is None for end in range(len(data)))


def test_a_record_of_another_segment_is_no_record():
    assert decode(encode(7, Envelope("", b"payload", 3, 1.5)), 0, b"another.") is None


def test_a_damaged_body_leaves_size_and_spans_known():
    data = bytearray(encode(7, Envelope("shop", b"payload", 3, 1.5)))
    data[HEADER_BYTES + 4] ^= 1

    header = header_at(bytes(data), 0, MARKER)

    assert header is not None
    assert (header.sequence, header.spans, header.record_bytes) == (7, 3, len(data))


@given(st.lists(ENVELOPES, max_size=4), st.integers(0, 8), st.data())
def test_sound_records_are_those_up_to_the_first_that_does_not_decode(envelopes, gap, data):
    """A jump of the sequence ends them too, and so does any changed byte."""
    records = [encode(7 + n + (n > 1) * gap, envelope) for n, envelope in enumerate(envelopes)]
    log = bytearray(b"??" + b"".join(records))
    if envelopes and data.draw(st.booleans()):
        log[data.draw(st.integers(2, len(log) - 1))] ^= data.draw(st.integers(1, 255))
    expected, offset = [], 2
    while (found := decode(bytes(log), offset, MARKER)) and found[0] == 7 + len(expected):
        expected.append(found[1])
        offset += record_bytes(found[1])

    sizes, spans = sound_records(bytes(log), 2, MARKER, 7)

    assert sizes == [record_bytes(envelope) for envelope in expected]
    assert spans == [envelope.spans for envelope in expected]


RUNS = st.lists(st.tuples(UINT32, UINT32).map(lambda pair: (min(pair), max(pair))))


@given(RUNS, st.binary(max_size=MARK_BYTES - 1))
def test_marks_come_back_and_a_torn_tail_is_passed_over(runs, tail):
    assert list(decode_marks(MARKER, encode_marks(MARKER, runs) + tail)) == runs


def test_a_mark_with_any_one_bit_changed_is_passed_over_alone():
    runs = [(0, 3), (9, 10), (4, 6)]
    data = encode_marks(MARKER, runs)

    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        hit = bit // 8 // MARK_BYTES
        assert list(decode_marks(MARKER, bytes(damaged))) == runs[:hit] + runs[hit + 1 :]


def test_marks_of_another_segment_are_none():
    assert list(decode_marks(b"another.", encode_marks(MARKER, [(0, 3)]))) == []
