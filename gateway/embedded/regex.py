"""Regular expressions that take linear time, with RE2's syntax and Tempo's meaning.

Python's ``re`` backtracks, holds the interpreter lock while it does, and so lets one pattern such
as ``(a|a)*b`` stop the whole process. Here a pattern becomes an automaton (Thompson's
construction, made deterministic while it runs) and a match costs one step a character. As in
TraceQL a pattern must match the whole text, and ``.`` matches a newline too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.embedded.regex_syntax import (
    WORD,
    Chars,
    Choice,
    Edge,
    Parser,
    Part,
    RegexError,
    Repeat,
    Sequence,
    Test,
)

MAX_NODES = 2000
MAX_CACHED_STEPS = 20_000
_CHECK_EVERY = 1024


# The automaton: numbered nodes that lead on to others.


class _Step(NamedTuple):
    """Leads on by one character."""

    test: Test
    next: int


class _Pass(NamedTuple):
    """Leads on at once where ``test`` holds between two characters."""

    test: Callable[[str, str], bool]
    next: int


class _Split(NamedTuple):
    """Leads on at once to each of these."""

    next: tuple[int, ...]


class _Builder:
    """Makes nodes from the end of the pattern to its start. Node 0 is the match."""

    def __init__(self) -> None:
        self.nodes: list[_Step | _Pass | _Split] = [_Split(())]
        self._calls = 0

    def _add(self, node: _Step | _Pass | _Split) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def build(self, part: Part, onward: int) -> int:
        """The node where ``part`` begins when ``onward`` follows it."""
        self._calls += 1  # not the nodes: an empty group can be repeated at no nodes
        if self._calls > MAX_NODES:
            raise RegexError("the expression is too large")
        match part:
            case Chars(test):
                return self._add(_Step(test, onward))
            case Edge(place):
                return self._add(_Pass(place, onward))
            case Sequence(parts):
                for each in reversed(parts):
                    onward = self.build(each, onward)
                return onward
            case Choice(options):
                return self._add(_Split(tuple(self.build(each, onward) for each in options)))
            case Repeat(each, least, most):
                return self._repeat(each, least, most, onward)

    def _repeat(self, part: Part, least: int, most: int | None, onward: int) -> int:
        if most is None:
            loop = self._add(_Split(()))
            self.nodes[loop] = _Split((self.build(part, loop), onward))
            node = loop
        else:
            node = onward
            for _ in range(most - least):
                node = self._add(_Split((self.build(part, node), onward)))
        for _ in range(least):
            node = self.build(part, node)
        return node


class _State:
    """Where the automaton can be after some text, and where it was seen to go from there."""

    __slots__ = ("before", "nodes", "steps")

    def __init__(self, nodes: frozenset[int], before: str) -> None:
        self.nodes = nodes
        self.before = before
        """Stands for the last character: one of the kind that an ``Edge`` can tell apart."""
        self.steps: dict[str, _State] = {}


def _kind(char: str) -> str:
    return char if char in {"", "\n"} else "_" if char in WORD else " "


class Regex:
    """A compiled pattern. Raises RegexError. Not for use by two threads at once."""

    def __init__(self, pattern: str) -> None:
        builder = _Builder()
        self._first = frozenset({builder.build(Parser(pattern).parse(), 0)})
        self._nodes = builder.nodes
        self._has_edges = any(isinstance(node, _Pass) for node in self._nodes)
        self._states: dict[tuple[frozenset[int], str], _State] = {}
        self._cached_steps = 0

    def matches(self, text: str, check: Callable[[], None] | None = None) -> bool:
        """Whether the whole of ``text`` matches. ``check`` is called now and then on the way
        through a long text and may raise to end it.
        """
        state = self._state(self._first, "")
        for position, char in enumerate(text, start=1):
            if check is not None and position % _CHECK_EVERY == 0:
                check()
            state = state.steps.get(char) or self._step(state, char)
            if not state.nodes:
                return False
        return 0 in self._reachable(state, "")

    def _state(self, nodes: frozenset[int], before: str) -> _State:
        key = (nodes, before if self._has_edges else "")
        if key not in self._states:
            self._states[key] = _State(*key)
        return self._states[key]

    def _step(self, state: _State, char: str) -> _State:
        self._cached_steps += 1
        if self._cached_steps > MAX_CACHED_STEPS:
            self._states.clear()  # what is needed again is found again
            self._cached_steps = 0
        nodes = frozenset(
            node.next
            for number in self._reachable(state, char)
            if isinstance(node := self._nodes[number], _Step) and node.test(char)
        )
        state.steps[char] = self._state(nodes, _kind(char))
        return state.steps[char]

    def _reachable(self, state: _State, after: str) -> set[int]:
        """The nodes that ``state`` leads to without a character, when ``after`` comes next."""
        seen: set[int] = set()
        waiting = list(state.nodes)
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            match self._nodes[number]:
                case _Split(onward):
                    waiting += onward
                case _Pass(place, onward) if place(state.before, after):
                    waiting.append(onward)
        return seen
