"""Certificates for tests, made when they are needed."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import grpc
import trustme

from gateway.access.tls import Tls

AUTHORITY = trustme.CA()
"""Signs the gateway's certificate and those of its clients."""
STRANGER = trustme.CA()
"""Nobody trusts it."""

_GATEWAY = AUTHORITY.issue_cert("localhost", "127.0.0.1")
CERTIFICATE = b"".join(blob.bytes() for blob in _GATEWAY.cert_chain_pems)
KEY = _GATEWAY.private_key_pem.bytes()
ROOT = AUTHORITY.cert_pem.bytes()

TLS = Tls(CERTIFICATE, KEY, None)
MUTUAL_TLS = Tls(CERTIFICATE, KEY, ROOT)


def client_context(
    *, trusts: trustme.CA = AUTHORITY, signed_by: trustme.CA | None = None
) -> ssl.SSLContext:
    """A client that trusts one authority and, with ``signed_by``, shows a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusts.configure_trust(context)
    if signed_by is not None:
        signed_by.issue_cert("client@gateway.test").configure_cert(context)
    return context


def channel_credentials(
    *, trusts: trustme.CA = AUTHORITY, signed_by: trustme.CA | None = None
) -> grpc.ChannelCredentials:
    """The same for grpcio."""
    root = trusts.cert_pem.bytes()
    if signed_by is None:
        return grpc.ssl_channel_credentials(root)
    client = signed_by.issue_cert("client@gateway.test")
    chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
    return grpc.ssl_channel_credentials(root, client.private_key_pem.bytes(), chain)


class Identity(NamedTuple):
    """What a server of some name shows."""

    key: bytes
    chain: bytes
    """PEM, as the key."""
    context: ssl.SSLContext


def identity_of(name: str) -> Identity:
    """Signed by the authority."""
    issued = AUTHORITY.issue_cert(name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(context)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return Identity(issued.private_key_pem.bytes(), chain, context)


def root_file(folder: Path) -> str:
    """A file that has the authority's certificate, as SSL_CERT_FILE names one."""
    path = folder / "authority.pem"
    path.write_bytes(ROOT)
    return str(path)
