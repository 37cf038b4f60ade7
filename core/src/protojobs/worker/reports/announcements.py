"""The event that tells of a run: that it begins, and what the store has made of its result."""

from __future__ import annotations

from typing import TypedDict

from protojobs.events import (
    JobCancelled,
    JobEvent,
    JobFailed,
    JobLate,
    JobProcessed,
    JobProcessing,
    JobReleased,
    JobRetrying,
    JobSnoozed,
)
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, Settled, SettleStatus
from protojobs.worker.outcome import Outcome

__all__ = ["announcement", "beginning"]


def beginning(claimed: ClaimedJob) -> JobProcessing:
    """The event of a run that begins."""
    wait_s = (claimed.reserved_at - claimed.available_at).total_seconds()
    return JobProcessing(**_job_facts(claimed), wait_s=max(wait_s, 0.0))


def announcement(outcome: Outcome, answer: Settled, *, late_s: float) -> JobEvent:
    """The event that the store's answer calls for: it follows the job's resulting state, not the run's wish."""
    facts = _job_facts(outcome.claimed)
    sent = outcome.settlement
    duration_s = outcome.duration_s
    if answer.status is SettleStatus.STALE:
        if sent.verb is Verb.RELEASE:  # no result: the job has gone back before we could give it back
            return JobReleased(**facts, reason=sent.reason, error=sent.error, available_at=answer.available_at)
        return JobLate(**facts, late_s=late_s)
    if answer.state is JobState.COMPLETED:  # perhaps in the job's own transaction, whatever the run came to after it
        return JobProcessed(**facts, result=outcome.result, duration_s=duration_s)
    if answer.state is JobState.CANCELLED:
        return JobCancelled(**facts, reason=sent.reason or "cancelled on request")
    match sent.verb:
        case Verb.FAIL:
            return JobFailed(**facts, exception=outcome.exception, error=sent.error, duration_s=duration_s)
        case Verb.RETRY:
            return JobRetrying(
                **facts,
                exception=outcome.exception,
                error=sent.error,
                duration_s=duration_s,
                available_at=answer.available_at,
            )
        case Verb.SNOOZE:
            return JobSnoozed(**facts, available_at=answer.available_at)
        case _:
            return JobReleased(**facts, reason=sent.reason, error=sent.error, available_at=answer.available_at)


class JobFacts(TypedDict):
    """The fields that every job event has."""

    job_id: str
    job_name: str
    job_class: str
    queue: str
    attempt: int


def _job_facts(claimed: ClaimedJob) -> JobFacts:
    return {
        "job_id": claimed.id,
        "job_name": claimed.job_name,
        "job_class": claimed.job_class,
        "queue": claimed.queue,
        "attempt": claimed.attempts,
    }
