from __future__ import annotations

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from gateway.receivers.frontdoor.http2 import headers
from gateway.receivers.frontdoor.http2.frames import ConnectionFault, ErrorCode, StreamFault
from gateway.receivers.frontdoor.http2.headers import (
    HeaderDecoder,
    check_trailers,
    encode,
    read_request,
)
from tests.receivers.frontdoor.peers import REQUEST

FIELDS = [(name.encode(), value.encode()) for name, value in REQUEST]


def but(**changes):
    """The request with changed pseudo-header fields; None leaves one out."""
    fields = [(name, changes.get(name.decode().strip(":"), value)) for name, value in FIELDS]
    return [(name, value) for name, value in fields if value is not None]


def test_a_well_formed_request_is_read():
    head = read_request([*FIELDS, (b"content-length", b"12"), (b"x-scope-orgid", "ä".encode())])
    assert (head.method, head.path, head.content_length) == ("POST", "/a.B/C", 12)
    assert head.fields == [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("content-length", "12"),
        ("x-scope-orgid", "ä"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(but(method=None), id="no method"),
        pytest.param(but(scheme=None), id="no scheme"),
        pytest.param(but(path=None), id="no path"),
        pytest.param(but(path=b""), id="empty path"),
        pytest.param([*but(path=None), (b":path", b"/")], id="pseudo after regular"),
        pytest.param([(b":path", b"/"), *FIELDS], id="pseudo twice"),
        pytest.param([(b":status", b"200"), *FIELDS], id="pseudo of a response"),
        pytest.param([(b":protocol", b"x"), *FIELDS], id="unknown pseudo"),
        pytest.param([*FIELDS, (b"Upper", b"x")], id="upper case"),
        pytest.param([*FIELDS, (b"", b"x")], id="empty name"),
        pytest.param([*FIELDS, (b"a b", b"x")], id="blank in name"),
        pytest.param([*FIELDS, (b"a:b", b"x")], id="colon in name"),
        pytest.param([*FIELDS, ("ä".encode(), b"x")], id="name outside ASCII"),
        pytest.param([*FIELDS, (b"a", b"x\r\ny: z")], id="line end in value"),
        pytest.param([*FIELDS, (b"a", b"\0")], id="NUL in value"),
        pytest.param([*FIELDS, (b"a", b" x")], id="blank before value"),
        pytest.param([*FIELDS, (b"a", b"x\t")], id="tab behind value"),
        pytest.param(but(path=b"/ "), id="blank behind pseudo value"),
        pytest.param([*FIELDS, (b"connection", b"close")], id="connection"),
        pytest.param([*FIELDS, (b"transfer-encoding", b"chunked")], id="transfer-encoding"),
        pytest.param([*FIELDS, (b"upgrade", b"h2c")], id="upgrade"),
        pytest.param([*FIELDS, (b"keep-alive", b"1")], id="keep-alive"),
        pytest.param([*FIELDS, (b"proxy-connection", b"1")], id="proxy-connection"),
        pytest.param([*FIELDS, (b"te", b"gzip")], id="te other than trailers"),
        pytest.param([*FIELDS, (b"content-length", b"x")], id="content-length no number"),
        pytest.param([*FIELDS, (b"content-length", b"-1")], id="content-length negative"),
        pytest.param([*FIELDS, (b"content-length", b"1"), (b"content-length", b"2")], id="two"),
    ],
)
def test_a_malformed_request_is_a_fault_of_its_stream(fields):
    with pytest.raises(StreamFault) as caught:
        read_request(fields)
    assert caught.value.code is ErrorCode.PROTOCOL_ERROR


def test_headers_are_the_same_however_a_client_compresses_them():
    plain, huffman = HeaderDecoder(), HeaderDecoder()
    encoder = Encoder()
    first = plain.request(encode(REQUEST))
    for _ in range(3):  # literals at first, references to the table from then on
        head = huffman.request(encoder.encode(REQUEST, huffman=True))
        assert (head.method, head.path, head.fields) == (first.method, first.path, first.fields)


def test_a_repeated_block_is_the_same_head_until_the_table_changes():
    decoder, encoder = HeaderDecoder(), Encoder()
    decoder.request(encoder.encode(REQUEST))
    block = encoder.encode(REQUEST)
    head = decoder.request(block)
    assert decoder.request(block) is head
    decoder.request(encoder.encode([*REQUEST, ("x-new", "1")]))
    assert decoder.request(encoder.encode(REQUEST)) is not head


