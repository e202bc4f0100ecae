"""TraceQL's spanset filters: text in, a tree of conditions out.

The grammar is in ``traceql.lark``. What Tempo's language has besides is recognized too, so that
the refusal can name it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedToken, VisitError

from gateway.embedded.comparisons import Literal, TraceqlError, comparison, keyword
from gateway.embedded.conditions import (
    AllOf,
    AnyOf,
    Both,
    Condition,
    Constant,
    Either,
    Filter,
    Spanset,
)
from gateway.embedded.literals import duration_ns, unquote_name, unquote_string
from gateway.embedded.stored import INTRINSICS, Field

MAX_CONDITIONS = 100
_INT64 = 2**63
REMEDY = (
    "Grafana Tempo has it: set TEMPO_BIN to a Tempo binary, or fetch one with"
    " `python -m gateway install-tempo`, and start the gateway again"
)

_FUNCTION = re.compile(
    r"count|avg|max|min|sum|by|coalesce|select|rate|compare|topk|bottomk|\w+_over_time"
)
_BEFORE_OPERAND = frozenset(["LBRACE", "LPAR", "COMPARISON", "_AND", "_OR"])
_ONLY_TEMPO = frozenset(["nestedSetLeft", "nestedSetRight", "nestedSetParent", "span:childCount"])
_LONG_NAMES = {
    "span:name": "name",
    "span:status": "status",
    "span:statusMessage": "statusMessage",
    "span:kind": "kind",
    "span:duration": "duration",
    "trace:duration": "traceDuration",
    "trace:rootName": "rootName",
    "trace:rootService": "rootServiceName",
}


class NotHereError(TraceqlError):
    """The query is TraceQL, but of the part that only Tempo has."""

    def __init__(self, construct: str) -> None:
        super().__init__(f"the embedded development backend does not have {construct}. {REMEDY}")


def parse(query: str) -> Spanset:
    """Raises TraceqlError."""
    try:
        tokens = list(_PARSER.lex(query))
        _refuse_what_only_tempo_has(tokens)
        if sum(token.type in {"_AND", "_OR"} for token in tokens) >= MAX_CONDITIONS:
            raise TraceqlError(f"more than {MAX_CONDITIONS} conditions in one query")
        return _PARSER.parse(query)  # type: ignore[return-value]  # what _ToTree makes
    except (UnexpectedToken, UnexpectedCharacters) as error:
        raise _syntax_error(query, _position(error, query)) from None
    except VisitError as error:
        if isinstance(error.orig_exc, TraceqlError):
            raise error.orig_exc from None
        raise


def parse_field(name: str) -> Field:
    """``name``, ``span.foo``, ``.foo``, ``event:name``: what tag values are asked for.
    Raises TraceqlError.
    """
    try:
        tokens = list(_PARSER.lex(name))
        if len(tokens) == 1 and tokens[0].type == "ATTRIBUTE":
            return _attribute(name)
        if len(tokens) == 1 and tokens[0].type in {"WORD", "SCOPED_INTRINSIC"}:
            return _intrinsic(name)
    except (UnexpectedToken, UnexpectedCharacters) as error:
        raise _syntax_error(name, _position(error, name)) from None
    raise _syntax_error(name, 0)


def _syntax_error(query: str, position: int) -> TraceqlError:
    line = query.count("\n", 0, position) + 1
    column = position - query.rfind("\n", 0, position)
    found = (query[position : position + 20].split() or ["end of the query"])[0]
    return TraceqlError(
        f"parse error at line {line}, col {column}: syntax error: unexpected {found}"
    )


def _position(error: UnexpectedToken | UnexpectedCharacters, query: str) -> int:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return len(query)
    position: int = error.pos_in_stream  # type: ignore[assignment]  # None only at the end
    return position


def _attribute(text: str) -> Field:
    scope, _, name = text.partition(".")
    if scope == "parent":
        raise TraceqlError("parent not yet supported")  # nor does Tempo
    return Field(scope, unquote_name(name))


def _intrinsic(name: str) -> Field:
    name = _LONG_NAMES.get(name, name)
    if name in _ONLY_TEMPO:
        raise NotHereError(f"the intrinsic {name}")
    if name == "parent":
        raise TraceqlError("intrinsic (parent) not yet supported")  # nor does Tempo
    if name not in INTRINSICS:
        raise TraceqlError(f"unknown identifier: {name}")
    return Field("intrinsic", name)


def _refuse_what_only_tempo_has(tokens: Sequence[Token]) -> None:
    depth = 0
    for index, token in enumerate(tokens):
        depth += {"LBRACE": 1, "RBRACE": -1}.get(token.type, 0)
        following = str(tokens[index + 1]) if index + 1 < len(tokens) else ""
        before = tokens[index - 1].type if index else ""
        construct = (
            _only_tempo_inside(token, before, following)
            if depth
            else _only_tempo_between(token, before, following)
        )
        if construct:
            raise NotHereError(construct)


def _only_tempo_inside(token: Token, before: str, following: str) -> str | None:
    """The construct that a token within braces belongs to, if only Tempo has it."""
    if token.type == "ARITHMETIC":
        return f"arithmetic ({token})"
    if token.type == "MINUS" and (before not in _BEFORE_OPERAND or not following[:1].isdigit()):
        return "arithmetic (-)"
    return "negation (!)" if token.type == "NOT" else None


def _only_tempo_between(token: Token, before: str, following: str) -> str | None:
    """The same for a token that is not within braces."""
    if token.type == "STRUCTURE" or (
        token.type == "COMPARISON" and before in {"RBRACE", "RPAR"} and following[:1] in {"{", "("}
    ):
        return f"structural operators ({token})"
    if token.type == "WORD" and _FUNCTION.fullmatch(token):
        return f"{token}()"
    if token.type == "WORD" and str(token) == "with":
        return "query hints (with)"
    if token.type == "PIPE" and not _FUNCTION.fullmatch(following):
        return "pipelines (|)"
    return None


@v_args(inline=True)
class _ToTree(Transformer[Token, Spanset]):
    """Makes the tree while the parser runs; one method a rule of the grammar."""

    def filter(self, condition: Condition | None) -> Filter:
        return Filter(Constant(value=True) if condition is None else condition)

    def both(self, left: Spanset, right: Spanset) -> Both:
        return Both(left, right)

    def either(self, left: Spanset, right: Spanset) -> Either:
        return Either(left, right)

    def only_tempo(self, token: Token) -> Spanset:
        raise TraceqlError(
            f"parse error at line {token.line}, col {token.column}: syntax error:"
            f" unexpected {token}"
        )

    def all_of(self, left: Condition, right: Condition) -> AllOf:
        return AllOf((*left.parts, right) if isinstance(left, AllOf) else (left, right))

    def any_of(self, left: Condition, right: Condition) -> AnyOf:
        return AnyOf((*left.parts, right) if isinstance(left, AnyOf) else (left, right))

    def truth(self, operand: Field | Literal) -> Condition:
        if isinstance(operand, Literal):
            if isinstance(operand.value, bool):
                return Constant(operand.value)
        elif not operand.is_intrinsic:
            return comparison(operand, "=", Literal("bool", True, "true"))
        raise TraceqlError("span filter field expressions must resolve to a boolean")

    def comparison(self, left: Field | Literal, sign: Token, right: Field | Literal) -> Condition:
        return comparison(left, str(sign), right)

    def attribute(self, token: Token) -> Field:
        return _attribute(str(token))

    def intrinsic(self, token: Token) -> Field:
        return _intrinsic(str(token))

    def word(self, token: Token) -> Field | Literal:
        return keyword(str(token)) or _intrinsic(str(token))

    def string(self, token: Token) -> Literal:
        try:
            return Literal("string", unquote_string(token), str(token))
        except ValueError as error:
            raise TraceqlError(str(error)) from None

    def raw_string(self, token: Token) -> Literal:
        return Literal("string", str(token)[1:-1], str(token))

    def duration(self, minus: Token | None, token: Token) -> Literal:
        return _number("duration", minus, token, duration_ns(token))

    def float(self, minus: Token | None, token: Token) -> Literal:
        return _number("float", minus, token, float(token))

    def integer(self, minus: Token | None, token: Token) -> Literal:
        return _number("int", minus, token, int(token))


def _number(kind: str, minus: Token | None, token: Token, size: float) -> Literal:
    value = -size if minus else size
    if not -_INT64 <= value < _INT64 and kind != "float":
        raise TraceqlError(f"{token} is out of range")
    return Literal(kind, value, f"{minus or ''}{token}")


_PARSER = Lark(
    Path(__file__).with_name("traceql.lark").read_text(encoding="utf-8"),
    parser="lalr",
    lexer="basic",
    start="query",
    transformer=_ToTree(),
    maybe_placeholders=True,
)
