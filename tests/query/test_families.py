from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.query.families import Malformed, merge, read_families

LETTERS = st.sampled_from("abc")
NAMES = st.text("abc_:", min_size=1, max_size=4)
VALUES = st.floats().map(
    lambda value: {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(str(value), str(value))
)
LABEL_VALUES = st.text(max_size=8).map(
    lambda text: text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
)
HELPS = st.text(max_size=12).map(lambda text: text.replace("\\", "\\\\").replace("\n", "\\n"))
LABELS = st.dictionaries(LETTERS, LABEL_VALUES, max_size=3).map(
    lambda labels: (
        "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
        if labels
        else ""
    )
)
DERIVED = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}


@st.composite
def families(draw) -> tuple[str, str, str]:
    """(name, kind, text) of one well-formed family."""
    name = draw(NAMES)
    kind = draw(st.sampled_from(["counter", "gauge", "histogram", "summary", "untyped", ""]))
    lines = [f"# HELP {name} {draw(HELPS)}"] if draw(st.booleans()) else []
    lines += [f"# TYPE {name} {kind}"] if kind else []
    for series in draw(st.sets(LABELS, min_size=0 if kind else 1, max_size=3)):
        lines += [
            f"{name}{suffix}{series} {draw(VALUES)}{draw(st.sampled_from(['', ' 1700000000000']))}"
            for suffix in DERIVED.get(kind, ("",))
        ]
    return name, kind, "".join(line + "\n" for line in lines)


def claims(name: str, kind: str) -> set[str]:
    return {name, *(name + suffix for suffix in DERIVED.get(kind, ()))}


@st.composite
def expositions(draw) -> list[tuple[str, str, str]]:
    """Families none of which shares a name with another."""
    chosen: list[tuple[str, str, str]] = []
    taken: set[str] = set()
    for name, kind, text in draw(st.lists(families(), max_size=5)):
        if taken.isdisjoint(claims(name, kind)):
            taken |= claims(name, kind)
            chosen.append((name, kind, text))
    return chosen


def text_of(exposition: list[tuple[str, str, str]]) -> bytes:
    return "".join(text for _, _, text in exposition).encode()


@given(expositions())
def test_reads_every_well_formed_exposition_without_changing_a_line(exposition):
    text = text_of(exposition)

    assert b"".join(family.text for family in read_families(text)) == text


@given(expositions(), expositions())
def test_a_merge_has_all_of_its_own_and_what_does_not_clash_of_theirs(own, theirs):
    taken = set().union(*(claims(name, kind) for name, kind, _ in own))
    kept = [family for family in theirs if taken.isdisjoint(claims(*family[:2]))]

    assert merge(text_of(own), text_of(theirs)) == text_of(own) + text_of(kept)


@given(expositions(), expositions())
def test_a_merge_is_valid_again(own, theirs):
    merged = merge(text_of(own), text_of(theirs))

    assert_valid(merged)
    assert merge(merged, merged) == merged


def assert_valid(text: bytes) -> None:
    """No family twice, and prometheus_client's own parser takes it."""
    described = [line for line in text.split(b"\n") if line.startswith((b"# HELP ", b"# TYPE "))]
    keys = [tuple(line.split(b" ")[1:3]) for line in described]
    assert len(keys) == len(set(keys))
    list(text_string_to_metric_families(text.decode()))


WORDS = ["# HELP ", "# TYPE ", "a", "b_total", " ", "{", "}", 'x="', '"', ",", "\\", "\n", "1", "-"]
WORDS += [
    " counter",
    " histogram",
    "_bucket",
    "_sum",
    "NaN",
    "Inf",
    "e9",
    ".",
    "\x00",
    "\r",
    "\u00e9",
]
SOUP = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)


@given(SOUP.map(str.encode) | st.binary(max_size=60))
def test_any_bytes_are_read_as_valid_or_malformed(text):
    with contextlib.suppress(Malformed):
        read_families(text)
        assert_valid(b"".join(family.text for family in read_families(text)))


