"""What is told to the sender about refused spans."""

from __future__ import annotations

from gateway.otlp.rules import REMEDIES

_SHOWN_NAME_CHARACTERS = 64
_SHOWN_ID_BYTES = 32


class Report:
    """Goes over the spans of a request in order: counts refusals by reason, keeps the first."""

    __slots__ = ("_first", "_spans", "_warning", "rejected", "trace_id")

    def __init__(self) -> None:
        self.rejected: dict[str, int] = {}
        self.trace_id: str | None = None
        """Of the first refused span, in hex."""
        self._first = ""
        self._spans = 0
        self._warning = ""

    def accept(self, spans: int = 1) -> None:
        self._spans += spans

    def refuse(self, name: str, trace_id: bytes, reason: str) -> None:
        if not self.rejected:
            self._first = f"span {self._spans} ({_shown(name)}): {REMEDIES[reason]}"
            self.trace_id = trace_id[:_SHOWN_ID_BYTES].hex()
        self._spans += 1
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def warn(self, warning: str) -> None:
        """Tell the sender, though nothing was refused."""
        self._warning = warning

    def message(self) -> str:
        """For ``partial_success``; empty for a clean request. Spans are counted from 0."""
        if not self.rejected:
            return self._warning
        counts = ", ".join(f"{reason} {count}" for reason, count in self.rejected.items())
        refused = sum(self.rejected.values())
        return f"{refused} of {self._spans} spans refused: {counts}. First {self._first}"


def _shown(name: str) -> str:
    cut = name if len(name) <= _SHOWN_NAME_CHARACTERS else name[:_SHOWN_NAME_CHARACTERS] + "..."
    return repr(cut)
