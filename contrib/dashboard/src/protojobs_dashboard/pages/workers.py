"""The workers, and one of them with the jobs that it holds."""

from __future__ import annotations

from starlette.responses import Response

from protojobs_dashboard.page import Page

__all__ = ["worker", "workers"]

SHOWN = 200


def workers(page: Page) -> Response:
    """The workers that the store knows, those whose lease has lapsed first; and the jobs that have run longest."""
    found = sorted(page.inspector.workers(), key=lambda view: not view.is_late)
    return page.render("workers.html", workers=found[:SHOWN], number=len(found), running=page.inspector.running())


def worker(page: Page) -> Response:
    """One worker."""
    view = page.inspector.worker(page.param("id"))
    if view is None:
        what = "There is no such worker (any more): it has signed off, or its lease was taken back."
        return page.render("missing.html", status=404, what=what, back="/workers", words="Workers", is_live=False)
    return page.render("worker.html", view=view, worker=view.worker)
