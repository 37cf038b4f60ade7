"""The port: what core asks of a store, in the domain's verbs. This page is the driver contract.

Synchronous, because every store has a good synchronous client and a stranger can write that in a day; thread-safe,
because a worker calls from its claim loop, its heartbeat and its wait thread at once; batch-shaped, because one round
trip for a hundred jobs is what makes a queue fast. Values cross as the frozen records of `protojobs.port.records`.

Rules for every verb:

* One atomic step each: a process that dies at any instruction leaves the verb done or not done.
* Store time decides: the server's clock plus the driver argument `time_offset` (seconds, 0 in production), read inside
  the step. All stored times are store time, UTC, to the microsecond.
* A foreign exception leaves as `StoreUnavailable` (the call may be repeated; its outcome may be unknown) or as
  `ContractBroken` (repeating will not help), with the original as cause. A server that does not let the process in,
  since its name, password or database is wrong, is a `ConfigurationError` to one that it never let in, and
  `StoreUnavailable` to one that it let in before: a running worker stays. Before `setup`, and where the storage is of
  another version, a verb that cannot do without it raises `SchemaOutdated`, whose mend is "protojobs migrate". An
  argument that no driver could take is `OptionInvalid`: more ids than a verb takes, a cursor that this driver did not
  give.
* Names are compared byte by byte.
* A stored row that no driver wrote holds up nothing else: `claim` settles such a job as failed in the same call, and
  verbs that look show stand-ins and why, and never raise for it (`protojobs.port.unreadable`).
* No verb waits without a bound. Ask `clock.time_left(usual_s)` how long a wait may last: the caller may have set a
  limit (`clock.within`) to all that its thread asks for. A driver may set one itself, around what it calls.
* A driver opens nothing before its first verb and starts afresh in a forked child: there it uses nothing that its
  parent opened, and closes nothing of it either. (A fork while another thread is inside the client's library is the
  caller's own risk: that library's locks stay held in the child.)
* Whoever makes a driver closes it. One that is dropped unclosed may keep what it has opened until its process ends.
* Order is promised only where a verb's text names one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol, runtime_checkable

from protojobs.port.records import (
    COUNTED_MAX,
    CancelAnswer,
    Capabilities,
    ClaimedJob,
    ClaimReply,
    Cleared,
    Enqueued,
    ExportedJob,
    FailedJob,
    FailedPage,
    Fence,
    Heartbeat,
    JobFilter,
    JobPage,
    JobRecord,
    NewJob,
    Pruned,
    QueueInfo,
    Reclaimed,
    RetryAnswer,
    Settled,
    Settlement,
    Stats,
    WorkerInfo,
    WorkerRecord,
)
from protojobs.port.schedules import DueCursor, DueSchedules, Fired, Firing, Schedule, SchedulePage

__all__ = [
    "PORT_VERSION",
    "Administers",
    "Begins",
    "BeginsNested",
    "Driver",
    "Inspects",
    "Schedules",
    "Store",
    "SupportsAsyncTransaction",
    "SupportsTransaction",
]

PORT_VERSION = 1


class Driver(Protocol):
    """What a store must do for jobs to be pushed and worked.

    Made by the callable that its entry point names, as `factory(url, **options)`: `url` whole, with whatever query it
    has, which only the driver understands; `options` as somebody gave them to `create_driver`. The product gives none;
    the kit gives `time_offset`.
    """

    port_version: int
    capabilities: Capabilities

    def setup(self) -> None:
        """Create the storage, or upgrade it.

        Idempotent, and safe when ten processes start at once; a starter that dies half-way leaves it re-runnable.
        """
        ...

    def teardown(self) -> None:
        """Remove everything that `setup` made, jobs included."""
        ...

    def close(self) -> None:
        """Give back connections. The driver may be used again afterwards, and opens new ones then."""
        ...

    def now(self) -> datetime:
        """Store time."""
        ...

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Store all of `jobs` or none, and answer for each, in order, whether it was stored or already there.

        At most BATCH_JOBS_MAX jobs and BATCH_BYTES_MAX payload bytes. An id that the store holds (in any state) is a
        duplicate and changes nothing, so sending again after an unknown outcome stores once. Rings the doorbell of the
        queues after the jobs are durable.
        """
        ...

    def register(self, worker: WorkerInfo) -> None:
        """Store the worker's row, in place of one of its id; its lease ends `lease_s` seconds from the store's now."""
        ...

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
        """Prolong the lease to `lease_s` from now, and store the progress (0..1) of the claims that still match.

        A lapsed row that still stands is renewed all the same: reclaim, not the clock, ends a lease. A row that is gone
        is never made again: that raises `LeaseLost`.
        """
        ...

    def leave(self, worker: str) -> None:
        """Delete the worker's row. Jobs that it still holds become orphans, which `reclaim` takes back."""
        ...

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        """Take back up to `limit` jobs whose holder's lease has ended, and the orphans; nothing after `until`.

        `until` is store time, compared inside the step. A reclaim that was sent before an outage and is executed after
        it would find that all leases have ended, before anybody had the chance to renew one: it does nothing, and
        answers `Reclaimed(has_more=True)` with nothing else in it.

        First delete each worker row whose lease end has come (`lease_ends_at` <= now), checking that again in the
        deleting step; then move its jobs from processing to pending: claim_seq + 1, `reserved_by` emptied, its old
        place in the line (`available_at` stays as it was), returns + 1, reclaims + 1, and the attempt given back
        (attempts - 1) unless returns was RETURNS_FREE or more. A job that was a suspect already (reclaims >=
        SUSPECT_RECLAIMS before this) and whose worker did not isolate keeps its attempt and counts crashes + 1. A
        cancel mark makes it cancelled instead of pending.

        An orphan is a processing job whose `reserved_by` has no standing worker row; it is taken back the same way
        (never counting a crash). Rows locked by others are passed over: they are orphans of the next round. Rings the
        doorbell of the queues.
        """
        ...

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        """Lend up to `limit` due jobs: queues in the caller's order, then higher priority, then (available_at, id).

        Two claims never overlap. Beyond the first `slots` only jobs are lent that have an attempt left after this one
        (attempts + 1 <= max_retries), since they wait in the worker's memory; a claim passes over at most 1,000 others
        and may then lend fewer than `limit`. Paused queues lend nothing. The payloads
        of one claim stay within BATCH_BYTES_MAX, but the first job is always lent. Sets processing, `reserved_at`,
        `reserved_by`, attempts + 1, claim_seq + 1.

        In the same step the worker's row must stand, locked against its deletion; else nothing is lent and `LeaseLost`
        is raised. A new (queue, priority) lane may be overlooked for at most one second of store time, but never by a
        claim that returns fewer than `limit`, nor after an enqueue through this same object.
        """
        ...

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Apply each settlement whose claim (id, claim_seq, reserved_by) is the job's current one; answer in order.

        complete: completed. retry: pending, due by its delay or time, attempt spent. fail: failed, and a row in
        failed_jobs in the same step. snooze: as retry, attempt given back. release: as snooze; with `counts_return`
        returns + 1, and the attempt is spent where returns was RETURNS_FREE or more. cancel: cancelled with its reason.
        `counts_crash`: crashes + 1. On a job with a cancel mark retry, fail, snooze and release give cancelled (and no
        failed_jobs row). Every one empties `reserved_by` and leaves claim_seq as it is; finished ones set
        `processed_at`.

        A settlement that does not match is read again: same claim_seq and no holder is `repeated`, all else `stale`.
        """
        ...

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        """`settle`, then `claim`, in one round trip where the store can. Never raises LeaseLost: says it in the reply.

        `limit` 0 only settles, and says nothing of the lease.
        """
        ...

    def held(self, worker: str) -> list[ClaimedJob]:
        """The jobs that the store thinks this worker has, in any order, whether or not its row stands.

        What to adopt after a claim of unknown outcome.
        """
        ...

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Block for up to `timeout` seconds, and return True at once when one of `queues` may have a due job.

        Whether that was there, was stored, taken back, retried or resumed, or becomes due by time alone. A hint: it may
        be wrong either way, and returns in time even on a dead network. Uses a connection of its own.
        """
        ...


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
        """Undo `pause` and ring the doorbell. False: it was not paused."""
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


