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
  verbs that look show stand-ins and why, and never raise for it (`protojobs.port.unreadable_rows`).
* No verb waits without a bound. Ask `clock.time_left(usual_s)` how long a wait may last: the caller may have set a
  limit (`clock.within`) to all that its thread asks for. A driver may set one itself, around what it calls.
* A driver opens nothing before its first verb and starts afresh in a forked child: there it uses nothing that its
  parent opened, and closes nothing of it either. (A fork while another thread is inside the client's library is the
  caller's own risk: that library's locks stay held in the child.)
* Whoever makes a driver closes it. One that is dropped unclosed may keep what it has opened until its process ends.
* Order is promised only where a verb's text names one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from protojobs.port.administration import Administers, Inspects
from protojobs.port.records import (
    Capabilities,
    ClaimedJob,
    ClaimReply,
    Enqueued,
    Fence,
    Heartbeat,
    NewJob,
    Reclaimed,
    Settled,
    Settlement,
    WorkerInfo,
)
from protojobs.port.schedules import Schedules

__all__ = ["PORT_VERSION", "Driver", "MovesTime", "Store"]

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
        duplicate and changes nothing, so sending again after an unknown outcome stores once. Wakes who waits for the
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
        (never counting a crash). Rows locked by others are passed over: they are orphans of the next round. Wakes who
        waits for the queues.
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

        With `complete` an applied settlement also stores its `result`, and enqueues its `then` as `enqueue` would (a
        known id changes nothing, delays count from now, waiters are woken), in the same step; `settle_and_claim` may
        lend them at once. Only drivers that claim `results` are sent these.

        A settlement that does not match is read again: same claim_seq and no holder is `repeated`, all else `stale`.
        Neither stores anything of what it carries.
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


class Store(Driver, Inspects, Administers, Schedules, Protocol):
    """The whole of what the first-party drivers give, and what `JobQueue` asks for."""


@runtime_checkable
class MovesTime(Protocol):
    """A driver that a test can take to another time while it is open. Optional; the kit makes a new driver for that."""

    time_offset: float
    """Seconds that are added to the store's clock; 0 in production."""
