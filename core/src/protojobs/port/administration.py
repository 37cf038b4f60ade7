"""The part of the port for people: to look at jobs, queues and workers, and to act on jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from protojobs.port.records import (
    COUNTED_MAX,
    CancelAnswer,
    Cleared,
    Enqueued,
    ExportedJob,
    FailedJob,
    FailedPage,
    JobFilter,
    JobPage,
    JobRecord,
    Pruned,
    QueueInfo,
    RetryAnswer,
    Stats,
    WorkerRecord,
)

__all__ = ["Administers", "Inspects"]


class Inspects(Protocol):
    """Looking into the store. Every call is bounded, however many jobs there are."""

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        """The jobs that exist among `ids` (at most 1,000), in any order."""
        ...

    def find(
        self, which: JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> JobPage:
        """A page of jobs, newest id first. Examines a bounded number of rows, so a page may be short and go on.

        Moving jobs are among them, as among those of `get`; and their rows of failed_jobs among those of `failed`. With
        `chars_max` each job's `data` is cut to so many characters.
        """
        ...

    def failed(
        self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        """A page of failed_jobs, newest first. `chars_max`: `data` is cut, and of `exception` the last so many stay."""
        ...

    def get_failed(self, ids: Sequence[str]) -> list[FailedJob]:
        """The rows of failed_jobs that exist among `ids`, in any order, each once.

        An id is that of a row, or of the job that has failed. At most 1,000.
        """
        ...

    def stats(self, queue: str | None = None, *, counted_max: int = COUNTED_MAX) -> Stats:
        """Counts of one queue or of all. Exact after the caller's own writes; live ones beyond a bound may be guessed.

        Moving jobs are counted nowhere: they are neither here nor there.

        The bound is `counted_max` (at most COUNTED_MAX): smaller is quicker, and beyond it `is_estimate` is set.

        Finished states come from counters kept in the settling step, from which prune, clear, forget and retry_failed
        subtract in theirs.
        """
        ...

    def queues(self, *, after: str = "", limit: int = 10_000, counted_max: int = COUNTED_MAX) -> list[QueueInfo]:
        """The queues that have jobs (moving ones too) or are paused, by name, from the first behind `after`.

        At most `limit`.

        Live jobs are counted up to `counted_max` for each queue, beyond which they may be guessed (`is_estimate`).
        """
        ...

    def workers(self) -> list[WorkerRecord]:
        """Every worker whose row stands, lapsed ones included, oldest first (at most 10,000)."""
        ...


class Administers(Protocol):
    """What people do to jobs. Bulk verbs work in bounded rounds and say `has_more`."""

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        """Cancel pending jobs at once, mark processing ones; answers in order. A moving job counts as finished here."""
        ...

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        """Requeue by failed_jobs id: the same job goes failed -> pending, due at once, with its own settings.

        attempts, crashes, returns and reclaims become 0, claim_seq + 1, and the failed_jobs row goes in the same step.
        """
        ...

    def forget_failed(self, ids: Sequence[str]) -> int:
        """Delete failed jobs by failed_jobs id, job and row together; answers how many there were."""
        ...

    def clear(self, queue: str, *, limit: int = 1_000) -> Cleared:
        """Remove up to `limit` pending or finished jobs of the queue and their failed_jobs rows; no processing one."""
        ...

    def pause(self, queue: str) -> bool:
        """From the next claim on the queue lends nothing, to any worker, until `resume`. False: it was paused."""
        ...

    def resume(self, queue: str) -> bool:
        """Undo `pause`, and wake who waits for the queue. False: it was not paused."""
        ...

    def prune(
        self,
        *,
        completed_older_than: float | None = None,
        failed_older_than: float | None = None,
        limit: int = 1_000,
    ) -> Pruned:
        """Delete up to `limit` finished jobs whose `processed_at` lies more than that many seconds back.

        Cancelled jobs go with the completed ones. None: not these. By an index on `processed_at`, from the oldest: what
        it costs depends on how many it deletes, not on how many stay.
        """
        ...

    def export_jobs(
        self, token: str, *, cursor: str | None = None, limit: int = 500
    ) -> tuple[list[ExportedJob], str | None]:
        """Set pending and failed jobs to `moving` under `token` (claim_seq + 1) and return them with their old state.

        A page and the cursor of the next, None at the end. Calling again with the same token and cursor returns the
        same jobs in the same order, which may be any: those already moving under the token come first.
        """
        ...

    def import_jobs(self, jobs: Sequence[ExportedJob]) -> list[Enqueued]:
        """Store exported jobs as they were: attempts, settings, times, failed rows. Known ids are duplicates."""
        ...

    def drop_exported(self, token: str, ids: Sequence[str]) -> int:
        """Delete jobs that are `moving` under `token`, with their failed_jobs rows; answers how many there were."""
        ...
