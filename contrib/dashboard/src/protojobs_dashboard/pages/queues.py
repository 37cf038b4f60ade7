"""The queues, and one of them."""

from __future__ import annotations

from starlette.responses import Response

from protojobs.port.records import QueueInfo, Stats
from protojobs_dashboard.charts import Chart
from protojobs_dashboard.page import Page
from protojobs_dashboard.pages import drawn

__all__ = ["queue", "queues"]

SHOWN = 50


def queues(page: Page) -> Response:
    """A page of queues by name."""
    found = page.inspector.queues(after=page.param("after"), limit=SHOWN)
    following = found[-1].name if len(found) == SHOWN else ""
    return page.render("queues.html", queues=found, following=following)


def queue(page: Page) -> Response:
    """One queue, with its last minutes as charts. One that has nothing (any more) is shown as empty."""
    name, minutes = page.param("name"), page.number("minutes", 60, maximum=10_080)
    found = page.inspector.queue(name)
    charts: list[Chart] = []
    if page.inspector.is_observing:
        series = page.inspector.series(minutes, queue=name, now=page.now)
        samples = page.inspector.depths(minutes, queue=name, now=page.now)
        charts = [
            drawn.throughput(series),
            drawn.percentiles(series, "wait"),
            drawn.percentiles(series, "run"),
            drawn.depths(samples),
        ]
    info = found or QueueInfo(name=name, is_paused=False, stats=Stats())
    return page.render(
        "queue.html", info=info, is_known=found is not None, charts=charts, minutes=minutes, spans=drawn.MINUTES
    )
