"""Which protocol a connection speaks, by its first bytes; pure.

Over TLS the bytes seen here are the decrypted ones, so ALPN needs no case of its own: a client that
agreed on ``h2`` begins with the preface all the same (RFC 9113, section 3.4).
"""

from __future__ import annotations

from enum import Enum, auto

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

TLS_ALERT = bytes.fromhex("15 0301 0002 02 28")
"""A record with one fatal alert, handshake_failure (RFC 8446, section 6): the only words that a TLS
client understands before its handshake."""

TLS_FIRST_BYTE = b"\x16"
_TLS_HANDSHAKE = TLS_FIRST_BYTE + b"\x03"


class Spoken(Enum):
    """What a client speaks."""

    HTTP1 = auto()
    HTTP2 = auto()
    TLS = auto()


def sniff(data: bytes) -> Spoken | None:
    """None while more bytes are needed; at most 24 are.

    What is neither HTTP/2 nor TLS is HTTP/1.1, whose parser says what is wrong with it.
    """
    if data.startswith(PREFACE):
        return Spoken.HTTP2
    if data.startswith(_TLS_HANDSHAKE):
        return Spoken.TLS
    if PREFACE.startswith(data) or _TLS_HANDSHAKE.startswith(data):
        return None
    return Spoken.HTTP1
