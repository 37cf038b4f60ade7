"""What people do to the jobs of a store, in rounds: no call holds a lock for long, however many jobs it meets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from protojobs.config import Settings, kept_s
from protojobs.port.driver import Store
from protojobs.port.records import Cleared, FailedJob, Pruned, RetryAnswer

__all__ = ["ROUND", "chunks", "clear", "failed_jobs", "forget_failed", "prune", "retry_failed"]

ROUND = 1_000  # rows of one call: a lock held for milliseconds
FAILED_PAGE = 100


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids, as many at a time as one call takes."""
    return (ids[start : start + ROUND] for start in range(0, len(ids), ROUND))


def failed_jobs(driver: Store, queue: str | None) -> Iterator[FailedJob]:
    """The failed jobs, newest first, page by page."""
    cursor: str | None = None
    while True:
        page = driver.failed(queue=queue, limit=FAILED_PAGE, cursor=cursor)
        yield from page.jobs
        if (cursor := page.cursor) is None:
            return


def retry_failed(driver: Store, ids: Sequence[str]) -> list[RetryAnswer]:
    """Requeue failed jobs, by the ids of their rows of failed_jobs or of the jobs; answers in order."""
    answers: list[RetryAnswer] = []
    for chunk in chunks(ids):
        of_chunk = driver.retry_failed(chunk)
        if missing := [one for one, answer in zip(chunk, of_chunk, strict=True) if answer is RetryAnswer.MISSING]:
            rows = _rows_of(driver, missing)
            of_rows = dict(zip(rows, driver.retry_failed([*rows.values()]), strict=True)) if rows else {}
            of_chunk = [of_rows.pop(one, answer) for one, answer in zip(chunk, of_chunk, strict=True)]
        answers += of_chunk
    return answers


def forget_failed(driver: Store, ids: Sequence[str]) -> int:
    """Delete failed jobs, by the ids of their rows of failed_jobs or of the jobs; how many there were."""
    count = 0
    for chunk in chunks(ids):
        forgotten = driver.forget_failed(chunk)
        rows = _rows_of(driver, chunk) if forgotten < len(chunk) else {}
        count += forgotten + (driver.forget_failed([*rows.values()]) if rows else 0)
    return count


def _rows_of(driver: Store, job_ids: Sequence[str]) -> dict[str, str]:
    """The rows of failed_jobs of those among the ids that are a failed job's."""
    wanted = set(job_ids)
    return {row.job_id: row.id for row in driver.get_failed(job_ids) if row.job_id in wanted}


def clear(driver: Store, queue: str) -> Cleared:
    """Remove about as many of the queue's jobs as there are at the start: it ends, even if jobs keep coming."""
    stats = driver.stats(queue)
    done = more = driver.clear(queue, limit=ROUND)
    while more.has_more and done.total < stats.total:
        more = driver.clear(queue, limit=ROUND)
        done = Cleared(
            pending=done.pending + more.pending,
            completed=done.completed + more.completed,
            failed=done.failed + more.failed,
            cancelled=done.cancelled + more.cancelled,
        )
    return done


def prune(driver: Store, settings: Settings, completed_s: float | None, failed_s: float | None) -> Pruned:
    """Delete the finished jobs that ended more than so many seconds ago; without either age, what the settings say."""
    if completed_s is None and failed_s is None:
        completed_s, failed_s = kept_s(settings.completed_job_retention), kept_s(settings.failed_job_retention)
    done = Pruned()
    while True:
        more = driver.prune(completed_older_than=completed_s, failed_older_than=failed_s, limit=ROUND)
        done = Pruned(
            completed=done.completed + more.completed,
            failed=done.failed + more.failed,
            cancelled=done.cancelled + more.cancelled,
        )
        if not more.has_more:
            return done
