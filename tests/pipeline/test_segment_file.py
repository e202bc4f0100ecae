from __future__ import annotations

import errno
import os
import stat

import pytest

from gateway.envelope import Envelope
from gateway.pipeline.framing import MARK_BYTES, encode_head, record_bytes
from gateway.pipeline.segment_file import Name, Segment
from gateway.pipeline.segment_index import Damage
from tests.kit.disks import file_size_limit

FIRST = 100


@pytest.fixture
def segment(tmp_path):
    segment = Segment.create(tmp_path, FIRST, fsync=True)
    yield segment
    segment.seal()


def write(segment, *payloads, fsync=False):
    envelopes = [Envelope("shop", payload, 2, 1.5) for payload in payloads]
    buffers = []
    for sequence, envelope in enumerate(envelopes, segment.first + len(segment.index)):
        buffers += [encode_head(segment.marker, sequence, envelope), envelope.payload]
    segment.write(buffers, sum(map(len, buffers)), fsync=fsync)
    segment.index.add([record_bytes(e) for e in envelopes], [e.spans for e in envelopes])


def recovered(segment):
    """What a new process finds: the segment, what is lost, and the torn bytes."""
    name = Name.parse(segment.path.name)
    assert name is not None
    again = Segment(segment.path, name)
    return again, *again.recover()


def read_all(segment):
    number, payloads = 0, []
    while piece := segment.index.piece(number, 2**20):
        payloads += [envelope and envelope.payload for _, envelope in segment.read(piece)]
        number = piece.stop
    return payloads


def flip(path, place):
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 0xFF]))


def test_its_files_are_for_the_owner_only(segment):
    write(segment, b"one")
    segment.mark([(0, 1)])

    modes = {path.suffix: path.stat().st_mode for path in segment.path.parent.iterdir()}

    assert {suffix: stat.S_IMODE(mode) for suffix, mode in modes.items()} == {
        ".log": 0o600,
        ".released": 0o600,
    }


@pytest.mark.parametrize("text", ["lock", "1-00.log", "x" * 20 + "-" + "0" * 16 + ".log"])
def test_a_name_of_another_form_is_none(text):
    assert Name.parse(text) is None


def test_reads_what_was_written_and_finds_it_after_a_restart(segment):
    write(segment, b"one", b"two", fsync=True)
    write(segment, b"")

    again, lost, torn_bytes = recovered(segment)

    assert read_all(segment) == read_all(again) == [b"one", b"two", b""]
    assert (again.index.pending_records, again.index.pending_spans) == (3, 6)
    assert (lost, torn_bytes) == (Damage(), 0)


def test_writes_groups_of_more_buffers_than_one_system_call_takes(segment):
    payloads = [b"%d" % number for number in range(2000)]

    write(segment, *payloads)

    assert read_all(recovered(segment)[0]) == payloads


def test_a_write_that_fails_half_way_is_taken_back_and_the_next_follows(segment):
    write(segment, b"before")
    end = segment.index.end

    with file_size_limit(end + 50), pytest.raises(OSError) as failed:
        write(segment, b"x" * 40, b"y" * 40)

    assert failed.value.errno == errno.EFBIG
    assert segment.path.stat().st_size == end
    assert segment.writable
    write(segment, b"after")
    assert read_all(recovered(segment)[0]) == [b"before", b"after"]


def test_a_segment_that_cannot_be_cut_after_a_failed_write_is_sealed(segment):
    write(segment, b"before")
    fd = segment._fd
    assert fd is not None
    with segment.path.open("rb") as read_only:
        os.dup2(read_only.fileno(), fd)  # neither written nor cut

    with pytest.raises(OSError):
        write(segment, b"lost")

    assert not segment.writable
    assert segment.garbage_bytes
    with pytest.raises(AssertionError, match="sealed"):
        write(segment, b"more")


def test_a_failed_sync_takes_the_group_back_and_seals(segment):
    """A pipe takes every write and cannot be synced."""
    receiver, sender = os.pipe()
    fd = segment._fd
    assert fd is not None
    os.dup2(sender, fd)
    os.close(sender)

    with pytest.raises(OSError) as failed:
        write(segment, b"not safe", fsync=True)

    os.close(receiver)
    assert failed.value.errno == errno.EINVAL
    assert not segment.writable


def test_a_damaged_record_is_none_and_the_others_come(segment):
    write(segment, b"one", b"two", b"three")
    flip(segment.path, segment.index.offset_of(2) - 1)

    assert read_all(segment) == [b"one", None, b"three"]


