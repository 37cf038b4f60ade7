"""Finding rows of failed_jobs by what people have at hand: their own id, or that of the job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from protojobs.lifecycle import JobState
from protojobs.protocols import Inspects
from protojobs.records import FailedJob

__all__ = ["failed_pages", "find_failed", "last_line"]

_PAGE = 500
_PAGES_MAX = 100  # a failed job is looked for by its job's id among the newest 50,000 of its queue


def failed_pages(store: Inspects, queue: str | None) -> Iterator[Sequence[FailedJob]]:
    """All failed jobs, newest first, page by page. Removing what was seen does not disturb it."""
    cursor: str | None = None
    while True:
        page = store.failed(queue=queue, limit=_PAGE, cursor=cursor)
        if page.jobs:
            yield page.jobs
        if (cursor := page.cursor) is None:
            return


def find_failed(store: Inspects, ids: Sequence[str]) -> dict[str, FailedJob]:
    """The failed jobs among `ids`, each by the id that was given for it: of its failed_jobs row, or of the job."""
    found: dict[str, FailedJob] = {}
    for start in range(0, len(ids), _PAGE):
        part = ids[start : start + _PAGE]
        found |= {row.id: row for row in store.get_failed(part)}
        if rest := [one for one in part if one not in found]:
            failed = [job for job in store.get(rest) if job.status is JobState.FAILED]
            found |= _by_job({job.id for job in failed}, {job.queue for job in failed}, store)
    return found


def last_line(exception: str) -> str:
    """What a traceback comes to: its last line."""
    return next((line.strip() for line in reversed(exception.splitlines()) if line.strip()), "")


def _by_job(wanted: set[str], queues: set[str], store: Inspects) -> dict[str, FailedJob]:
    found: dict[str, FailedJob] = {}
    for queue in sorted(queues):
        for _, page in zip(range(_PAGES_MAX), failed_pages(store, queue), strict=False):
            found |= {row.job_id: row for row in page if row.job_id in wanted}
            if len(found) == len(wanted):
                return found
    return found
