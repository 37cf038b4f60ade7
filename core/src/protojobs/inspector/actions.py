"""What a person may do to jobs, queues and schedules. Each asks for the right, goes through the JobQueue, and is noted.

Raises Forbidden for a viewer that may not; the try is noted too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import msgspec

from protojobs.clock import microseconds_of
from protojobs.entropy import stable_id
from protojobs.errors import DataInvalid, JobUnknown, OptionInvalid, PayloadNotDecodable
from protojobs.inspector.scope import Scope
from protojobs.inspector.views import ForgetAnswer
from protojobs.jobs import codec
from protojobs.port.records import BATCH_JOBS_MAX, CancelAnswer, Cleared, FailedJob, JobRecord, NewJob, RetryAnswer
from protojobs.queue.pushing import job_like
from protojobs.queue.queue import push_made
from protojobs.scheduler.scheduler import Scheduler

__all__ = [
    "IDS_MAX",
    "cancel",
    "clear",
    "forget",
    "pause",
    "pause_schedule",
    "resume",
    "resume_schedule",
    "retry",
    "retry_edited",
    "run_schedule",
]

IDS_MAX = 10_000  # in one call; for more there are operations
TARGETS_NAMED = 5  # ids that stand in a line of the audit log


def cancel(scope: Scope, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
    """Cancel jobs: pending ones at once, running ones as soon as their worker sees it. Answers in order."""
    with scope.acting("cancel", _target(ids)) as done:
        answers = scope.queue.cancel_many(_checked(ids), reason=reason)
        done.count = sum(answer in (CancelAnswer.CANCELLED, CancelAnswer.REQUESTED) for answer in answers)
        done.detail = reason
    return answers


def retry(scope: Scope, ids: Sequence[str]) -> list[RetryAnswer]:
    """Run failed jobs again, by the ids of the jobs or of their failed_jobs rows. Answers in order."""
    with scope.acting("retry", _target(ids)) as done:
        rows = _rows(scope, ids)
        wanted = list({row.id: None for row in rows.values()})  # one job may be named by both its ids
        answer_of = dict(zip(wanted, scope.queue.retry_failed(wanted), strict=True))
        answers = [answer_of[rows[one].id] if one in rows else RetryAnswer.MISSING for one in ids]
        done.count = Counter(answer_of.values())[RetryAnswer.REQUEUED]
    return answers


def forget(scope: Scope, ids: Sequence[str]) -> list[ForgetAnswer]:
    """Delete failed jobs for good, by the ids of the jobs or of their failed_jobs rows. Answers in order."""
    with scope.acting("forget", _target(ids)) as done:
        rows = _rows(scope, ids)
        jobs = {row.id: row.job_id for row in rows.values()}
        done.count = scope.queue.forget_failed(list(jobs))
        left = _left(scope, list(jobs.values())) if done.count < len(jobs) else set[str]()
        answers = [
            ForgetAnswer.FORGOTTEN if one in rows and rows[one].job_id not in left else ForgetAnswer.MISSING
            for one in ids
        ]
    return answers


def retry_edited(scope: Scope, job_id: str, data: str) -> str:
    """Run a failed job again with other data, given as JSON text: a new job, whose id is returned.

    The failed one is forgotten once the new one is stored; where that could not be done, doing it all again stores
    no second job. Fields that are hidden from the viewer keep their value.
    Raises JobUnknown when there is no such failed job, and a PayloadError when the data does not fit the job's type
    (where its code is imported here).
    """
    with scope.acting("retry_edited", job_id[:100]) as done:
        failure = _rows(scope, [job_id]).get(job_id)
        job = next(iter(scope.driver.get([failure.job_id])), None) if failure is not None else None
        if failure is None or job is None:
            raise JobUnknown(f'There is no failed job "{job_id[:100]}".', mend="It may have been retried meanwhile.")
        new = _edited(scope, job, failure, data)
        push_made(scope.queue, new)
        done.count, done.detail = 1, f"as {new.id}"
        if scope.queue.forget_failed([failure.id]) == 0:
            done.detail += "; the failed one had been retried or forgotten meanwhile"
    return new.id


def pause(scope: Scope, queue: str) -> bool:
    """Stop handing out the queue's jobs, on every worker. False: it was paused."""
    with scope.acting("pause", queue) as done:
        done.count = int(changed := scope.queue.pause(queue))
    return changed


