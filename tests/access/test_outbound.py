"""By which proxy, and whose certificates."""

from __future__ import annotations

import os

import pytest

from gateway.access.outbound import is_address, is_loopback, proxy_for, tls_context, trusted_roots


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Of a process that has none of the variables, and has not looked at them before."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)
    for cached in (proxy_for, tls_context, trusted_roots):
        cached.cache_clear()
    yield monkeypatch
    for cached in (proxy_for, tls_context, trusted_roots):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "http://tempo:4317", None),
        ({"http_proxy": "http://p:3128"}, "http://tempo:4317", "http://p:3128"),
        ({"HTTP_PROXY": "p:3128"}, "http://tempo:4317", "http://p:3128"),
        ({"http_proxy": "http://p:3128"}, "https://tempo:4317", None),
        ({"https_proxy": "http://p:3128"}, "https://tempo/v1/traces", "http://p:3128"),
        ({"http_proxy": "http://p:3128", "no_proxy": ".internal"}, "http://a.internal:1", None),
        ({"http_proxy": "http://p:3128", "NO_PROXY": "tempo:4317"}, "http://tempo:4317", None),
        ({"http_proxy": "http://p:3128"}, "http://127.0.0.1:3201", None),
        ({"http_proxy": "http://p:3128"}, "http://[::1]:3201", None),
        ({"http_proxy": "http://p:3128"}, "http://localhost:3201", None),
    ],
)
def test_the_proxy_is_that_of_the_usual_variables_and_never_one_for_loopback(
    environment, environ, url, proxy
):
    for name, value in environ.items():
        environment.setenv(name, value)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("host", "address", "loopback"),
    [
        ("127.0.0.2", True, True),
        ("::1", True, True),
        ("localhost", False, True),
        ("10.0.0.1", True, False),
        ("tempo", False, False),
        ("1.2.3", False, False),
    ],
)
def test_what_a_host_is(host, address, loopback):
    assert (is_address(host), is_loopback(host)) == (address, loopback)


def test_the_roots_are_those_of_the_file_that_is_named(environment, tmp_path):
    authority = tmp_path / "authority.pem"
    authority.write_bytes(b"a certificate")
    environment.setenv("SSL_CERT_FILE", str(authority))
    assert trusted_roots() == b"a certificate"
