"""The way out: by which proxy, and whose certificates are trusted.

As with other programs the variables ``http_proxy``, ``https_proxy``, ``no_proxy`` (or in capitals)
and ``SSL_CERT_FILE`` say so.
"""

from __future__ import annotations

import functools
import ipaddress
import ssl
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

PROXY_SCHEMES = ("http://", "https://")


@functools.lru_cache(maxsize=64)  # the environment of a process does not change
def proxy_for(origin: str) -> str | None:
    """URL of the proxy for a URL, None for the straight way. Nobody on loopback is asked by way of
    a proxy, whatever ``no_proxy`` says: a child of ours listens there.
    """
    parts = urlsplit(origin)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None
    return proxy if proxy.startswith(PROXY_SCHEMES) else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback if is_address(host) else host == "localhost"


def is_address(host: str) -> bool:
    """An IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@functools.cache
def tls_context() -> ssl.SSLContext:
    """For clients: OpenSSL's trust, see ``trusted_roots``."""
    return ssl.create_default_context()


@functools.cache
def trusted_roots() -> bytes | None:
    """PEM of the certificates that OpenSSL trusts: SSL_CERT_FILE, else the system's. None where the
    system has no such file. For libraries that bring certificates of their own.
    """
    cafile = ssl.get_default_verify_paths().cafile
    return Path(cafile).read_bytes() if cafile else None
