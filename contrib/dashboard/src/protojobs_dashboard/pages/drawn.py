"""From what an Inspector answers to the charts that pages show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from protojobs.inspector import Point, Series
from protojobs.port.observing import DepthSample, Result
from protojobs_dashboard.charts import LAYERS_MAX, Chart, Layer
from protojobs_dashboard.text import compact, seconds, short, visible

__all__ = ["MINUTES", "depths", "percentiles", "throughput"]

MINUTES = {60: "1 hour", 180: "3 hours", 1440: "24 hours", 10_080: "7 days"}
_OTHERS = "all others"


def throughput(series: Series) -> Chart:
    """How many runs ended, and how."""
    layers = tuple(
        Layer(
            name=result.value,
            css=f"r-{result.value}",
            values=tuple(point.counts.get(result) for point in series.points),
        )
        for result in Result
        if result in series.total.counts
    )
    unit = "minute" if series.period_s < 3600 else "hour"
    return Chart(
        id="throughput",
        title=f"Runs per {unit}",
        labels=_labels([point.began_at for point in series.points], series.period_s),
        layers=layers,
        say=compact,
        is_stacked=True,
    )


def percentiles(series: Series, what: Literal["wait", "run"]) -> Chart:
    """How long jobs waited or ran: the middle, and the slow ones."""
    layers = tuple(
        Layer(
            name=f"p{share}", css=f"l-{index}", values=tuple(_percentile(point, what, share) for point in series.points)
        )
        for index, share in enumerate((50, 95, 99))
    )
    title = "Wait, from due to begun" if what == "wait" else "Run, from begun to ended"
    return Chart(
        id=f"{what}-times",
        title=title,
        labels=_labels([point.began_at for point in series.points], series.period_s),
        layers=layers,
        say=seconds,
    )


def depths(samples: Sequence[DepthSample]) -> Chart:
    """Ready jobs by queue over time, those that had most of them; the rest together."""
    times = sorted({sample.at for sample in samples})
    totals: defaultdict[str, int] = defaultdict(int)
    for sample in samples:
        totals[sample.queue] += sample.ready
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    own = ranked if len(ranked) <= LAYERS_MAX else ranked[: LAYERS_MAX - 1]
    found: dict[tuple[str, datetime], int] = defaultdict(int)
    for sample in samples:
        found[sample.queue if sample.queue in own else _OTHERS, sample.at] += sample.ready
    names = [*own, _OTHERS] if len(own) < len(ranked) else own
    layers = tuple(
        Layer(
            name=str(visible(short(name, 40))),
            css=f"l-{index}",
            values=tuple(found.get((name, time)) for time in times),
        )
        for index, name in enumerate(names)
    )
    return Chart(id="depths", title="Ready jobs by queue", labels=_labels(times, 60), layers=layers, say=compact)


def _percentile(point: Point, what: str, share: int) -> float | None:
    value: object = getattr(point, f"{what}_p{share}")
    return value if isinstance(value, float) else None


def _labels(times: Sequence[datetime], period_s: int) -> tuple[str, ...]:
    pattern = "%H:%M" if period_s < 3600 else "%d %b %H:%M"
    return tuple(f"{time:{pattern}}" for time in times)
