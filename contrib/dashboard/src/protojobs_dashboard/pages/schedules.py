"""The schedules, and one of them with its next times."""

from __future__ import annotations

from starlette.responses import Response

from protojobs_dashboard.page import Page

__all__ = ["schedule", "schedules"]

SHOWN = 50
TIMES_LISTED, TIMES_SHOWN = 3, 10


def schedules(page: Page) -> Response:
    """A page of schedules by id."""
    found = page.inspector.schedules(limit=SHOWN, cursor=page.param("cursor") or None)
    rows = [(one, page.inspector.next_times(one, TIMES_LISTED)) for one in found.schedules]
    return page.render("schedules.html", rows=rows, unreadable=found.unreadable, cursor=found.cursor)


def schedule(page: Page) -> Response:
    """One schedule."""
    found = page.inspector.schedule(page.param("id"))
    if found is None:
        what = "There is no such schedule (any more)."
        return page.render("missing.html", status=404, what=what, back="/schedules", words="Schedules", is_live=False)
    return page.render("schedule.html", schedule=found, times=page.inspector.next_times(found, TIMES_SHOWN))