def test_a_sound_record_at_the_place_of_another_is_none(segment):
    write(segment, b"one", b"two")
    data = segment.path.read_bytes()
    half = len(data) // 2
    segment.path.write_bytes(data[half:] + data[:half])

    assert read_all(segment) == [None, None]


def test_records_of_a_file_that_was_taken_away_are_none(segment):
    write(segment, b"one", b"two")
    segment.path.unlink()

    assert read_all(segment) == [None, None]


def test_a_disk_that_refuses_a_read_is_an_os_error(segment):
    write(segment, b"one")
    piece = segment.index.piece(0, 1)
    segment.path.unlink()
    segment.path.symlink_to(segment.path)

    with pytest.raises(OSError):
        list(segment.read(piece))


def test_released_records_are_not_pending_after_a_restart(segment):
    write(segment, b"one", b"two", b"three", b"four")
    segment.mark([(0, 1)])
    segment.mark([(2, 4)])

    assert read_all(recovered(segment)[0]) == [b"two"]


def test_marks_go_on_after_a_torn_one(segment):
    write(segment, b"one", b"two", b"three")
    segment.mark([(0, 1)])
    marks = segment.path.with_suffix(".released")
    with marks.open("ab") as file:
        file.write(b"torn")

    again = recovered(segment)[0]
    again.mark([(2, 3)])

    assert marks.stat().st_size == 2 * MARK_BYTES
    assert read_all(recovered(segment)[0]) == [b"two"]


def test_marks_that_cannot_be_written_are_written_with_the_next(segment):
    write(segment, b"one", b"two", b"three")
    marks = segment.path.with_suffix(".released")
    marks.mkdir()
    segment.mark([(0, 1)])
    marks.rmdir()

    segment.mark([(2, 3)])

    assert read_all(recovered(segment)[0]) == [b"two"]


def test_marks_that_are_cut_short_by_a_full_disk_are_written_with_the_next(segment):
    write(segment, b"one", b"two", b"three")
    with file_size_limit(MARK_BYTES + 5):
        segment.mark([(0, 1), (2, 3)])

    segment.mark([])

    assert read_all(recovered(segment)[0]) == [b"two"]


def test_marks_that_cannot_be_read_cost_a_second_delivery(segment):
    write(segment, b"one", b"two")
    marks = segment.path.with_suffix(".released")
    segment.mark([(0, 1)])
    marks.unlink()
    marks.symlink_to(marks)

    assert read_all(recovered(segment)[0]) == [b"one", b"two"]


def test_damage_to_a_released_record_is_no_loss(segment):
    write(segment, b"one", b"two", b"three")
    segment.mark([(1, 2)])
    flip(segment.path, segment.index.offset_of(1))  # its header

    again, lost, _ = recovered(segment)

    assert (lost.records, lost.spans) == (0, 0)
    assert read_all(again) == [b"one", b"three"]


def test_a_lost_record_is_counted_with_the_spans_its_header_tells(segment):
    write(segment, b"one", b"two", b"three")
    flip(segment.path, segment.index.offset_of(2) - 1)

    again, lost, _ = recovered(segment)

    assert lost == Damage(records=1, spans=2, bytes=record_bytes(Envelope("shop", b"two", 2, 1.5)))
    assert read_all(again) == [b"one", b"three"]
    assert again.index.pending_records == 2


def test_a_torn_tail_is_cut_off(segment):
    write(segment, b"one", b"two")
    size = segment.path.stat().st_size
    os.truncate(segment.path, size - 1)

    again, lost, torn_bytes = recovered(segment)

    assert (lost, torn_bytes) == (Damage(), size - 1 - again.index.end)
    assert segment.path.stat().st_size == again.index.end
    assert recovered(segment)[2] == 0


def test_a_segment_that_cannot_be_read_is_kept_for_another_start(segment):
    write(segment, b"one")
    aside = segment.path.rename(segment.path.with_name("aside"))
    segment.path.symlink_to(segment.path)

    again, lost, _ = recovered(segment)

    assert lost.records == 1
    assert read_all(again) == []
    assert not again.finished
    aside.rename(segment.path)
    assert read_all(recovered(segment)[0]) == [b"one"]


def test_remove_takes_both_files_for_good_and_is_safe_twice(segment):
    write(segment, b"one")
    segment.mark([(0, 1)])

    assert segment.remove()
    assert segment.remove()
    segment.mark([(0, 1)])
    assert list(segment.path.parent.iterdir()) == []
