from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from contextlib import suppress
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Cause, Refused
from gateway.otlp.encoding import Inflater, inflate
from tests.kit.spans import make_payload

MIB = 2**20


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


COMPRESS = {
    "identity": bytes,
    "": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}
COMPRESSED = ["gzip", "deflate", "zstd"]


def refusal(body: bytes, encoding: str, *, max_bytes: int = MIB) -> Refused:
    with pytest.raises(Refused) as caught:
        inflate(body, encoding, max_bytes=max_bytes)
    return caught.value


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in at)})
    return [data[start:stop] for start, stop in pairwise(edges)]


@settings(max_examples=50)
@given(
    st.binary(max_size=5000), st.sampled_from(list(COMPRESS)), st.lists(st.integers(0), max_size=6)
)
def test_inflates_what_was_compressed_however_it_is_cut(data, encoding, at):
    inflater = Inflater(encoding, max_bytes=5000)
    pieces = [p for part in cut(COMPRESS[encoding](data), at) for p in inflater.feed(part)]
    pieces += inflater.finish()
    assert b"".join(pieces) == data
    assert all(pieces)


@pytest.mark.parametrize("encoding", COMPRESS)
def test_large_bodies_come_out_whole(encoding):
    data = make_payload(1) + bytes(range(256)) * 8192
    inflater = Inflater(encoding, max_bytes=len(data))
    body = COMPRESS[encoding](data)
    parts = [body[i : i + 1000] for i in range(0, len(body), 1000)]
    assert b"".join(p for part in parts for p in inflater.feed(part)) == data
    assert not list(inflater.finish())
    assert inflate(body, encoding, max_bytes=len(data)) == data


@pytest.mark.parametrize("encoding", ["GZIP", " gzip", "Identity", "ZSTD", "Deflate "])
def test_labels_are_taken_in_any_case(encoding):
    data = make_payload()
    assert inflate(COMPRESS[encoding.strip().lower()](data), encoding, max_bytes=MIB) == data


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "snappy", "x" * 10_000, "gzip;q=1"])
def test_unknown_encoding_is_refused_with_the_list(encoding):
    refused = refusal(b"", encoding)
    assert refused.cause is Cause.CONTENT_ENCODING
    assert "identity, gzip, deflate, zstd" in refused.message
    assert len(refused.message) < 300


def test_identity_is_passed_on_as_it_is():
    body = make_payload()
    assert inflate(body, "identity", max_bytes=len(body)) is body
    assert inflate(b"", "", max_bytes=0) == b""


@pytest.mark.parametrize("encoding", COMPRESS)
def test_limit_holds_to_the_byte(encoding):
    body = COMPRESS[encoding](bytes(1000))
    assert len(inflate(body, encoding, max_bytes=1000)) == 1000
    refused = refusal(body, encoding, max_bytes=999)
    assert refused.cause is Cause.TOO_LARGE
    assert "999 bytes (GATEWAY_MAX_REQUEST_BYTES)" in refused.message


def many_frames() -> bytes:
    return zstandard.compress(bytes(128 * 1024)) * 2000


BOMBS = {
    "gzip": ("gzip", gzip.compress(bytes(256 * MIB), 9)),
    "gzip in members": ("gzip", gzip.compress(bytes(MIB)) * 256),
    "deflate": ("deflate", zlib.compress(bytes(256 * MIB), 9)),
    "zstd": ("zstd", zstandard.compress(bytes(256 * MIB))),
    "zstd in frames": ("zstd", many_frames()),
}


@pytest.mark.parametrize(("encoding", "body"), BOMBS.values(), ids=BOMBS.keys())
def test_bombs_are_stopped_at_the_limit(encoding, body):
    inflater = Inflater(encoding, max_bytes=4 * MIB)
    tracemalloc.start()
    with pytest.raises(Refused) as caught:
        for piece in inflater.feed(body):
            del piece
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.cause is Cause.TOO_LARGE
    assert peak < 36 * MIB  # one piece, and its parts while they are joined


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_body_cut_off_at_any_byte_is_malformed(encoding):
    body = COMPRESS[encoding](b"spans " * 20)
    for size in range(len(body)):
        refused = refusal(body[:size], encoding)
        assert refused.cause is Cause.MALFORMED
        assert "cut off" in refused.message


