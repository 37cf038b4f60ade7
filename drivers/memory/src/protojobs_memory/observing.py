"""Notes of workers and people in a memory store: what charts, error pages and the audit log are made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from heapq import nlargest
from itertools import islice
from typing import Literal

from protojobs.port.observing import (
    ATTEMPTS_MAX,
    ActionPage,
    AttemptNote,
    DepthSample,
    FailureGroup,
    Rollup,
    RollupTotal,
    merged,
    totalled,
)
from protojobs.port.rules import shortened
from protojobs_memory.inspection import count
from protojobs_memory.state import State

__all__ = ["actions", "attempts", "depths", "failure_groups", "record", "rollups", "sample_depths", "totals"]

DEPTHS_MAX = 10_000  # samples in one answer
GROUPS_MAX = 1_000  # groups of failed jobs that one call looks at


def record(state: State, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
    """Store a worker's counts and the notes of its runs."""
    for rollup in rollups:
        state.notes.add_rollup(worker, rollup)
    for note in attempts:
        state.notes.add_attempt(note)


def rollups(state: State, period_s: int, since: datetime, until: datetime, queue: str, job_name: str) -> list[Rollup]:
    """The counts of a span: of all jobs, or of one queue or job name."""
    rows = state.notes.rollups_between(period_s, since, until)
    if not queue and not job_name:
        return merged(row for row in rows if not row.queue)
    wanted = (row for row in rows if row.queue and queue in ("", row.queue) and job_name in ("", row.job_name))
    return merged(wanted, queue=queue, job_name=job_name)


def totals(
    state: State, period_s: int, since: datetime, until: datetime, by: Literal["queue", "job_name"], limit: int
) -> list[RollupTotal]:
    """The counts of a span by queue or by job name."""
    rows = state.notes.rollups_between(period_s, since, until)
    return totalled((row for row in rows if row.queue), by=by, limit=limit)


def sample_depths(state: State, now: datetime, limit: int) -> bool:
    """Store this minute's depths, and delete notes that have outlived their time; False if the minute has them."""
    notes, at = state.notes, now.replace(second=0, microsecond=0)
    if at in notes.depths:
        return False
    counts = {name: count([queue], now) for name, queue in state.queues.items()}
    live = {name: stats.pending + stats.processing for name, stats in counts.items()}
    notes.depths[at] = [
        DepthSample(
            at=at,
            queue=name,
            ready=counts[name].pending - counts[name].scheduled,
            scheduled=counts[name].scheduled,
            processing=counts[name].processing,
        )
        for name in nlargest(limit, filter(live.get, live), key=live.__getitem__)
    ]
    notes.expire(now)
    return True


def depths(state: State, since: datetime, until: datetime, queue: str | None) -> list[DepthSample]:
    """The samples of a span, earliest first."""
    moments = sorted((at for at in state.notes.depths if since <= at < until), reverse=True)
    samples = (each for at in moments for each in state.notes.depths[at] if queue in (None, each.queue))
    return list(islice(samples, DEPTHS_MAX))[::-1]


def attempts(state: State, job_id: str) -> list[AttemptNote]:
    """The notes of the job's latest runs."""
    runs = state.notes.attempts.get(job_id, {})
    return [runs[claim_seq] for claim_seq in sorted(runs)[-ATTEMPTS_MAX:]]


def failure_groups(state: State, limit: int, counted_max: int, chars_max: int | None) -> list[FailureGroup]:
    """Failed jobs by fingerprint, the one that failed last first."""
    last = {fingerprint: next(keys.downwards()) for fingerprint, keys in state.alike.items()}
    latest = sorted(last, key=last.__getitem__, reverse=True)[: min(limit, GROUPS_MAX)]
    return [_group(state, fingerprint, last[fingerprint][1], counted_max, chars_max) for fingerprint in latest]


def _group(state: State, fingerprint: str, last_id: str, counted_max: int, chars_max: int | None) -> FailureGroup:
    keys = state.alike[fingerprint]
    first = keys.first()
    assert first is not None
    return FailureGroup(
        fingerprint=fingerprint,
        count=min(len(keys), counted_max),
        first_failed_at=first[0],
        last=shortened(state.failed[last_id], chars_max),
        is_capped=len(keys) > counted_max,
    )


def actions(state: State, limit: int, cursor: str | None) -> ActionPage:
    """A page of the audit log, newest first."""
    ids = list(islice(state.notes.action_ids.downwards(cursor), limit + 1))
    page = tuple(state.notes.actions[action_id] for action_id in ids[:limit])
    return ActionPage(actions=page, cursor=ids[limit - 1] if len(ids) > limit else None)
