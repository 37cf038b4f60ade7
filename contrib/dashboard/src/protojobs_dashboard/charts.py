"""Charts, drawn on the server as SVG: looks by class, a title for each mark, the figures in a table beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup
from msgspec import Struct

__all__ = ["Chart", "Layer", "bars", "lines"]

WIDTH, HEIGHT = 600.0, 160.0
LAYERS_MAX = 8  # that eyes can tell apart; what is beyond belongs in a table


class Layer(Struct, frozen=True, kw_only=True):
    """One line or one colour of bars: its name, the class that paints it, and a value for each label (None: a gap)."""

    name: str
    css: str
    values: tuple[float | None, ...]


class Chart(Struct, frozen=True, kw_only=True):
    """A chart before it is drawn. `say` writes a value for people."""

    id: str
    title: str
    labels: tuple[str, ...]
    layers: tuple[Layer, ...]
    say: Callable[[float | None], str]
    is_stacked: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to see."""
        return not any(value for layer in self.layers for value in layer.values)

    @property
    def top(self) -> float:
        """The value at the upper edge."""
        if self.is_stacked:
            columns = zip(*(layer.values for layer in self.layers), strict=True)
            highest = max((sum(value or 0 for value in column) for column in columns), default=0)
        else:
            highest = max((value or 0 for layer in self.layers for value in layer.values), default=0)
        return float(highest) or 1.0

    def column(self, index: int) -> str:
        """What stands at one label, in words."""
        said = [f"{layer.name} {self.say(layer.values[index])}" for layer in self.layers if layer.values[index]]
        return f"{self.labels[index]}: {', '.join(said) or 'nothing'}"

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """The figures as a table: a label, and what each layer has there."""
        return [
            (label, [self.say(layer.values[index]) for layer in self.layers]) for index, label in enumerate(self.labels)
        ]

    def __html__(self) -> str:
        """The drawing, for a template."""
        return bars(self) if self.is_stacked else lines(self)


def bars(chart: Chart) -> Markup:
    """Stacked bars, one for each label."""
    step, top = WIDTH / max(1, len(chart.labels)), chart.top
    marks: list[Markup] = []
    for index in range(len(chart.labels)):
        rest = HEIGHT
        boxes: list[Markup] = []
        for layer in chart.layers:
            tall = (layer.values[index] or 0) / top * HEIGHT
            if tall > 0:
                rest -= tall
                box = Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>')
                boxes.append(box.format(layer.css, index * step + step * 0.1, rest, step * 0.8, tall))
        marks.append(_column(chart, index, step, Markup("").join(boxes)))
    return _drawing(chart, marks)


def lines(chart: Chart) -> Markup:
    """Lines, broken where there is no value."""
    count, top = len(chart.labels), chart.top
    step = WIDTH / max(1, count)
    marks = [_path(layer, step, top) for layer in chart.layers]
    return _drawing(chart, [*marks, *(_column(chart, index, step) for index in range(count))])


def _column(chart: Chart, index: int, step: float, inside: Markup | None = None) -> Markup:
    """The whole height of a label, so that the pointer finds its words without aiming."""
    return Markup(
        '<g class="mark"><title>{}</title><rect class="hit" x="{:.2f}" y="0" width="{:.2f}" height="{:.0f}"/>{}</g>'
    ).format(chart.column(index), index * step, step, HEIGHT, inside or "")


def _path(layer: Layer, step: float, top: float) -> Markup:
    pieces: list[str] = []
    is_drawing = False
    for index, value in enumerate(layer.values):
        if value is None:
            is_drawing = False
            continue
        pieces.append(
            f"{'L' if is_drawing else 'M'}{(index + 0.5) * step:.1f} {HEIGHT - 2 - value / top * (HEIGHT - 4):.1f}"
        )
        if not is_drawing:
            pieces.append("h0.01")  # a single point has a length, so that it is drawn
        is_drawing = True
    return Markup('<path class="line {}" d="{}"/>').format(layer.css, " ".join(pieces))


def _drawing(chart: Chart, marks: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" role="img" aria-labelledby="{}-title" viewBox="0 0 {:.0f} {:.0f}"'
        ' preserveAspectRatio="none">{}</svg>'
    ).format(chart.id, WIDTH, HEIGHT, Markup("").join(marks))
