"""What there is to say of the health of a memory store: little, but that nothing in it lasts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from protojobs.port.diagnosis import IN_FRONT_MAX, Finding, Severity
from protojobs.port.lifecycle import JobState
from protojobs_memory.handle import Handle
from protojobs_memory.state import after

__all__ = ["Diagnosing"]


class Diagnosing(Handle):
    """The verbs of `protojobs.port.diagnosis.Diagnoses`; their promises are written there."""

    def diagnose(self) -> list[Finding]:
        """See Diagnoses.diagnose."""
        with self.state.lock:
            number = len(self.state.rows)
        return [
            Finding(
                code="nothing_lasts",
                severity=Severity.NOTE,
                what=f"The store is this process's memory: its jobs ({number:,} now) end with it.",
                why="It is for tests and for trying things out.",
                mend="For work that matters give the url of a database, such as sqlite:///jobs.db.",
            )
        ]

    def in_front(self, job_id: str, *, counted_max: int = IN_FRONT_MAX) -> int:
        """See Diagnoses.in_front."""
        with self.state.lock:
            row, now = self.state.rows.get(job_id), self.now()
            if row is None or row.state is not JobState.PENDING:
                return 0
            lanes, mine = self.state.queues[row.job.queue].lanes, row.job.priority
            higher = sum(lane.count_below(after(now)) for priority, lane in lanes.items() if priority > mine)
            beside = lanes[mine].count_below(min((row.available_at, job_id), after(now)))
            return min(higher + beside, counted_max)

    def oldest_ended(self) -> Mapping[JobState, datetime]:
        """See Diagnoses.oldest_ended."""
        with self.state.lock:
            return {state: key[0] for state, ended in self.state.ended.items() if (key := ended.first())}
