"""What people do to the jobs of a memory store: cancel, retry, forget, clear, pause, prune."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice

from msgspec import convert

from protojobs.port import rules
from protojobs.port.lifecycle import TRANSITIONS, JobState, Verb
from protojobs.port.records import CancelAnswer, Cleared, Pruned, RetryAnswer
from protojobs_memory.state import Row, State
from protojobs_memory.views import exported

__all__ = ["cancel", "clear", "forget_failed", "pause", "prune", "resume", "retry_failed"]


def cancel(state: State, now: datetime, ids: Sequence[str], reason: str) -> list[CancelAnswer]:
    """Cancel pending jobs, and mark those that run."""
    return [_cancel_one(state, now, state.rows.get(job_id), reason) for job_id in ids]


def _cancel_one(state: State, now: datetime, row: Row | None, reason: str) -> CancelAnswer:
    before = exported(state, row) if row is not None else None
    job, answer = rules.cancel(before, reason, now)
    if row is not None and job is not None and job is not before:
        state.replace(row, job)
    return answer


def retry_failed(state: State, now: datetime, failed_ids: Sequence[str]) -> list[RetryAnswer]:
    """Requeue the jobs of these rows of failed_jobs."""
    answers = [_retry_one(state, now, _failed_row(state, failed_id)) for failed_id in failed_ids]
    state.wake()
    return answers


def _retry_one(state: State, now: datetime, row: Row | None) -> RetryAnswer:
    before = exported(state, row) if row is not None else None
    job, answer = rules.retry_failed(before, now)
    if row is not None and job is not None and job is not before:
        state.replace(row, job)
    return answer


def forget_failed(state: State, failed_ids: Sequence[str]) -> int:
    """Delete the jobs of these rows of failed_jobs; how many there were."""
    rows = [row for failed_id in dict.fromkeys(failed_ids) if (row := _failed_row(state, failed_id))]
    rows = [row for row in rows if (row.state, Verb.FORGET) in TRANSITIONS]
    _remove(state, Verb.FORGET, rows, len(rows))
    return len(rows)


def _failed_row(state: State, failed_id: str) -> Row | None:
    failure = state.failed.get(failed_id)
    return state.rows[failure.job_id] if failure else None


def clear(state: State, name: str, limit: int) -> Cleared:
    """Delete jobs of the queue that do not run."""
    queue = state.queues.get(name)
    clearable = (row for row in queue.rows.values() if (row.state, Verb.CLEAR) in TRANSITIONS) if queue else ()
    return convert(_remove(state, Verb.CLEAR, clearable, limit), Cleared)


def pause(state: State, name: str) -> bool:
    """Let no job of the queue be claimed; False if that is so already."""
    queue = state.queue(name)
    was_paused, queue.is_paused = queue.is_paused, True
    return not was_paused


def resume(state: State, name: str) -> bool:
    """Undo `pause`; False if it was not paused."""
    queue = state.queues.get(name)
    if queue is None or not queue.is_paused:
        return False
    queue.is_paused = False
    if not queue.rows:
        del state.queues[name]
    state.wake()
    return True


def prune(
    state: State, now: datetime, completed_older_than: float | None, failed_older_than: float | None, limit: int
) -> Pruned:
    """Delete jobs that ended so many seconds ago, from those that ended first."""
    ages = {
        JobState.COMPLETED: completed_older_than,
        JobState.CANCELLED: completed_older_than,
        JobState.FAILED: failed_older_than,
    }
    prunable = (
        state.rows[job_id]
        for end, age in ages.items()
        if age is not None
        for _, job_id in state.ended[end].below((now - timedelta(seconds=age), ""))
    )
    return convert(_remove(state, Verb.PRUNE, prunable, limit), Pruned)


def _remove(state: State, verb: Verb, removable: Iterable[Row], limit: int) -> dict[str, int]:
    """Delete up to `limit` jobs. How many there were of each state, and `has_more`."""
    rows = list(islice(removable, limit + 1))
    counts: dict[str, int] = {"has_more": len(rows) > limit}
    for row in rows[:limit]:
        counts[row.state.value] = counts.get(row.state.value, 0) + 1
        state.remove(row, verb)
    return counts
