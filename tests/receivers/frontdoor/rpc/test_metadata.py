from __future__ import annotations

import base64
import urllib.parse

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from gateway.receivers.frontdoor.rpc import metadata


def decoded(block: bytes) -> dict[str, str]:
    return dict(Decoder().decode(block))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("10S", 10), ("1500m", 1.5), ("7u", 7e-6), ("3n", 3e-9), ("0S", 0)],
)
def test_a_timeout_is_a_number_and_a_unit(text, seconds):
    assert metadata.read_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "S", "1", "1s", "-1S", "1.5S", "1 S", "S1", "9" * 5000 + "S", "\u0661S"]
)
def test_anything_else_is_no_timeout(text):
    with pytest.raises(ValueError):
        metadata.read_timeout(text)


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc; charset=utf-8", True),
        ("APPLICATION/GRPC", True),
        ("application/grpc-web", False),
        ("application/grpcx", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_grpc_is_told_by_its_content_type(content_type, is_grpc):
    assert metadata.is_grpc(content_type) is is_grpc


@given(st.text(max_size=200))
def test_any_message_survives_its_encoding(message):
    told = decoded(metadata.trailers(13, message)).get("grpc-message", "")
    assert told.isascii()
    assert urllib.parse.unquote(told) == message.encode("utf-8", "replace").decode()


def test_details_are_base64_without_padding():
    told = decoded(metadata.trailers_only(14, "later", b"\x08\x0e!"))
    assert told["grpc-status"] == "14"
    assert base64.b64decode(told["grpc-status-details-bin"] + "==") == b"\x08\x0e!"
    assert "=" not in told["grpc-status-details-bin"]
    assert (told[":status"], told["content-type"]) == ("200", "application/grpc")


def test_ok_needs_no_message():
    assert decoded(metadata.OK_TRAILERS) == {"grpc-status": "0"}
