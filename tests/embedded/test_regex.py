from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.embedded.regex import MAX_CACHED_STEPS, Regex
from gateway.embedded.regex_syntax import RegexError


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("", "", True),
        ("", "a", False),
        ("a", "a", True),
        ("a", "ba", False),
        ("a|b|", "b", True),
        ("ab*c+d?", "abbcc", True),
        ("a{2,3}", "aaa", True),
        ("a{2,3}", "aaaa", False),
        ("a{2,}", "aaaa", True),
        ("a{2}", "a", False),
        ("a{0}", "", True),
        ("a{,3}", "a{,3}", True),
        ("x{", "x{", True),
        ("a*?b", "aab", True),
        (".", "\n", True),
        ("(?-s).", "\n", False),
        ("(?i)Straße", "sTRASSE", False),
        ("(?i)ÄbC", "äBc", True),
        ("(?i:a)b", "Ab", True),
        ("(?i:a)b", "AB", False),
        ("(?P<name>a)(?<other>b)", "ab", True),
        ("^a$", "a", True),
        ("a^b", "ab", False),
        ("(?m)^a$\n^b$", "a\nb", True),
        (r"\Aa\z", "a", True),
        (r"\bfoo\b bar", "foo bar", True),
        (r"foo\Bbar", "foobar", True),
        (r"foo\bbar", "foobar", False),
        ("[]a]+", "]a", True),
        ("[^]a]", "b", True),
        ("[a-c-]+", "b-", True),
        ("[[:alpha:][:^ascii:]]+", "aé", True),
        (r"[\d\-x]+", "4-x", True),
        (r"\d\D\s\S\w\W", "1a b_ ", True),
        (r"\pL\PL\p{Lu}\p{^Lu}", "é1É1", True),
        (r"\x41\x{1F600}\t\.", "A😀\t.", True),
        (r"\Qa.b\E*", "a.bbb", True),
        (r"\Qa.b", "a.b", True),
        ("\\/cart\\/\\d+", "/cart/17", True),
    ],
)
def test_matches_whole_texts_as_re2_does(pattern, text, expected):
    assert Regex(pattern).matches(text) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        *("(", "a)", "*a", "a**", "a{2}{3}", "[", "[a", "[b-a]", "[[:foo:]]", "\\", "a{3,2}"),
        *("(?=a)", "(?!a)", "(?<=a)b", r"(a)\1", "(?z)", "(?", "(?P<a-b>x)", "(?i"),
        *(r"\p{Greek}", r"\x{110000}", r"\xZZ", r"\q", "a{1001}", r"[\b]"),
    ],
)
def test_what_re2_refuses_is_refused(pattern):
    with pytest.raises(RegexError):
        Regex(pattern)


@pytest.mark.parametrize(
    "pattern", ["((a{100}){100}){100}", "(((){1000}){1000}){1000}", "(" * 200 + ")" * 200]
)
def test_what_would_grow_too_large_is_refused(pattern):
    with pytest.raises(RegexError):
        Regex(pattern)


@pytest.mark.parametrize("pattern", ["(a|a)*b", "(a*)*b", "(a|aa)+b", "a*a*a*a*a*a*b"])
def test_patterns_that_stop_a_backtracking_engine_are_answered(pattern):
    assert Regex(pattern).matches("a" * 20_000) is False
    assert Regex(pattern).matches("a" * 20_000 + "b") is True


def test_optional_parts_do_not_multiply():
    assert Regex("a?" * 60 + "a" * 60).matches("a" * 60) is True


def test_a_long_text_can_be_given_up():
    class GivenUpError(Exception):
        pass

    def check():
        raise GivenUpError

    with pytest.raises(GivenUpError):
        Regex("a*").matches("a" * 5000, check)
    assert Regex("a*").matches("a" * 100, check) is True


def test_what_it_remembers_is_bounded():
    regex = Regex(".*x")
    text = "".join(map(chr, range(1000, 1000 + 2 * MAX_CACHED_STEPS)))
    assert regex.matches(text) is False
    assert regex.matches(text + "x") is True
    assert sum(len(state.steps) for state in regex._states.values()) <= MAX_CACHED_STEPS


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\w", r"\W", r"\b", "^", "$", " "])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,2}", "{2}", "{0,1}", "*?", "+?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)


@given(PATTERNS, st.text(alphabet="ab \n", max_size=6))
@example(r"(?:\b)*a", "a")
def test_agrees_with_python_where_both_have_the_syntax(pattern, text):
    same = pattern.replace("$", r"\Z")  # in Python $ is also before a last newline
    expected = re.fullmatch(same, text, re.DOTALL | re.ASCII) is not None
    assert Regex(pattern).matches(text) is expected


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_refused(pattern):
    with contextlib.suppress(RegexError):
        Regex(pattern).matches("some text")
