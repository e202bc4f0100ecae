from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.credentials import Token, TokenFault, is_tenant, parse_tokens

A, B = "a-token-0123", "b-token-0123"
BASE64 = "c2hvcnQgYnV0IG9kZA=="


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (A, [Token(A)]),
        (f" {A} , shop={B} ", [Token(A), Token(B, "shop")]),
        (BASE64, [Token(BASE64)]),
        (f"shop={BASE64}", [Token(BASE64, "shop")]),
        ("shop=12345=678", [Token("12345=678", "shop")]),
        (f"a={A},a={B}", [Token(A, "a"), Token(B, "a")]),
        ("x" * 512, [Token("x" * 512)]),
    ],
    ids=["one", "two", "padded", "tenant-padded", "equals-inside", "two-of-a-tenant", "longest"],
)
def test_reads_tokens_and_tenants(text, tokens):
    assert list(parse_tokens(text)) == tokens


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (",", "entry 1 is empty"),
        (f"{A},", "entry 2 is empty"),
        ("1234567", "entry 1: a token has 8 to 512 characters"),
        ("x" * 513, "entry 1: a token has 8 to 512 characters"),
        (f"{A},shop=", "entry 2: a token has 8 to 512"),
        ("two words here", "entry 1: a token has visible ASCII"),
        ("pässword-0123", "entry 1: a token has visible ASCII"),
        (f"a|b={B}", "entry 1: before the = there is no tenant"),
        (f"..={B}", "entry 1: before the = there is no tenant"),
        (f"={B}", "entry 1: before the = there is no tenant"),
        (f"{A},{B},shop={A}", "entries 1 and 3 have the same token"),
    ],
)
def test_tells_which_entry_is_wrong_and_names_no_token(text, said):
    with pytest.raises(TokenFault) as caught:
        parse_tokens(text)
    assert said in str(caught.value)
    for part in (A, B, "pässword", "two words"):
        assert part not in str(caught.value)


def test_a_token_is_not_shown():
    assert A not in repr(parse_tokens(f"shop={A}"))


@given(st.text("ab12345678=,| \tä\x00", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        tokens = parse_tokens(text)
    except TokenFault:
        return
    assert all(8 <= len(token.secret) <= 512 for token in tokens)
    assert all(not token.tenant or is_tenant(token.tenant) for token in tokens)


@pytest.mark.parametrize("text", ["a", "team-1", "x" * 150, "(it's)*!_.", "..."])
def test_names_that_are_tenants(text):
    assert is_tenant(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a|b", "a/b", "x" * 151, "ä", "a\n", "a b"])
def test_names_that_are_none(text):
    assert not is_tenant(text)
