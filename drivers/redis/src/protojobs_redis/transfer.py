"""Moving jobs to another store, in three steps that can each be repeated: export, import there, drop here."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import convert
from msgspec.msgpack import Decoder
from msgspec.structs import replace

from protojobs.errors import OptionInvalid, shown
from protojobs.port.lifecycle import JobState
from protojobs.port.records import Enqueued, ExportedJob
from protojobs_redis.handle import Handle, check_batch
from protojobs_redis.packing import (
    LETTERS,
    STATES,
    Entry,
    Failure,
    Row,
    blob_of,
    encode,
    failed_job,
    is_number,
    moment_text,
    record,
    texts,
)

__all__ = ["Transfer"]

PAGE_MAX = 1_000

_Exported = tuple[Entry, str, str, bytes]

_page = Decoder(tuple[str, list[_Exported]])


class Transfer(Handle):
    """The transfer verbs of `protojobs.port.administration.Administers`; their promises are written there."""

    def export_jobs(
        self, token: str, *, cursor: str | None = None, limit: int = 500
    ) -> tuple[list[ExportedJob], str | None]:
        """See Administers.export_jobs. A page holds a few megabytes at most, so it may be short."""
        if cursor is not None and not is_number(cursor):
            raise OptionInvalid(f"{shown(cursor)} is no cursor of an export.", mend="Pass one that `export_jobs` gave.")
        after, jobs = self._packed(_page, "export_jobs", token, cursor or "", max(1, min(limit, PAGE_MAX)))
        return [_exported(*job) for job in jobs], after or None

    def import_jobs(self, jobs: Sequence[ExportedJob]) -> list[Enqueued]:
        """See Administers.import_jobs."""
        check_batch(jobs)
        if strange := [job.id for job in jobs if job.status not in (JobState.PENDING, JobState.FAILED)]:
            raise OptionInvalid(f"job {strange[0]} is neither pending nor failed.", mend="Import what was exported.")
        if not jobs:
            return []
        letters = self._letters("import_jobs", encode([_imported(job) for job in jobs]), *map(blob_of, jobs))
        return [
            Enqueued(id=job.id, duplicate_of=job.id if letter == "d" else None)
            for job, letter in zip(jobs, letters, strict=True)
        ]

    def drop_exported(self, token: str, ids: Sequence[str]) -> int:
        """See Administers.drop_exported."""
        check_batch(ids)
        return self._number("drop_exported", token, texts(ids))


def _exported(entry: Entry, was: str, failed_id: str, failure: bytes) -> ExportedJob:
    seen = convert(record(entry), ExportedJob, from_attributes=True)
    failed = failed_job(failed_id, failure, entry) if failure else None
    return replace(seen, status=STATES[was], failed=failed)


def _imported(job: ExportedJob) -> tuple[object, ...]:
    """The job as it was where it came from: {id, row, row of failed_jobs or ''}."""
    ended_at = job.processed_at or (job.failed.failed_at if job.failed else None)
    row = Row(
        queue=job.queue,
        priority=job.priority,
        max_retries=job.max_retries,
        size=len(job.data.encode()),
        created_at=moment_text(job.created_at),
        available_at=moment_text(job.available_at),
        state=LETTERS[job.status],
        attempts=job.attempts,
        claim_seq=job.claim_seq,
        reserved_at=moment_text(job.reserved_at),
        processed_at=moment_text(ended_at if job.status is JobState.FAILED else None),
        crashes=job.crashes,
        returns=job.returns,
        reclaims=job.reclaims,
        progress=-1 if job.progress is None else job.progress,
        cancel_requested_at=moment_text(job.cancel_requested_at),
        reason=job.reason or "",
        failed_id=job.failed.id if job.failed else "",
        fingerprint=job.failed.fingerprint if job.failed else "",
    )
    failure: Failure | str = ""
    if job.failed is not None:
        failure = Failure(job.id, moment_text(job.failed.failed_at), job.failed.attempts, job.failed.exception)
    return job.id, row, failure
