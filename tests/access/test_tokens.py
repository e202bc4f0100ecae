from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.tokens import OPEN, Gates, authorization_for
from gateway.credentials import Token
from gateway.errors import Cause, Refused

SEND, SEND_A, ASK, BOTH = "send-0123456789", "send-for-a-0123", "ask-for-a-01234", "both-0123456789"
GATES = Gates.of(
    ingest=[Token(SEND), Token(SEND_A, "a"), Token(BOTH, "both")],
    query=[Token(ASK, "a"), Token(BOTH)],
)


def bearer(token: str) -> list[str]:
    return [f"Bearer {token}"]


def basic(user: str, password: str) -> list[str]:
    return ["Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()]


def refusal(authorization: list[str], gate=GATES.ingest) -> Refused:
    with pytest.raises(Refused) as caught:
        gate.admit(authorization)
    return caught.value


@pytest.mark.parametrize(
    "authorization", [[], bearer("anything"), ["nonsense"], ["a", "b"]], ids=repr
)
def test_a_side_without_tokens_is_open_to_everybody(authorization):
    assert OPEN.ingest.is_open
    assert OPEN.query.is_open
    assert OPEN.ingest.admit(authorization) == OPEN.query.admit(authorization) == ""


def test_one_side_can_be_open_alone():
    gates = Gates.of(query=[Token(ASK)])
    assert (gates.ingest.is_open, gates.query.is_open) == (True, False)
    assert not gates.ingest.admit([])
    assert refusal([], gates.query).cause is Cause.UNAUTHENTICATED


def test_a_token_names_its_tenant_or_none():
    assert not GATES.ingest.admit(bearer(SEND))
    assert GATES.ingest.admit(bearer(SEND_A)) == "a"
    assert GATES.query.admit(bearer(ASK)) == "a"


def test_a_token_may_be_on_both_sides_and_mean_another_tenant_there():
    assert GATES.ingest.admit(bearer(BOTH)) == "both"
    assert not GATES.query.admit(bearer(BOTH))


@pytest.mark.parametrize(
    "authorization",
    [
        bearer(SEND),
        ["bearer " + SEND],
        ["BEARER   " + SEND + " "],
        basic("", SEND),
        basic("grafana", SEND),
        ["basic " + base64.b64encode(f"ä:{SEND}".encode("latin-1")).decode()],
    ],
)
def test_takes_bearer_and_basic_however_they_are_written(authorization):
    assert not GATES.ingest.admit(authorization)


def test_the_password_of_basic_may_hold_colons():
    gates = Gates.of(ingest=[Token("with:colons:in:it")])
    assert not gates.ingest.admit(basic("user", "with:colons:in:it"))
    assert refusal(basic("user:with", "colons:in:it:not"), gates.ingest)


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        ([], "takes a token, and there is none"),
        ([f"Bearer {SEND}", f"Bearer {SEND}"], "more than once"),
        ([""], "neither Bearer nor Basic"),
        (["Bearer"], "neither Bearer nor Basic"),
        (["Bearer "], "neither Bearer nor Basic"),
        ([SEND], "neither Bearer nor Basic"),
        ([f"Digest {SEND}"], "neither Bearer nor Basic"),
        (["Basic !!!!"], "no base64"),
        (["Basic ääää"], "no base64"),
        (["Basic " + base64.b64encode(SEND.encode()).decode()], "no colon"),
        (["Bearer " + "x" * 3000], "too long"),
        (bearer(SEND[:-1]), "not known"),
        (bearer(SEND + "x"), "not known"),
        (bearer(SEND.upper()), "not known"),
        (bearer("x" * 2000), "not known"),
        (bearer("ünknown\udcff"), "not known"),
        (basic(SEND, ""), "not known"),
        (bearer(f"a={SEND_A}"), "not known"),
    ],
)
def test_refuses_in_words_what_is_missing_or_wrong(authorization, said):
    refused = refusal(authorization)
    assert refused.cause is Cause.UNAUTHENTICATED
    assert said in refused.message
    assert SEND not in refused.message


def test_the_right_token_at_the_wrong_gate_is_forbidden():
    refused = refusal(bearer(ASK))
    assert refused.cause is Cause.FORBIDDEN
    assert "GATEWAY_INGEST_TOKENS" in refused.message
    assert refusal(bearer(SEND), GATES.query).cause is Cause.FORBIDDEN


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_any_bytes_are_admitted_or_refused(values):
    authorization = [value.decode("utf-8", "surrogateescape") for value in values]
    for prefix in ("", "Bearer ", "Basic "):
        assert refusal([prefix + value for value in authorization])


@pytest.mark.parametrize(
    ("tokens", "token"),
    [
        ([], None),
        ([Token(SEND)], SEND),
        ([Token(SEND), Token(SEND_A, "a")], SEND_A),
        ([Token(SEND_A, "a"), Token(BOTH, "a")], SEND_A),
        ([Token(SEND_A, "b")], None),
    ],
)
def test_shows_another_gateway_the_token_of_the_tenant(tokens, token):
    found = authorization_for(tokens, "a")
    assert found == (token and f"Bearer {token}")
    if token:
        assert Gates.of(ingest=tokens).ingest.admit([found]) in {"", "a"}
