"""Moving jobs to another store, in three steps that can each be repeated: export, import there, drop here."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import convert
from msgspec.msgpack import Decoder
from msgspec.structs import asdict

from protojobs.errors import OptionInvalid, shown
from protojobs.port.lifecycle import JobState
from protojobs.port.records import Enqueued, ExportedJob
from protojobs.port.rules import check_batch
from protojobs_redis.packing import (
    STATES,
    Entry,
    Failure,
    blob_of,
    encode,
    failed_job,
    imported_row,
    is_number,
    moment_text,
    record,
    texts,
)
from protojobs_redis.runner import ScriptRunner

__all__ = ["drop_exported", "export_jobs", "import_jobs"]

PAGE_MAX = 1_000

_Exported = tuple[Entry, str, str, bytes]

_page = Decoder(tuple[str, list[_Exported]])


def export_jobs(
    scripts: ScriptRunner, token: str, cursor: str | None, limit: int
) -> tuple[list[ExportedJob], str | None]:
    """A page of the jobs that move under the token. It holds a few megabytes at most, so it may be short."""
    if cursor is not None and not is_number(cursor):
        raise OptionInvalid(f"{shown(cursor)} is no cursor of an export.", mend="Pass one that `export_jobs` gave.")
    after, jobs = scripts.decoded(_page, "export_jobs", token, cursor or "", max(1, min(limit, PAGE_MAX)))
    return [_as_it_was(*job) for job in jobs], after or None


def _as_it_was(entry: Entry, state: str, failed_id: str, failure: bytes) -> ExportedJob:
    failed = failed_job(failed_id, failure, entry) if failure else None
    return convert(asdict(record(entry)) | {"status": STATES[state], "failed": failed}, ExportedJob)


def import_jobs(scripts: ScriptRunner, jobs: Sequence[ExportedJob]) -> list[Enqueued]:
    """Store the jobs as they were where they came from, unless their ids are known."""
    check_batch(jobs)
    if strange := [job.id for job in jobs if job.status not in (JobState.PENDING, JobState.FAILED)]:
        raise OptionInvalid(f"job {strange[0]} is neither pending nor failed.", mend="Import what was exported.")
    if not jobs:
        return []
    letters = scripts.letters("import_jobs", encode([_imported(job) for job in jobs]), *map(blob_of, jobs))
    return [
        Enqueued(id=job.id, duplicate_of=job.id if letter == "d" else None)
        for job, letter in zip(jobs, letters, strict=True)
    ]


def _imported(job: ExportedJob) -> tuple[object, ...]:
    """As scripts/import_jobs.lua reads it: id, row, row of failed_jobs or ''."""
    failure: Failure | str = ""
    if job.failed is not None:
        failure = Failure(job.id, moment_text(job.failed.failed_at), job.failed.attempts, job.failed.exception)
    return job.id, imported_row(job), failure


def drop_exported(scripts: ScriptRunner, token: str, ids: Sequence[str]) -> int:
    """Delete jobs that move under the token; how many there were."""
    check_batch(ids)
    return scripts.number("drop_exported", token, texts(ids))