@given(expositions(), st.data())
def test_an_exposition_cut_within_a_line_is_malformed(exposition, data):
    text = text_of(exposition)
    cut = data.draw(st.integers(0, len(text)))
    if cut and not text[:cut].endswith(b"\n"):
        with pytest.raises(Malformed):
            read_families(text[:cut])


@pytest.mark.parametrize(
    "text",
    [
        "a 1",
        "<html><body>502 Bad Gateway</body></html>\n",
        "404 page not found\n",
        '{"error": "x"}\n',
        "a\n",
        "a 1 2 3\n",
        "a one\n",
        "a 0x1p3\n",
        "a 1_000\n",
        "a 1e999\n",
        " a 1\n",
        "a 1\r\n",
        "1a 1\n",
        "a-b 1\n",
        'a{x="1} 1\n',
        "a{x=1} 1\n",
        'a{x="1"y="2"} 1\n',
        "a{,} 1\n",
        'a{x="\\t"} 1\n',
        'a{x="1",x="2"} 1\n',
        'a{__name__="b"} 1\n',
        'a{x="1"} 1\na{x="1"} 2\n',
        "a 1\nb 1\na 2\n",
        "# TYPE a counter\na 1\n# TYPE a counter\n",
        "# TYPE a counter\n# TYPE a gauge\n",
        "# HELP a x\n# HELP a y\n",
        "a 1\n# TYPE a counter\n",
        "# TYPE a counter\nb 1\n# HELP a x\n",
        "# TYPE a histogram\na_sum 1\n# TYPE a_sum gauge\n",
        "a_count 1\n# TYPE a summary\na_sum 1\n",
        "# TYPE a unknown\n",
        "# TYPE a\n",
        "# TYPE 1a counter\n",
        "# HELP 1a x\n",
        "# HELP a \\x\n",
    ],
)
def test_knows_what_prometheus_would_refuse(text):
    with pytest.raises(Malformed):
        read_families(text.encode())


def test_bytes_that_are_no_utf8_are_malformed():
    with pytest.raises(Malformed):
        read_families(b'a{x="\xff"} 1\n')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a 1\n",
        "a{} 1\n",
        'a{x="1",} 1\n',
        'a{x="}\\"\\\\\\n,y=\\"",y="{"} 1\n',
        "a +Inf\nb -Inf\nc NaN\nd 1.5e-07\ne -3 -1\n",
        "a:b:c\t1\t1700000000000\n",
        "# HELP a\na 1\n",
        '# HELP a with \\\\ and \\n and "\na 1\n',
        '# HELP a x\n# TYPE a summary\na{quantile="0.5"} 1\na_sum 1\na_count 1\n',
        "# TYPE a counter\n# HELP a x\n",
    ],
)
def test_knows_what_prometheus_takes(text):
    assert b"".join(family.text for family in read_families(text.encode())) == text.encode()


def test_comments_and_empty_lines_are_left_out():
    text = b"\n# a remark\n#\na 1\n# EOF\n\n"

    assert [family.text for family in read_families(text)] == [b"a 1\n"]


def test_a_family_of_theirs_goes_as_a_whole():
    own = b"# TYPE a_sum gauge\na_sum 1\n"
    theirs = b"# TYPE a histogram\na_sum 1\na_count 1\nb 1\n"

    assert merge(own, theirs) == own + b"b 1\n"


def test_a_malformed_side_is_told_apart_from_a_clash():
    with pytest.raises(Malformed):
        merge(b"", b"oops\n")
    with pytest.raises(Malformed):
        merge(b"oops\n", b"")


def test_long_bad_lines_cost_no_more_than_their_length():
    """Nothing here backtracks; if it did, the test's time limit would end it."""
    for line in (
        'a{x="' + "\\n" * 200_000,
        "a{" + 'x="1",' * 100_000,
        "a 1" + " " * 500_000 + "x",
        "# HELP a " + "\\\\" * 200_000 + "\\",
        string.ascii_letters * 10_000,
    ):
        with pytest.raises(Malformed):
            read_families(line.encode() + b"\n")
