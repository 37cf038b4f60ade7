"""The timeline of a job: a list of moments, from its row and from the notes of workers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from protojobs.inspector.views import Moment
from protojobs.jobs.fingerprints import last_line
from protojobs.port.lifecycle import FINISHED, JobState
from protojobs.port.observing import AttemptNote
from protojobs.port.records import JobRecord

__all__ = ["timeline"]


def timeline(job: JobRecord, attempts: Sequence[AttemptNote], now: datetime) -> tuple[Moment, ...]:
    """In the order of time. Attempts that nobody noted (those that just succeeded, or are long ago) are missing."""
    moments = [Moment(at=job.created_at, what="created", detail=job.queue)]
    for note in attempts:
        moments.append(Moment(at=note.started_at, what="taken", attempt=note.attempt, detail=note.worker))
        moments.append(
            Moment(at=note.ended_at, what=note.result.value, attempt=note.attempt, detail=last_line(note.error))
        )
    noted = {note.claim_seq for note in attempts}
    if job.reserved_at is not None and job.claim_seq not in noted and job.status is not JobState.PENDING:
        attempt = job.attempts if job.status in (*FINISHED, JobState.PROCESSING) else 0
        moments.append(Moment(at=job.reserved_at, what="taken", attempt=attempt, detail=job.reserved_by))
    if job.status in FINISHED and job.processed_at is not None and job.claim_seq not in noted:
        moments.append(Moment(at=job.processed_at, what=job.status.value, detail=job.reason or ""))
    if job.cancel_requested_at is not None:
        moments.append(Moment(at=job.cancel_requested_at, what="cancel requested", detail=job.reason or ""))
    if job.status is JobState.PENDING and job.available_at > now:
        moments.append(Moment(at=job.available_at, what="due"))
    return tuple(sorted(moments, key=lambda moment: moment.at))
