"""The bytes of the spool's files: records in the log, marks in the list of released ones.

A record in a segment, little-endian, without padding::

    marker         8 bytes   the segment's own random bytes, which its file name states too
    header crc     u32       CRC-32 of the fields that follow, up to the tenant
    body crc       u32       CRC-32 of tenant and payload
    sequence       u64
    received at    f64       Unix time in seconds
    spans          u32
    payload size   u32       bytes
    tenant size    u16       bytes
    tenant, payload

The header has a checksum of its own, so that a damaged body costs one record of known size and
known spans. A damaged header is got over by looking for the next marker. The marker is random for
each segment, since payloads are written by strangers: none can hold bytes that a recovery takes
for a record, nor can old blocks that a file system hands out again after a power loss.

A mark says that ``count`` records from number ``start`` of its segment are done with. It has a
fixed size, so that a damaged one spoils no other, and its checksum is seeded with the marker::

    crc u32, start u32, count u32
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from zlib import crc32

from gateway.envelope import Envelope

MARKER_BYTES = 8
_CRC = struct.Struct("<I")
_FIELDS = struct.Struct("<IQdIIH")
_FIELDS_AT = MARKER_BYTES + _CRC.size
_HEADER = struct.Struct(f"<{MARKER_BYTES}sI{_FIELDS.format[1:]}")
HEADER_BYTES = _HEADER.size

_MARK = struct.Struct("<III")
_RUN = struct.Struct("<II")
MARK_BYTES = _MARK.size

# Both ways, so that any string comes back as it was, lone surrogates of a raw header included.
_TENANT_CODEC = ("utf-8", "surrogatepass")


class Header(NamedTuple):
    """What a record says of itself; its own checksum held."""

    body_crc: int
    sequence: int
    received_at: float
    spans: int
    payload_bytes: int
    tenant_bytes: int

    @property
    def body_bytes(self) -> int:
        return self.tenant_bytes + self.payload_bytes

    @property
    def record_bytes(self) -> int:
        return HEADER_BYTES + self.tenant_bytes + self.payload_bytes


def record_bytes(envelope: Envelope) -> int:
    """Size of the record of this envelope."""
    tenant = envelope.tenant
    size = len(tenant.encode(*_TENANT_CODEC)) if tenant else 0
    return HEADER_BYTES + size + len(envelope.payload)


def encode_head(marker: bytes, sequence: int, envelope: Envelope) -> bytes:
    """The record of *envelope* up to its payload, which follows as it is, not copied.

    The tenant may take up to 65535 bytes, payload and spans up to 2**32 - 1.
    """
    tenant, payload, spans, received_at = envelope
    name = tenant.encode(*_TENANT_CODEC) if tenant else b""
    body_crc = crc32(payload, crc32(name))
    fields = _FIELDS.pack(body_crc, sequence, received_at, spans, len(payload), len(name))
    return marker + _CRC.pack(crc32(fields)) + fields + name


def header_at(buffer: bytes, offset: int, marker: bytes) -> Header | None:
    """The header that starts at *offset*, or None where there is no whole and sound one."""
    fields_at = offset + _FIELDS_AT
    end = offset + HEADER_BYTES
    if end > len(buffer) or not buffer.startswith(marker, offset):
        return None
    if crc32(buffer[fields_at:end]) != _CRC.unpack_from(buffer, offset + MARKER_BYTES)[0]:
        return None
    return Header(*_FIELDS.unpack_from(buffer, fields_at))


def sound_records(
    buffer: bytes, offset: int, marker: bytes, sequence: int
) -> tuple[list[int], list[int]]:
    """Sizes and spans of the records from *offset* on, up to the first that is not whole in
    *buffer*, not sound, or not the next in sequence.

    Says what ``header_at`` and a look at the body say, in one loop and at a third of the cost: a
    start goes through the whole spool with it.
    """
    sizes: list[int] = []
    spans: list[int] = []
    end = len(buffer)
    while (body_at := offset + HEADER_BYTES) <= end:
        head = _HEADER.unpack_from(buffer, offset)
        found_marker, header_crc, body_crc, found_sequence, _, count, payload, tenant = head
        next_at = body_at + tenant + payload
        if (
            found_marker != marker
            or crc32(buffer[offset + _FIELDS_AT : body_at]) != header_crc
            or found_sequence != sequence
            or next_at > end
            or crc32(buffer[body_at:next_at]) != body_crc
        ):
            break
        sizes.append(next_at - offset)
        spans.append(count)
        sequence += 1
        offset = next_at
    return sizes, spans


def decode(buffer: bytes, offset: int, marker: bytes) -> tuple[int, Envelope] | None:
    """The sequence and envelope of the record at *offset*, or None where it is not sound."""
    header = header_at(buffer, offset, marker)
    if header is None or offset + header.record_bytes > len(buffer):
        return None
    payload_at = offset + HEADER_BYTES + header.tenant_bytes
    tenant = buffer[offset + HEADER_BYTES : payload_at]
    return compose(header, tenant, buffer[payload_at : payload_at + header.payload_bytes])


def compose(header: Header, tenant: bytes, payload: bytes) -> tuple[int, Envelope] | None:
    """The sequence and envelope of a record read in parts, or None where its body is not sound."""
    if crc32(payload, crc32(tenant)) != header.body_crc:
        return None
    name = tenant.decode(*_TENANT_CODEC)
    return header.sequence, Envelope(name, payload, header.spans, header.received_at)


def encode_marks(marker: bytes, runs: Iterable[tuple[int, int]]) -> bytes:
    """Marks for runs of records, each given as its first number and the one after its last."""
    seed = crc32(marker)
    marks = []
    for start, stop in runs:
        count = stop - start
        marks.append(_MARK.pack(crc32(_RUN.pack(start, count), seed), start, count))
    return b"".join(marks)


def decode_marks(marker: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    """The runs of those marks in *data* that are sound; a torn tail and damaged ones are passed
    over, which costs a second delivery of what they named.
    """
    seed = crc32(marker)
    for offset in range(0, len(data) - MARK_BYTES + 1, MARK_BYTES):
        crc, start, count = _MARK.unpack_from(data, offset)
        if crc == crc32(_RUN.pack(start, count), seed):
            yield start, start + count
