"""The health of a memory store, and the place of a job in its queue."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from protojobs.port.diagnosis import Finding, Severity
from protojobs.port.lifecycle import JobState
from protojobs_memory.state import State, after

__all__ = ["diagnose", "in_front", "oldest_ended"]


def diagnose(state: State) -> list[Finding]:
    """One finding: nothing in this store lasts."""
    return [
        Finding(
            code="nothing_lasts",
            severity=Severity.NOTE,
            what=f"The store is this process's memory: its jobs ({len(state.rows):,} now) end with it.",
            why="It is for tests and for trying things out.",
            mend="For work that matters give the url of a database, such as sqlite:///jobs.db.",
        )
    ]


def in_front(state: State, now: datetime, job_id: str, counted_max: int) -> int:
    """How many due jobs would be claimed before this one."""
    row = state.rows.get(job_id)
    if row is None or row.state is not JobState.PENDING:
        return 0
    lanes, mine = state.queues[row.job.queue].lanes, row.job.priority
    higher = sum(lane.count_below(after(now)) for priority, lane in lanes.items() if priority > mine)
    beside = lanes[mine].count_below(min((row.available_at, job_id), after(now)))
    return min(higher + beside, counted_max)


def oldest_ended(state: State) -> Mapping[JobState, datetime]:
    """When the first job that is kept in each state ended."""
    return {end: key[0] for end, ended in state.ended.items() if (key := ended.first())}
