"""gRPC's framing of messages: a flag, a length of four bytes, the message; pure."""

from __future__ import annotations

PREFIX_BYTES = 5
COMPRESSED = 1


def frame_prefix(message: bytes) -> bytes:
    return b"\x00" + len(message).to_bytes(4, "big")


def frame_message(message: bytes) -> bytes:
    return frame_prefix(message) + message
