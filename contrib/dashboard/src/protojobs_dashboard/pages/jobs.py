"""The list of jobs with its search, and one job with all that is known of it."""

from __future__ import annotations

from starlette.responses import Response

from protojobs.errors import QueryInvalid
from protojobs.inspector import JobListing
from protojobs.port.lifecycle import JobState
from protojobs.port.records import Stats
from protojobs.querying import KEYS, Query, parse, words
from protojobs_dashboard.page import Page

__all__ = ["TABS", "job", "jobs", "tab_query", "why"]

SHOWN = 50
TABS = ("", "ready", "scheduled", "processing", "completed", "failed", "cancelled")
_EXPLAINED = frozenset({JobState.PENDING, JobState.PROCESSING, JobState.UNREADABLE})


def jobs(page: Page) -> Response:
    """A page of the jobs that match. An error of the query is told beside its box, with nothing found."""
    text = page.param("q")
    listing, error, counts = JobListing(jobs=()), "", dict[str, int]()
    is_estimate = False
    try:
        asked = parse(text)
    except QueryInvalid as problem:
        error = str(problem)
    else:
        listing = page.inspector.jobs(text, limit=SHOWN, cursor=page.param("cursor") or None)
        if _is_counted(asked):
            stats = page.inspector.stats(asked.which.queue)
            counts, is_estimate = _counts(stats), stats.is_estimate
    tabs = [(word, tab_query(text, word)) for word in TABS]
    current = next((word for word, query in tabs if query == tab_query(text, None)), None)
    return page.render(
        "jobs.html",
        status=400 if error else 200,
        q=text,
        listing=listing,
        error=error,
        tabs=tabs,
        current=current,
        counts=counts,
        is_estimate=is_estimate,
        keys=KEYS,
    )


def job(page: Page) -> Response:
    """One job: its life, its attempts, and its data."""
    job_id = page.request.path_params["id"]
    view = page.inspector.job(job_id)
    if view is None:
        what = "There is no such job (any more): it may have been pruned, cleared or forgotten."
        return page.render("missing.html", status=404, what=what, back="/jobs", words="Jobs", is_live=False)
    return page.render("job.html", view=view, job=view.job, is_explained=view.job.status in _EXPLAINED)


def why(page: Page) -> Response:
    """Why it is not running. A page of its own, which the job's page takes in: it asks as much as all the rest."""
    reasons = page.inspector.explain(page.request.path_params["id"])
    status = 404 if reasons.state is None else 200
    return page.render("why.html", status=status, reasons=reasons, is_live=False)


def tab_query(text: str, word: str | None) -> str:
    """The query with another `state:`, or with none; None leaves it, in the same spelling as the others."""
    terms = [term for term in words(text) if word is None or not term.startswith(("state:", "-state:"))]
    if word is None:
        terms.sort(key=lambda term: not term.startswith("state:"))
    return " ".join([f"state:{word}", *terms] if word else terms)


def _is_counted(asked: Query) -> bool:
    """Whether the store's counters can tell how many are behind each tab."""
    others = [term for term in asked.terms if term.key != "state"]
    return not others or (len(others) == 1 and others[0].key == "queue" and asked.which.queue is not None)


def _counts(stats: Stats) -> dict[str, int]:
    return {
        "": stats.total,
        "ready": stats.pending - stats.scheduled,
        "scheduled": stats.scheduled,
        "processing": stats.processing,
        "completed": stats.completed,
        "failed": stats.failed,
        "cancelled": stats.cancelled,
    }