class Schedules(Protocol):
    """Keeping schedules, and moving them on. What a `spec` means, no driver knows: core computes the times.

    A stored one that cannot be made a `Schedule` is answered as an `UnreadableSchedule`, and raises nothing:
    `protojobs.port.schedules.read_schedule` makes the one or the other. No firing moves it on; it can be removed.
    """

    def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
        """Store `schedule` in place of the one whose `version` that is; 0: there is none of its id yet.

        The stored one's version is one higher. False: it is not of that version (any more), and nothing was done.
        """
        ...

    def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
        """The schedules that exist among `ids` (at most 1,000), in any order, all in one page."""
        ...

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> SchedulePage:
        """A page of schedules by id, byte by byte."""
        ...

    def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
        """Up to `limit` schedules that are due and not paused, by (next_due_at, id), and the store's now.

        With a `cursor` those behind it, so that what stays due in front holds up nothing. And when the first of those
        that are not due will be, however many due ones were left out. By an index on `(next_due_at, id)`: what it costs
        depends on how many are due, not on how many there are.
        """
        ...

    def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """Move schedules on, each in one atomic step with the jobs of its times; answers in order.

        Each firing, one after the other: the schedule must exist, not be paused, and wait for `expected_next`; `due`
        must have come and be later than its `last_due_at`: else `lost`, and nothing is done. The overlap is decided by
        the state of its `last_job_id` in this very step: `skip` passes over while that job is pending (or moving) or
        processing, `queue_one` while it is pending. Then `next_due_at` becomes `next_due`, `last_due_at` becomes `due`,
        `last_job_id` the job's id if there is one that was not passed over, version + 1. A job whose id is known is not
        stored again. Rings the doorbell of the queues. Several firings of one schedule may follow each other.

        At most BATCH_JOBS_MAX firings and BATCH_BYTES_MAX payload bytes. `port.rules.fire` says the same as code.
        """
        ...

    def remove_schedule(self, schedule_id: str) -> bool:
        """Forget the schedule; jobs that it fired stay. False: there was none."""
        ...


