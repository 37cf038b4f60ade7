"""What goes wrong, grouped by cause, and one cause with its jobs."""

from __future__ import annotations

from starlette.responses import Response

from protojobs_dashboard.page import Page

__all__ = ["error", "errors"]

SHOWN = 50


def errors(page: Page) -> Response:
    """The causes of failures, the latest first."""
    groups = page.inspector.errors(limit=SHOWN) if page.inspector.is_observing else None
    return page.render("errors.html", groups=groups, shown=SHOWN)


def error(page: Page) -> Response:
    """One cause: a sample, and the failed jobs that share it."""
    fingerprint = page.request.path_params["fingerprint"]
    found = page.inspector.error(fingerprint, limit=SHOWN, cursor=page.param("cursor") or None)
    if found.group is None:
        what = "No failed job has this cause (any more): they were retried, forgotten or pruned."
        return page.render("missing.html", status=404, what=what, back="/errors", words="Errors", is_live=False)
    return page.render("error.html", group=found.group, found=found)
