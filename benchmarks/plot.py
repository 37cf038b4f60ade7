"""The ratios as an SVG: a bar for each, from where both are even. Readable in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from xml.sax.saxutils import escape

from report import Ratio, factor
from workloads import WORKLOADS

WIDTH, LEFT, RIGHT = 860, 262, 60
ROW, HEAD, TOP, BOTTOM = 22, 34, 56, 34
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)

# The page behind shows through; the colours are mid-tones for both, and follow the reader's choice where it is known.
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 16px; font-weight: 600; }
.head { font-weight: 600; }
.small { font-size: 11px; fill: #57606a; }
.grid { stroke: #8c959f; stroke-opacity: .35; }
.even { stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 4 3; }
.bar { fill: #2f81f7; }
.more { fill: #2da44e; }
.spread { stroke: #24292f; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9da7b3; }
  .even { stroke: #9da7b3; }
  .spread { stroke: #e6edf3; }
}
"""


def svg(ratios: Sequence[Ratio], caption: str) -> str:
    """The picture; the scale is logarithmic, so that half as fast and twice as fast look alike."""
    scale = _Scale(ratios)
    parts: list[str] = []
    top = TOP
    for workload, group in groupby(ratios, key=lambda one: one.workload):
        parts.append(_text(16, top + 22, WORKLOADS[workload].title, "head"))
        top += HEAD
        for one in group:
            parts += _row(one, top, scale)
            top += ROW
    axis = [_text(scale.at(tick), top + 20, f"{tick:g}", "small", "middle") for tick in scale.ticks]
    grid = [_rule(scale.at(tick), TOP, top + 4, "even" if tick == 1 else "grid") for tick in scale.ticks]
    title = _text(16, 24, "protojobs by the raw loop with the same guarantee: more is better", "title")
    body = "\n".join([title, _text(16, 42, caption, "small"), *grid, *parts, *axis])
    size = f'width="{WIDTH}" height="{top + BOTTOM}" viewBox="0 0 {WIDTH} {top + BOTTOM}"'
    label = 'role="img" aria-label="Ratios of protojobs to the raw loop on each store"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>\n<style>{STYLE}</style>\n{body}\n</svg>\n'


class _Scale:
    """From a ratio to a place between the margins."""

    def __init__(self, ratios: Sequence[Ratio]) -> None:
        values = [value for one in ratios for value in (one.ratio.least, one.ratio.greatest)]
        low = max((tick for tick in TICKS if tick < min([0.5, *values])), default=TICKS[0])
        high = min((tick for tick in TICKS if tick > max([1, *values])), default=TICKS[-1])
        self.ticks = [tick for tick in TICKS if low <= tick <= high]
        self._low, self._high = math.log(low), math.log(high)

    def at(self, ratio: float) -> float:
        """What lies outside of the scale is drawn at its end."""
        part = (math.log(max(ratio, 1e-9)) - self._low) / (self._high - self._low)
        return round(LEFT + min(1.0, max(0.0, part)) * (WIDTH - LEFT - RIGHT), 1)


def _row(one: Ratio, top: float, scale: _Scale) -> list[str]:
    name = one.store if one.limit == "raw" else f"{one.store}, {one.limit}"
    middle, even, end = top + ROW / 2, scale.at(1), scale.at(one.ratio.median)
    colour = "more" if one.ratio.median >= 1 else "bar"
    told = f"{name}: {factor(one.ratio.median)} ({factor(one.ratio.least)} to {factor(one.ratio.greatest)})"
    size = f'width="{max(1.0, abs(end - even)):.1f}" height="{ROW - 7}" rx="2"'
    place = f'x="{min(even, end)}" y="{top + 3}"'
    bar = f'<rect class="{colour}" {place} {size}><title>{escape(told)}</title></rect>'
    least, greatest = scale.at(one.ratio.least), scale.at(one.ratio.greatest)
    spread = f'<line class="spread" x1="{least}" y1="{middle - 0.5}" x2="{greatest}" y2="{middle - 0.5}"/>'
    label = _text(LEFT - 8, middle + 4, name, "", "end")
    is_left = one.ratio.median < 1 and least - 6 > LEFT + 40  # a bar to the very edge has its number on the other side
    number = (least - 6, "end") if is_left else (max(even, greatest) + 6, "start")
    return [label, bar, spread, _text(number[0], middle + 4, factor(one.ratio.median), "", number[1])]


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def _rule(x: float, top: float, bottom: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}"/>'
