"""Pure: reads a Prometheus text exposition line by line, strictly, and joins two into one.

The format is 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats. Lines are kept
as they are; nothing is rendered anew.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NamedTuple

_NAME = rb"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_LABEL = rb'[a-zA-Z_][a-zA-Z0-9_]*+="(?:[^"\\]++|\\[\\"n])*"'
_SAMPLE = re.compile(
    rb"(?P<series>(?P<name>" + _NAME + rb")"
    rb"(?:\{(?P<labels>(?:" + _LABEL + rb"(?:,|(?=\})))*)\})?)"
    rb"[ \t]+(?P<value>[+-]?(?:Inf|NaN|[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?))"
    rb"(?:[ \t]+-?[0-9]{1,18})?"
)
_LABEL_NAME = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*+)="(?:[^"\\]++|\\.)*"')
_HELP = re.compile(rb"# HELP (" + _NAME + rb")(?: (?:[^\\]++|\\[\\n])*)?")
_TYPE = re.compile(rb"# TYPE (" + _NAME + rb") (counter|gauge|histogram|summary|untyped)")
_DERIVED = {
    b"histogram": (b"_bucket", b"_sum", b"_count"),
    b"summary": (b"_sum", b"_count"),
}


class Malformed(ValueError):  # noqa: N818 - says what the text is
    """The text is no valid exposition."""


class Family(NamedTuple):
    """A metric's lines as they stood, and every sample name that they lay claim to."""

    text: bytes
    names: frozenset[bytes]


class _Draft:
    """The family whose lines are being read."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.names = {name}
        self.lines: list[bytes] = []
        self.meta: set[bytes] = set()
        self.series: set[bytes] = set()

    def describe(self, keyword: bytes, line: bytes) -> None:
        if keyword in self.meta or self.series:
            raise Malformed(f"{keyword.decode()} of {self.name.decode()} twice or too late")
        self.meta.add(keyword)
        self.lines.append(line)

    def add(self, series: bytes, line: bytes) -> None:
        if series in self.series:
            raise Malformed(f"{series.decode()} twice")
        self.series.add(series)
        self.lines.append(line)

    def family(self) -> Family:
        return Family(b"\n".join([*self.lines, b""]), frozenset(self.names))


def read_families(text: bytes) -> list[Family]:
    """The families of an exposition in their order; comments are left out.

    Raises Malformed for anything that Prometheus would refuse, and for a family, a label or a
    series that comes twice.
    """
    if text and not text.endswith(b"\n"):
        raise Malformed("the last line is cut")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise Malformed(str(error)) from None
    drafts: list[_Draft] = []
    for line in text.split(b"\n"):
        if line:
            _read_line(line, drafts)
    families = [draft.family() for draft in drafts]
    if len(frozenset().union(*(f.names for f in families))) < sum(len(f.names) for f in families):
        raise Malformed("a family comes twice")
    return families


def _read_line(line: bytes, drafts: list[_Draft]) -> None:
    if (match := _SAMPLE.fullmatch(line)) is not None:
        _check_values(match)
        _draft_of(match["name"], drafts).add(match["series"], line)
    elif line.startswith(b"# HELP "):
        _described(_HELP.fullmatch(line), drafts).describe(b"HELP", line)
    elif line.startswith(b"# TYPE "):
        match = _TYPE.fullmatch(line)
        draft = _described(match, drafts)
        draft.describe(b"TYPE", line)
        if match is not None:
            draft.names |= {draft.name + suffix for suffix in _DERIVED.get(match[2], ())}
    elif not line.startswith(b"#"):
        raise Malformed(f"neither a sample nor a comment: {line[:80]!r}")


def _check_values(match: re.Match[bytes]) -> None:
    labels, value = match["labels"], match["value"]
    if labels and not _are_valid_names(labels):
        raise Malformed(f"a label twice, or a reserved one, in {match['series'].decode()}")
    if not value.endswith(b"Inf") and math.isinf(float(value)):
        raise Malformed(f"{value[:80].decode()} is beyond a float")


# Tempo's 2,000 to 4,000 series are the same each time, and this is half of the work on them.
@lru_cache(maxsize=16384)
def _are_valid_names(labels: bytes) -> bool:
    names = _LABEL_NAME.findall(labels)
    return len(set(names)) == len(names) and b"__name__" not in names


def _described(match: re.Match[bytes] | None, drafts: list[_Draft]) -> _Draft:
    if match is None:
        raise Malformed("a HELP or TYPE line that cannot be read")
    name = match[1]
    if not drafts or drafts[-1].name != name:
        drafts.append(_Draft(name))
    return drafts[-1]


def _draft_of(name: bytes, drafts: list[_Draft]) -> _Draft:
    if not drafts or name not in drafts[-1].names:
        drafts.append(_Draft(name))
    return drafts[-1]


def merge(own: bytes, theirs: bytes) -> bytes:
    """One valid exposition out of two: all of ``own``, and of ``theirs`` each family that shares
    no name with it, line by line as it was. Raises Malformed when either is not valid.
    """
    claimed = frozenset().union(*(family.names for family in read_families(own)))
    kept = (family.text for family in read_families(theirs) if claimed.isdisjoint(family.names))
    return own + b"".join(kept)
