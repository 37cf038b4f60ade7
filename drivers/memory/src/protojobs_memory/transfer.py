"""Moving jobs to another store, in three steps that can each be repeated: export, import there, drop here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from msgspec import convert
from msgspec.structs import replace

from protojobs.errors import OptionInvalid, shown
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import Enqueued, ExportedJob, NewJob
from protojobs.port.rules import check_batch
from protojobs_memory.handle import Handle
from protojobs_memory.sorted_keys import SortedKeys
from protojobs_memory.state import Row
from protojobs_memory.views import record

__all__ = ["Transfer"]

_CURSOR = re.compile(r"[0-9a-f]{16}/")  # a number, and the id of a job


class Transfer(Handle):
    """The transfer verbs of `protojobs.port.administration.Administers`; their promises are written there."""

    def export_jobs(
        self, token: str, *, cursor: str | None = None, limit: int = 500
    ) -> tuple[list[ExportedJob], str | None]:
        """See Administers.export_jobs.

        The store numbers jobs as they begin to move; a cursor is a place in that order, so that the same cursor shows
        the same jobs for as long as they are here.
        """
        if cursor is not None and not _CURSOR.match(cursor):
            raise OptionInvalid(f"{shown(cursor)} is no cursor of an export.", mend="Pass one that `export_jobs` gave.")
        with self.state.lock:
            moving = self.state.exports.setdefault(token, SortedKeys())
            keys = list(islice(moving.above(cursor or ""), limit + 1))
            for row in list(islice(self._exportable(), max(0, limit - len(keys)))):
                self._begin(row, moving)
                keys.append(row.export_key)
            has_more = len(keys) > limit or any(True for _ in self._exportable())
            if not moving:
                del self.state.exports[token]
            page = [self._exported(self.state.rows[key.partition("/")[2]]) for key in keys[:limit]]
            return page, keys[:limit][-1] if page and has_more else None

    def _begin(self, row: Row, moving: SortedKeys[str]) -> None:
        self.state.exports_begun += 1
        row.export_key = f"{self.state.exports_begun:016x}/{row.job.id}"
        row.moving_from = row.state
        row.claim_seq += 1
        self.state.move(row, Verb.EXPORT, JobState.MOVING, row.available_at)
        moving.add(row.export_key)

    def _exportable(self) -> Iterator[Row]:
        """The jobs that may begin to move."""
        pending = (key for queue in self.state.queues.values() for lane in queue.lanes.values() for key in lane)
        for _, job_id in chain(pending, self.state.ended[JobState.FAILED]):
            yield self.state.rows[job_id]

    def _exported(self, row: Row) -> ExportedJob:
        seen = convert(record(row), ExportedJob, from_attributes=True)
        failed = self.state.failed[row.failed_id] if row.failed_id else None
        return replace(seen, status=row.moving_from, failed=failed)

    def import_jobs(self, jobs: Sequence[ExportedJob]) -> list[Enqueued]:
        """See Administers.import_jobs."""
        check_batch(jobs)
        if strange := [job.id for job in jobs if job.status not in (JobState.PENDING, JobState.FAILED)]:
            raise OptionInvalid(f"job {strange[0]} is neither pending nor failed.", mend="Import what was exported.")
        with self.state.lock:
            answers: list[Enqueued] = []
            for job in jobs:
                is_known = job.id in self.state.rows
                answers.append(Enqueued(id=job.id, duplicate_of=job.id if is_known else None))
                if not is_known:
                    row = _row(job)
                    self.state.add(row)
                    if job.failed is not None:
                        self.state.add_failure(row, job.failed)
            self.state.ring()
            return answers

    def drop_exported(self, token: str, ids: Sequence[str]) -> int:
        """See Administers.drop_exported."""
        check_batch(ids)
        with self.state.lock:
            moving = self.state.exports.get(token, SortedKeys())
            rows = [row for job_id in dict.fromkeys(ids) if (row := self.state.rows.get(job_id))]
            rows = [row for row in rows if row.state is JobState.MOVING and row.export_key in moving]
            for row in rows:
                moving.remove(row.export_key)
                self.state.remove(row, Verb.DROP_EXPORTED)
            if not moving:
                self.state.exports.pop(token, None)
            return len(rows)


def _row(job: ExportedJob) -> Row:
    """The job as it was where it came from."""
    new = NewJob(
        id=job.id,
        queue=job.queue,
        job_name=job.job_name,
        job_class=job.job_class,
        data=job.data,
        priority=job.priority,
        max_retries=job.max_retries,
        retry_delay=job.retry_delay,
        retry_policy=job.retry_policy,
        timeout=job.timeout,
        meta=job.meta,
    )
    return Row(
        job=new,
        size=len(job.data.encode()),
        created_at=job.created_at,
        available_at=job.available_at,
        state=job.status,
        attempts=job.attempts,
        claim_seq=job.claim_seq,
        reserved_at=job.reserved_at,
        processed_at=job.processed_at,
        crashes=job.crashes,
        returns=job.returns,
        reclaims=job.reclaims,
        progress=job.progress,
        cancel_requested_at=job.cancel_requested_at,
        reason=job.reason,
    )