@pytest.mark.parametrize(
    "rubbish", [b"\x00", b"rubbish", b"\x1f\x8b"], ids=["zero", "text", "magic"]
)
@pytest.mark.parametrize("encoding", COMPRESSED)
def test_rubbish_behind_the_end_is_malformed(encoding, rubbish):
    for body in (COMPRESS[encoding](b"spans") + rubbish, rubbish):
        assert refusal(body, encoding).cause is Cause.MALFORMED


@pytest.mark.parametrize("encoding", COMPRESSED)
@pytest.mark.parametrize("other", [*COMPRESSED, "identity"])
def test_wrong_label_is_malformed(encoding, other):
    if encoding != other:
        refused = refusal(COMPRESS[other](make_payload()), encoding)
        assert refused.cause is Cause.MALFORMED
        assert f"not valid {encoding} data" in refused.message


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_members_follow_one_another(encoding):
    compress = COMPRESS[encoding]
    body = compress(b"one ") + compress(b"") + compress(b"two")
    assert inflate(body, encoding, max_bytes=7) == b"one two"


def test_members_without_end_are_malformed():
    refused = refusal(gzip.compress(b"") * 5000, "gzip")
    assert refused.cause is Cause.MALFORMED
    assert "4096 members" in refused.message


def test_deflate_without_its_header_is_taken():
    data = make_payload(20)
    assert inflate(raw_deflate(data), "deflate", max_bytes=MIB) == data


@pytest.mark.parametrize("more", [0, 1, 21, 53, 100, 258])
def test_output_that_waits_when_all_input_is_used_comes_out(more):
    """Without a checksum behind it, the last match may fill one piece and overflow into another."""
    data = bytes(256 * 1024 + more)
    assert inflate(raw_deflate(data), "deflate", max_bytes=MIB) == data


def test_second_deflate_stream_is_malformed():
    assert "behind its end" in refusal(zlib.compress(b"a") * 2, "deflate").message


def flipped(body: bytes, at: int) -> bytes:
    changed = bytearray(body)
    changed[at] ^= 0xFF
    return bytes(changed)


def test_forged_checksums_and_sizes_are_malformed():
    body = gzip.compress(b"spans")
    for at in range(-8, 0):
        assert refusal(flipped(body, at), "gzip").cause is Cause.MALFORMED
    assert refusal(flipped(zlib.compress(b"spans"), -1), "deflate").cause is Cause.MALFORMED


def test_announced_size_of_zstd_is_not_believed():
    """A frame that claims 2 GiB of content and holds five bytes."""
    single_segment_with_8_byte_size = 0xE0
    header = b"\x28\xb5\x2f\xfd" + bytes((single_segment_with_8_byte_size,))
    block = struct.pack("<I", 5 << 3 | 1)[:3] + b"spans"
    frame = header + struct.pack("<Q", 2**31) + block
    refused = refusal(frame, "zstd")
    assert refused.cause is Cause.MALFORMED


def test_window_of_zstd_is_bounded():
    parameters = zstandard.ZstdCompressionParameters(window_log=27, strategy=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = compressor.compress(b"spans") + compressor.flush()
    assert refusal(body, "zstd").cause is Cause.MALFORMED
    parameters = zstandard.ZstdCompressionParameters(window_log=23, strategy=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = compressor.compress(b"spans") + compressor.flush()
    assert inflate(body, "zstd", max_bytes=5) == b"spans"


@given(st.binary(max_size=100), st.sampled_from(COMPRESSED))
def test_arbitrary_bytes_are_refused_or_inflated(body, encoding):
    for candidate in (body, COMPRESS[encoding](body)[:8] + body):
        with suppress(Refused):
            assert len(inflate(candidate, encoding, max_bytes=1000)) <= 1000
