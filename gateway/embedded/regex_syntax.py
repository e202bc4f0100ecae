r"""The syntax of regular expressions: RE2's, without scripts such as ``\p{Greek}``.

https://github.com/google/re2/wiki/Syntax. Groups capture nothing and lazy is greedy, for here a
whole text matches or it does not.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

MAX_REPEAT = 1000  # RE2's limit of {n,m}

Test = Callable[[str], bool]
"""Whether one character is meant."""


class RegexError(ValueError):
    """The pattern is not one of RE2, or it is too large."""


# What a parsed pattern is made of.


class Chars(NamedTuple):
    test: Test


class Edge(NamedTuple):
    """A place between two characters; either is "" at an end of the text."""

    test: Callable[[str, str], bool]


class Sequence(NamedTuple):
    parts: tuple[Part, ...]


class Choice(NamedTuple):
    options: tuple[Part, ...]


class Repeat(NamedTuple):
    part: Part
    least: int
    most: int | None


Part = Chars | Edge | Sequence | Choice | Repeat

WORD = frozenset(string.ascii_letters + string.digits + "_")
_POSIX = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "ascii": "".join(map(chr, range(128))),
    "blank": "\t ",
    "cntrl": "".join(map(chr, [*range(32), 127])),
    "digit": string.digits,
    "graph": "".join(map(chr, range(33, 127))),
    "lower": string.ascii_lowercase,
    "print": "".join(map(chr, range(32, 127))),
    "punct": string.punctuation,
    "space": "\t\n\v\f\r ",
    "upper": string.ascii_uppercase,
    "word": "".join(WORD),
    "xdigit": string.hexdigits,
}
_PERL = {"d": string.digits, "s": "\t\n\f\r ", "w": "".join(WORD)}
_CONTROL = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_CATEGORIES = {
    major + minor
    for major, minors in {
        "C": "cfos",
        "L": "lmotu",
        "M": "cen",
        "N": "dlo",
        "P": "cdefios",
        "S": "ckmo",
        "Z": "lps",
    }.items()
    for minor in ["", *minors]
}


def _one(char: str) -> Test:
    return lambda other: other == char


def _among(chars: str) -> Test:
    members = frozenset(chars)
    return lambda other: other in members


def _between(low: str, high: str) -> Test:
    return lambda other: low <= other <= high


def _category(name: str) -> Test:
    return lambda other: unicodedata.category(other).startswith(name)


def _none_of(test: Test) -> Test:
    return lambda other: not test(other)


def _any_of(tests: list[Test]) -> Test:
    return lambda other: any(test(other) for test in tests)


def _either_case(test: Test) -> Test:
    return lambda other: test(other) or test(other.lower()) or test(other.upper())


def _at_word_boundary(before: str, after: str) -> bool:
    return (before in WORD) != (after in WORD)


_EDGES: dict[str, Callable[[str, str], bool]] = {
    "A": lambda before, _after: before == "",
    "z": lambda _before, after: after == "",
    "b": _at_word_boundary,
    "B": lambda before, after: not _at_word_boundary(before, after),
}
_LINE_START = Edge(lambda before, _after: before in {"", "\n"})
_LINE_END = Edge(lambda _before, after: after in {"", "\n"})


class Parser:
    """Recursive descent, one method a rule of the syntax."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._ignore_case = False
        self._dot_takes_newline = True
        self._multiline = False
        self._depth = 0

    def parse(self) -> Part:
        part = self._choice()
        if self._at < len(self._pattern):
            raise RegexError("unexpected )")
        return part

    def _peek(self, ahead: str) -> bool:
        return self._pattern.startswith(ahead, self._at)

    def _take(self, ahead: str) -> bool:
        if self._peek(ahead):
            self._at += len(ahead)
            return True
        return False

    def _next(self) -> str:
        if self._at == len(self._pattern):
            raise RegexError("unexpected end of the pattern")
        self._at += 1
        return self._pattern[self._at - 1]

    def _until(self, end: str) -> str:
        close = self._pattern.find(end, self._at)
        if close < 0:
            raise RegexError(f"missing {end}")
        inside = self._pattern[self._at : close]
        self._at = close + len(end)
        return inside

    def _choice(self) -> Part:
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Part:
        parts: list[Part] = []
        while self._at < len(self._pattern) and not self._peek("|") and not self._peek(")"):
            atoms = self._quoted() if self._take("\\Q") else [self._atom()]
            if atoms:
                parts += [*atoms[:-1], self._repeated(atoms[-1])]
        return Sequence(tuple(parts))

    def _quoted(self) -> list[Part]:
        r"""The characters between ``\Q`` and ``\E``."""
        end = self._pattern.find("\\E", self._at)
        inside = self._pattern[self._at : end if end >= 0 else None]
        self._at += len(inside) + (2 if end >= 0 else 0)
        return [self._chars(_one(char)) for char in inside]

    def _repeated(self, part: Part) -> Part:
        repeats = 0
        while (bounds := self._bounds()) is not None:
            repeats += 1
            if repeats > 1:
                raise RegexError("invalid nested repetition operator")
            self._take("?")  # lazy or greedy, the whole text matches or not
            part = Repeat(part, *bounds)
        return part

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        return self._counted() if self._peek("{") else None

    def _counted(self) -> tuple[int, int | None] | None:
        """``{2}``, ``{2,}``, ``{2,5}``; any other text in braces is literal, as in RE2."""
        close = self._pattern.find("}", self._at)
        low, comma, high = self._pattern[self._at + 1 : max(close, 0)].partition(",")
        if not low.isascii() or not low.isdigit() or (high and not high.isdecimal()):
            return None
        self._at = close + 1
        least = int(low[:6])
        most = least if not comma else int(high[:6]) if high else None
        if max(least, most or 0) > MAX_REPEAT or (most is not None and most < least):
            raise RegexError("invalid repeat count")
        return least, most

    def _atom(self) -> Part:
        match self._next():
            case "(":
                return self._group()
            case "[":
                return self._chars(self._class())
            case ".":
                newline_too = self._dot_takes_newline
                return Chars(lambda char: newline_too or char != "\n")
            case "^":
                return _LINE_START if self._multiline else Edge(_EDGES["A"])
            case "$":
                return _LINE_END if self._multiline else Edge(_EDGES["z"])
            case "*" | "+" | "?":
                raise RegexError("missing argument to repetition operator")
            case "\\" if self._pattern[self._at : self._at + 1] in _EDGES:
                return Edge(_EDGES[self._next()])
            case "\\":
                escaped = self._escape()
                return self._chars(_one(escaped) if isinstance(escaped, str) else escaped)
            case char:
                return self._chars(_one(char))

    def _chars(self, test: Test) -> Chars:
        return Chars(_either_case(test) if self._ignore_case else test)

    def _group(self) -> Part:
        self._depth += 1
        if self._depth > 100:
            raise RegexError("groups are nested too deeply")
        outer = (self._ignore_case, self._dot_takes_newline, self._multiline)
        if self._take("?P<") or self._take("?<"):
            if not WORD.issuperset(self._until(">")):
                raise RegexError("invalid named capture")
        elif self._take("?") and self._flags() == ")":
            self._depth -= 1
            return Sequence(())  # flags without a group hold to the end of the enclosing one
        inside = self._choice()
        if not self._take(")"):
            raise RegexError("missing )")
        self._ignore_case, self._dot_takes_newline, self._multiline = outer
        self._depth -= 1
        return inside

    def _flags(self) -> str:
        """Reads ``i``, ``s-m`` and so on; returns what ended them: ``:`` or ``)``."""
        on = True
        while (flag := self._next()) not in ":)":
            match flag:
                case "-":
                    on = False
                case "i":
                    self._ignore_case = on
                case "s":
                    self._dot_takes_newline = on
                case "m":
                    self._multiline = on
                case "U":
                    pass  # swaps lazy and greedy, which makes no difference here
                case _:
                    raise RegexError("invalid or unsupported Perl syntax")
        return flag

    def _escape(self) -> str | Test:
        """What stands after a backslash: a character or a class of them."""
        char = self._next()
        if char.lower() in _PERL:
            test = _among(_PERL[char.lower()])
            return test if char.islower() else _none_of(test)
        if char in "pP":
            return self._unicode_class(negated=char == "P")
        if char in _CONTROL:
            return _CONTROL[char]
        if char == "x":
            digits = self._until("}") if self._take("{") else self._next() + self._next()
            return self._code_point(digits)
        if char.isalnum():
            raise RegexError(f"invalid escape sequence \\{char}")
        return char

    def _code_point(self, digits: str) -> str:
        try:
            return chr(int(digits, 16))
        except (ValueError, OverflowError):
            raise RegexError("invalid escape sequence \\x") from None

    def _unicode_class(self, *, negated: bool) -> Test:
        name = self._until("}") if self._take("{") else self._next()
        if name.startswith("^"):
            name, negated = name[1:], not negated
        if name not in _CATEGORIES:
            raise RegexError(f"unsupported character class \\p{{{name}}}")
        return _none_of(_category(name)) if negated else _category(name)

    def _class(self) -> Test:
        negated = self._take("^")
        tests: list[Test] = []
        while not tests or not self._take("]"):  # a ] that comes first is meant literally
            tests.append(self._class_item())
        test = _any_of(tests)
        return _none_of(test) if negated else test

    def _class_item(self) -> Test:
        if self._take("[:"):
            name = self._until(":]")
            inverted, name = name.startswith("^"), name.removeprefix("^")
            if name not in _POSIX:
                raise RegexError(f"invalid character class range [:{name}:]")
            return _none_of(_among(_POSIX[name])) if inverted else _among(_POSIX[name])
        low = self._class_char()
        if not isinstance(low, str):
            return low
        if not self._peek("-") or self._peek("-]"):
            return _one(low)
        self._at += 1
        high = self._class_char()
        if not isinstance(high, str) or high < low:
            raise RegexError("invalid character class range")
        return _between(low, high)

    def _class_char(self) -> str | Test:
        char = self._next()
        return self._escape() if char == "\\" else char
