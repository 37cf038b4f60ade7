"""The store, its health, bulk operations, and who did what."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from protojobs.inspector import OperationState
from protojobs_dashboard.page import Page

__all__ = ["audit", "doctor", "operation", "operations", "system"]

SHOWN = 50


def system(page: Page) -> Response:
    """What the driver can, and which settings are in force."""
    view = page.inspector.system()
    page.now = view.at
    return page.render("system.html", view=view)


def doctor(page: Page) -> Response:
    """What the doctor has found. It examines aside, so that this page costs nothing however much he looks at."""
    page.inspector.operations()  # asks whether they may look at all
    is_asked_for = page.param("again") != ""
    seen = page.look.examination.latest(page.inspector.doctor, is_asked_for=is_asked_for)
    if is_asked_for:  # once: a page that follows must not ask for it again and again
        return RedirectResponse(f"{page.root}/doctor", 303)
    return page.render("doctor.html", seen=seen)


def operations(page: Page) -> Response:
    """What was done to all jobs that match a query, by this process."""
    return page.render("operations.html", operations=page.inspector.operations())


def operation(page: Page) -> Response:
    """One of them: how far it is, and a way to stop it."""
    found = page.inspector.operation(page.request.path_params["id"])
    if found is None:
        what = "There is no such operation: this process does not know it. What was done stands in the audit log."
        return page.render("missing.html", status=404, what=what, back="/operations", words="Operations", is_live=False)
    return page.render("operation.html", operation=found, is_running=found.state is OperationState.RUNNING)


def audit(page: Page) -> Response:
    """Who did what, the latest first."""
    found = None
    if page.inspector.is_observing:
        found = page.inspector.audit(limit=SHOWN, cursor=page.param("cursor") or None)
    return page.render("audit.html", found=found)