def test_the_same_bytes_mean_something_else_after_the_table_has_moved():
    """Index 62 is the newest entry, whatever that is."""
    decoder = HeaderDecoder()
    start = encode([(":method", "POST"), (":scheme", "http"), (":path", "/")])
    decoder.decode(b"\x40\x01a\x01x")
    assert decoder.request(start + b"\xbe").fields == [("a", "x")]
    assert decoder.request(start + b"\xbe").fields == [("a", "x")]
    decoder.decode(b"\x40\x01b\x01y")
    assert decoder.request(start + b"\xbe").fields == [("b", "y")]


def test_a_request_that_moves_the_table_changes_what_earlier_bytes_mean():
    decoder = HeaderDecoder()
    start = encode([(":method", "POST"), (":scheme", "http"), (":path", "/")])
    decoder.request(start + b"\x40\x01a\x01x")
    assert decoder.request(start + b"\xbe").fields == [("a", "x")]
    for _ in range(2):  # the same bytes as well add an entry each time
        decoder.request(start + b"\x40\x01b\x01y")
    assert decoder.request(start + b"\xbe\xbf\xc0").fields == [("b", "y"), ("b", "y"), ("a", "x")]
    assert decoder.request(start + b"\xbe").fields == [("b", "y")]


def test_a_table_that_was_emptied_is_empty():
    """A size update to 0 evicts everything (RFC 7541, section 4.3)."""
    decoder = HeaderDecoder()
    start = encode([(":method", "POST"), (":scheme", "http"), (":path", "/")])
    decoder.decode(b"\x40\x01a\x01x")
    decoder.request(start + b"\xbe")
    decoder.decode(b"\x20")
    with pytest.raises(ConnectionFault) as caught:
        decoder.request(start + b"\xbe")
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"\x80", id="index 0"),
        pytest.param(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", id="huge index"),
        pytest.param(b"\xbe", id="index outside the table"),
        pytest.param(b"\x00\x05ab", id="name cut off"),
        pytest.param(b"\x00\x01a\x05ab", id="value cut off"),
        pytest.param(b"\x00\x01a", id="no value"),
        pytest.param(b"\x00", id="no name"),
        pytest.param(b"\x00\x82\xff\xff\x01a", id="Huffman padding too long"),
        pytest.param(b"\x00\x81\x00\x01a", id="Huffman padding not ones"),
        pytest.param(b"\x00\x84\xff\xff\xff\xff\x01a", id="Huffman EOS"),
        pytest.param(b"\x3f\xff\xff\x7f", id="table larger than allowed"),
        pytest.param(b"\x82\x20", id="size update behind a field"),
        pytest.param(b"\x7f", id="integer cut off"),
    ],
)
def test_an_undecodable_block_is_a_fault_of_the_connection(block):
    with pytest.raises(ConnectionFault) as caught:
        HeaderDecoder().request(block)
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_small_block_that_becomes_a_large_list_ends_the_connection():
    """The HPACK bomb: one entry of 4 kB, referred to again and again."""
    decoder = HeaderDecoder()
    decoder.decode(b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000)
    with pytest.raises(ConnectionFault) as caught:
        decoder.request(b"\xbe" * 10_000)
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_arbitrary_blocks_raise_nothing_but_faults(blocks):
    decoder = HeaderDecoder()
    for block in blocks:
        try:
            decoder.request(block)
        except StreamFault:
            continue
        except ConnectionFault:
            return


def test_what_is_remembered_is_bounded():
    decoder = HeaderDecoder()
    for number in range(1000):
        decoder.request(encode([*REQUEST, ("n", str(number))]))
    decoder.request(encode([*REQUEST, ("n", "x" * 2000)]))
    assert len(decoder._known) <= 64
    assert max(map(len, decoder._known)) <= 512


@given(st.text("abc-", min_size=1, max_size=400), st.text("äx ", max_size=400))
def test_what_we_encode_any_decoder_reads(name, value):
    decoder = headers.Decoder()
    assert decoder.decode(encode([(name, value)])) == [(name, value)]


def test_trailers_are_held_against_the_rules_for_fields():
    decoder = HeaderDecoder()
    check_trailers(decoder.decode(encode([("checksum", "1")])))
    with pytest.raises(StreamFault):
        check_trailers(decoder.decode(encode([(":path", "/")])))
