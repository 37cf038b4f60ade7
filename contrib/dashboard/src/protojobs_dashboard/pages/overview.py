"""The first page: is it well, and where not."""

from __future__ import annotations

import shlex

from starlette.responses import Response

from protojobs.port.observing import Result
from protojobs_dashboard.charts import Chart
from protojobs_dashboard.page import Page
from protojobs_dashboard.pages import drawn

__all__ = ["overview"]

RATES_SHOWN = 8
UNSERVED_SHOWN = 5


def overview(page: Page) -> Response:
    """The store at a glance, and its last minutes as charts."""
    minutes = page.number("minutes", 60, maximum=10_080)
    seen = page.inspector.overview(is_brief=True)
    page.now = seen.at
    charts: list[Chart] = []
    failed: int | None = None
    rates: list[object] = []
    if page.inspector.is_observing:
        series = page.inspector.series(minutes, now=page.now)
        failed = series.total.counts.get(Result.FAILED, 0)
        charts = [
            drawn.throughput(series),
            drawn.percentiles(series, "wait"),
            drawn.percentiles(series, "run"),
            drawn.depths(page.inspector.depths(minutes, now=page.now)),
        ]
        rates = list(page.inspector.rates(minutes, now=page.now)[:RATES_SHOWN])
    worker = shlex.join(["protojobs", "worker", *seen.unserved[:UNSERVED_SHOWN], "--app", "your.module"])
    return page.render(
        "overview.html",
        seen=seen,
        worker=worker,
        failed=failed,
        charts=charts,
        rates=rates,
        minutes=minutes,
        spans=drawn.MINUTES,
    )
