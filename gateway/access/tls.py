"""TLS of the gRPC port: from what the settings hold to what a server needs, and what is wrong with
it.
"""

from __future__ import annotations

import base64
import datetime
import errno
import ssl
import tempfile
from pathlib import Path
from typing import NamedTuple

from gateway.settings import Settings, SettingsError

ALPN = ("h2", "http/1.1")
"""What the front door speaks. What a client then sends counts, not what it has agreed to."""

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; HTTP/2 rules out all others (RFC 9113, section 9.2.2). Those of 1.3 are all good."""

_BEGIN = b"-----BEGIN"
_REMEDY = "give a path, PEM text, or base64 of PEM"


class Tls(NamedTuple):
    """What the port shows and asks for; certificates and keys are PEM."""

    certificate: bytes
    """With those between it and its authority."""
    key: bytes
    client_ca: bytes | None
    """Who has to have signed the certificate of a client; None where clients need none."""

    def server_context(self) -> ssl.SSLContext:
        """Writes the key to a file that only this user can read, and deletes it. Raises TlsFault
        for what does not fit together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(ALPN)
        self._load_into(context)
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(cadata=self.client_ca.decode("ascii", "replace"))
            except ssl.SSLError as error:
                raise TlsFault(f"GATEWAY_TLS_CLIENT_CA cannot be read: {_words(error)}") from error
        return context

    def _load_into(self, context: ssl.SSLContext) -> None:
        with tempfile.NamedTemporaryFile() as file:  # the ssl module reads files only
            file.write(self.key + b"\n" + self.certificate)
            file.flush()
            try:
                context.load_cert_chain(file.name, password=_no_password)
            except ssl.SSLError as error:
                if error.reason == "KEY_VALUES_MISMATCH":
                    raise TlsFault(
                        "GATEWAY_TLS_KEY is not the key of the first certificate in"
                        " GATEWAY_TLS_CERT; the server's own comes first, then those above it"
                    ) from error
                raise TlsFault(
                    "GATEWAY_TLS_CERT and GATEWAY_TLS_KEY cannot be used: " + _words(error)
                ) from error


class Rehearsal(NamedTuple):
    """What a client with the right authority would find."""

    complaint: str | None
    """Why it would hang up; None if it would not."""
    expires: datetime.datetime | None
    """Known only where it would not hang up."""


class TlsFault(ValueError):  # noqa: N818 - what is wrong with a setting, not with the program
    """Certificate and key that cannot be used. The text holds nothing of the key."""


def load_tls(settings: Settings) -> Tls | None:
    """None where no certificate is set. Reads files. Raises SettingsError with every fault."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    faults: list[str] = []

    def read(name: str, text: str, label: str) -> bytes:
        try:
            return read_pem(text, label)
        except TlsFault as fault:
            faults.append(f"{name}: {fault}")
            return b""

    client_ca = settings.tls_client_ca
    tls = Tls(
        read("GATEWAY_TLS_CERT", settings.tls_cert, "CERTIFICATE"),
        read("GATEWAY_TLS_KEY", settings.tls_key, "PRIVATE KEY"),
        read("GATEWAY_TLS_CLIENT_CA", client_ca, "CERTIFICATE") if client_ca else None,
    )
    if not faults:
        try:
            tls.server_context()
        except TlsFault as fault:
            faults.append(str(fault))
    if faults:
        raise SettingsError(faults)
    return tls


def read_pem(text: str, label: str) -> bytes:
    """``text`` is a path, PEM, or base64 of PEM, with a block of ``label``. Raises TlsFault."""
    if _BEGIN.decode() in text:
        pem = text.replace("\\n", "\n").encode()  # as dashboards flatten lines
    else:
        pem = _decode(text) or _read_file(text)
    if _BEGIN not in pem:
        raise TlsFault(f"is no PEM; {_REMEDY} (openssl x509 -inform der makes it of DER)")
    if label.encode() + b"-----" not in pem:
        raise TlsFault(f"has no block BEGIN {label}; it seems to be something else")
    if b"ENCRYPTED" in pem:
        raise TlsFault("is encrypted, and there is nobody to ask; openssl pkey -in decrypts it")
    return pem


def _decode(text: str) -> bytes | None:
    """None for what is no base64 of PEM; a path can look like base64."""
    try:
        decoded = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return None
    return decoded if _BEGIN in decoded else None


def _read_file(path: str) -> bytes:
    # The path is not shown: it may be a key that was damaged on its way.
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) or error.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
            what = "is no file that is there, nor PEM, nor base64 of it"
        else:
            what = f"cannot be read as a file: {error.strerror}"
        raise TlsFault(f"{what}; {_REMEDY}") from None


def rehearse(tls: Tls) -> Rehearsal:
    """A handshake with ourselves, in memory: the one way to have OpenSSL judge a certificate."""
    server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # nobody knows here how clients will call it
    client.load_verify_locations(cadata=tls.certificate.decode("ascii", "replace"))
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its authority may not be known here
    context = tls._replace(client_ca=None).server_context()
    ours = context.wrap_bio(server[0], server[1], server_side=True)
    theirs = client.wrap_bio(server[1], server[0])
    try:
        for side in (theirs, ours, theirs):
            _go_on(side)
    except ssl.SSLCertVerificationError as error:
        return Rehearsal(error.verify_message, None)
    seen = theirs.getpeercert() or {}
    ends = ssl.cert_time_to_seconds(str(seen["notAfter"]))
    return Rehearsal(None, datetime.datetime.fromtimestamp(ends, datetime.UTC))


def _go_on(side: ssl.SSLObject) -> None:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return


def _no_password() -> str:
    """Else OpenSSL asks the terminal."""
    return ""


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