def resume(scope: Scope, queue: str) -> bool:
    """Hand out the queue's jobs again. False: it was not paused."""
    with scope.acting("resume", queue) as done:
        done.count = int(changed := scope.queue.resume(queue))
    return changed


def clear(scope: Scope, queue: str) -> Cleared:
    """Delete the queue's pending, finished and failed jobs; those being processed stay."""
    with scope.acting("clear", queue) as done:
        cleared = scope.queue.clear(queue)
        done.count = cleared.total
    return cleared


def run_schedule(scope: Scope, schedule_id: str) -> str:
    """Push the schedule's job once, now, beside its times; returns the job's id."""
    with scope.acting("run_schedule", schedule_id) as done:
        job_id = Scheduler(scope.queue).run_now(schedule_id)
        done.count, done.detail = 1, f"as {job_id}"
    return job_id


def pause_schedule(scope: Scope, schedule_id: str) -> bool:
    """Let no time of the schedule fire. False: it was paused."""
    with scope.acting("pause_schedule", schedule_id) as done:
        done.count = int(changed := Scheduler(scope.queue).pause(schedule_id))
    return changed


def resume_schedule(scope: Scope, schedule_id: str) -> bool:
    """Let the schedule fire again. False: it was not paused."""
    with scope.acting("resume_schedule", schedule_id) as done:
        done.count = int(changed := Scheduler(scope.queue).resume(schedule_id))
    return changed


def _left(scope: Scope, job_ids: Sequence[str]) -> set[str]:
    """Those of the jobs that exist: somebody ran them again between our look and our deletion."""
    parts = (job_ids[start : start + BATCH_JOBS_MAX] for start in range(0, len(job_ids), BATCH_JOBS_MAX))
    return {job.id for part in parts for job in scope.driver.get(part)}


def _rows(scope: Scope, ids: Sequence[str]) -> dict[str, FailedJob]:
    """The failed_jobs rows that are meant, by the id that was given for each."""
    rows_by_id: dict[str, FailedJob] = {}
    wanted = _checked(ids)
    for start in range(0, len(wanted), BATCH_JOBS_MAX):
        rows = scope.driver.get_failed(wanted[start : start + BATCH_JOBS_MAX])
        by_id = {row.job_id: row for row in rows} | {row.id: row for row in rows}
        rows_by_id |= {one: by_id[one] for one in wanted[start : start + BATCH_JOBS_MAX] if one in by_id}
    return rows_by_id


def _edited(scope: Scope, job: JobRecord, failure: FailedJob, data: str) -> NewJob:
    what = f'job "{job.job_name}"'
    try:
        edited = cast("object", msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DataInvalid(f"{what}: this is not JSON: {error}.", mend="Strings and keys take double quotes.") from None
    if scope.redaction:
        edited = scope.redaction.restored(edited, _opened(job.data))
    text = codec.encode(edited, None, what=what, bytes_max=scope.queue.settings.payload_bytes_max)
    if (definition := scope.queue.registry.find(job.job_name)) is not None:
        try:
            codec.decode(text, definition.data_type, what=what)
        except PayloadNotDecodable as error:
            raise DataInvalid(f"{what}: the data does not fit its type: {error.__cause__}.") from error
    # The same id for the same failure and data: doing it all again stores no second job.
    return job_like(
        job, stable_id(f"{failure.id}\x1f{text}", microseconds_of(failure.failed_at)), data=text, meta=job.meta
    )


def _target(ids: Sequence[str]) -> str:
    named = " ".join(one[:40] for one in ids[:TARGETS_NAMED])
    return named if len(ids) <= TARGETS_NAMED else f"{named} and {len(ids) - TARGETS_NAMED} more"


def _checked(ids: Sequence[str]) -> list[str]:
    if len(ids) > IDS_MAX:
        raise OptionInvalid(f"These are {len(ids):,} ids.", mend=f"At most {IDS_MAX:,}; for more there is `start`.")
    return list(ids)


def _opened(text: str) -> object:
    try:
        return cast("object", msgspec.json.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
