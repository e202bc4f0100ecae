"""The chart: CPU of a request as a part of Rotel's, one panel for each form of OTLP.

Bars stand on the line of Rotel: downwards is cheaper, upwards is costlier, each grid line by half
or by twice. Light background of its own, so that it reads on dark pages too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from benchmarks.peers.measure import Measured
from benchmarks.peers.report import YARDSTICK

_WIDTH, _HEIGHT = 900, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 78, 46
_GAP = 24
_COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#db2777")
_INK, _FAINT = "#1f2937", "#d1d5db"
_LOWEST, _HIGHEST = -4, 1
"""Powers of two that the scale shows at least."""


def svg(panels: Mapping[str, Sequence[Measured]], systems: Sequence[str]) -> str:
    """``panels`` by title; ``systems`` are those with bars, the yardstick is the line."""
    ratios = [
        each.ratio(system, YARDSTICK)
        for cases in panels.values()
        for each in cases
        for system in systems
    ]
    scale = _Scale([math.log2(ratio) for ratio in ratios])
    width = (_WIDTH - _LEFT - _RIGHT - _GAP * (len(panels) - 1)) / len(panels)
    lines = [*_frame(systems)]
    for index, (title, cases) in enumerate(panels.items()):
        left = _LEFT + index * (width + _GAP)
        lines += _grid(scale, left, width, labels=index == 0)
        lines += _panel(title, cases, systems, scale=scale, left=left, width=width)
    return "\n".join([*lines, "</svg>"]) + "\n"


class _Scale:
    """From a power of two to a height on the page."""

    def __init__(self, powers: Sequence[float]) -> None:
        self.low = min(_LOWEST, math.floor(min(powers)))
        self.high = max(_HIGHEST, math.ceil(max(powers)))

    def y(self, power: float) -> float:
        share = (self.high - power) / (self.high - self.low)
        return _TOP + share * (_HEIGHT - _TOP - _BOTTOM)


def _frame(systems: Sequence[str]) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        ' font-family="system-ui, sans-serif" font-size="12" role="img"'
        ' aria-label="CPU of a request, relative to Rotel">'
    )
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#ffffff"/>'
    yield _text(_LEFT, 24, "CPU of a request, Rotel (Rust) = 1; below the line is cheaper", size=15)
    x = float(_LEFT)
    for system, colour in zip(systems, _COLOURS, strict=False):
        yield f'<rect x="{x:.0f}" y="36" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 15, 45, system)
        x += 30 + 7 * len(system)


def _grid(scale: _Scale, left: float, width: float, *, labels: bool) -> Iterator[str]:
    for power in range(scale.low, scale.high + 1):
        y = scale.y(power)
        colour, thickness = (_INK, 1.5) if power == 0 else (_FAINT, 1)
        yield (
            f'<line x1="{left:.1f}" x2="{left + width:.1f}" y1="{y:.1f}" y2="{y:.1f}"'
            f' stroke="{colour}" stroke-width="{thickness}"/>'
        )
        if labels:
            yield _text(left - 8, y + 4, f"{2.0**power:g}", anchor="end")


def _panel(
    title: str,
    cases: Sequence[Measured],
    systems: Sequence[str],
    *,
    scale: _Scale,
    left: float,
    width: float,
) -> Iterator[str]:
    yield _text(left + width / 2, _TOP - 12, title, anchor="middle", size=13)
    group = width / len(cases)
    bar = min(26.0, group * 0.8 / len(systems))
    for index, each in enumerate(cases):
        middle = left + group * (index + 0.5)
        yield _text(middle, _HEIGHT - 26, str(each.case.spans), anchor="middle")
        for number, (system, colour) in enumerate(zip(systems, _COLOURS, strict=False)):
            x = middle + bar * (number - len(systems) / 2)
            yield from _bar(x, bar, each.ratio(system, YARDSTICK), scale, colour)
    yield _text(left + width / 2, _HEIGHT - 10, "spans in a request", anchor="middle")


def _bar(x: float, width: float, ratio: float, scale: _Scale, colour: str) -> Iterator[str]:
    y, line = scale.y(math.log2(ratio)), scale.y(0)
    top, height = min(y, line), abs(y - line)
    yield (
        f'<rect x="{x + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" height="{height:.1f}"'
        f' fill="{colour}"/>'
    )
    below = y >= line
    told = f"{ratio:.2f}" if ratio < 9.95 else f"{ratio:.0f}"
    yield _text(x + width / 2, y + 13 if below else y - 4, told, anchor="middle", size=10)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        f' fill="{_INK}">{escape(text)}</text>'
    )
