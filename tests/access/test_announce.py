from __future__ import annotations

import datetime
import logging

import pytest

from gateway.access.announce import say_open, say_tls
from gateway.access.tls import Tls
from gateway.access.tokens import OPEN, Gates
from gateway.credentials import Token
from tests.kit.authority import AUTHORITY, MUTUAL_TLS, TLS

TOKEN = Token("a-token-0123")


@pytest.fixture(autouse=True)
def everything_is_logged(caplog):
    caplog.set_level(logging.INFO)


@pytest.mark.parametrize(
    ("host", "level"),
    [
        ("0.0.0.0", "WARNING"),
        ("::", "WARNING"),
        ("10.0.0.1", "WARNING"),
        ("gateway.internal", "WARNING"),
        ("127.0.0.1", "INFO"),
        ("127.9.9.9", "INFO"),
        ("::1", "INFO"),
        ("localhost", "INFO"),
    ],
)
def test_an_open_gateway_says_so_and_warns_where_others_can_reach_it(caplog, host, level):
    say_open(OPEN, host)
    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage() == "open to everybody"
    assert record.facts["what"] == "sending spans and asking for traces"
    assert record.facts["remedy"] == "set GATEWAY_INGEST_TOKENS and GATEWAY_QUERY_TOKENS"


def test_only_the_open_side_is_named(caplog):
    say_open(Gates.of(ingest=[TOKEN]), "0.0.0.0")
    (record,) = caplog.records
    assert record.facts["what"] == "asking for traces"
    assert record.facts["remedy"] == "set GATEWAY_QUERY_TOKENS"


def test_nothing_is_said_where_both_need_a_token(caplog):
    say_open(Gates.of(ingest=[TOKEN], query=[TOKEN]), "0.0.0.0")
    assert not caplog.records


@pytest.mark.parametrize(("tls", "clients"), [(TLS, "not needed"), (MUTUAL_TLS, "needed")])
def test_a_good_certificate_says_until_when_and_what_clients_need(caplog, tls, clients):
    say_tls(tls, 4317)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", "tls")
    assert record.facts["client_certificates"] == clients
    assert record.facts["expires"].startswith("3000-")


def test_an_expired_certificate_is_a_warning_with_what_to_do(caplog):
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    cert = AUTHORITY.issue_cert("localhost", not_before=past, not_after=past)
    chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems)
    say_tls(Tls(chain, cert.private_key_pem.bytes(), None), 4317)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.facts["why"] == "certificate has expired"
    assert "GATEWAY_TLS_CERT" in record.facts["remedy"]