class Store(Driver, Inspects, Administers, Schedules, Protocol):
    """The whole of what the first-party drivers give, and what `JobQueue` asks for."""


@runtime_checkable
class SupportsTransaction(Protocol):
    """Jobs that commit or vanish together with the caller's own rows."""

    def enqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], *, on_commit: Callable[[], None] | None = None
    ) -> list[Enqueued]:
        """As `enqueue`, inside the caller's transaction: never commits, never opens a second connection.

        `on_commit` is called once after the *root* commit where the driver can know it (a Session), else never. Raises
        `OptionInvalid` for an object that it does not know, or that belongs to another database.
        """
        ...

    def complete_in(self, transaction: object, claim: Fence) -> None:
        """Settle the claim as completed inside the caller's transaction; `LeaseLost` when it is not current."""
        ...


@runtime_checkable
class Begins(Protocol):
    """A driver that begins a transaction itself: for whoever has none, and so that the kit can try SupportsTransaction
    without a fixture. Optional, beside SupportsTransaction.
    """

    def begin(self) -> AbstractContextManager[object]:
        """A transaction for `enqueue_in` and `complete_in`: committed at the block's end, rolled back by an exception.

        Where the store has savepoints, what it yields has `begin_nested` (`BeginsNested`).
        """
        ...


@runtime_checkable
class BeginsNested(Protocol):
    """A transaction in which another can begin, as SQLAlchemy's Session and Connection: a savepoint."""

    def begin_nested(self) -> AbstractContextManager[object]:
        """A savepoint: kept at the end of the block, rolled back alone by an exception."""
        ...


@runtime_checkable
class SupportsAsyncTransaction(Protocol):
    """The same for asynchronous transactions."""

    async def aenqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], *, on_commit: Callable[[], None] | None = None
    ) -> list[Enqueued]:
        """As `enqueue_in`, for an AsyncSession or AsyncConnection."""
        ...
