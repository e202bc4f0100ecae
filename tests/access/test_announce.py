from __future__ import annotations

import logging

import pytest

from gateway.access.announce import say_open
from gateway.access.tokens import OPEN, Gates
from gateway.credentials import Token

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
