"""MemoryDriver: the port on dicts of this process. The simplest driver, and the model for the others: read it first.

Each verb is one `with` block: it takes the store's lock, reads the time, and lets one function do all of the work. So
each is one atomic step. The functions are in the modules named here, and take the state and the time; they run under
the lock. What the verbs promise is written in `protojobs.port`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import urlsplit

from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.errors import LeaseLost, OptionInvalid, shown
from protojobs.port import rules
from protojobs.port.diagnosis import IN_FRONT_MAX, Finding
from protojobs.port.driver import PORT_VERSION
from protojobs.port.lifecycle import JobState
from protojobs.port.observing import (
    ActionNote,
    ActionPage,
    AttemptNote,
    DepthSample,
    FailureGroup,
    Rollup,
    RollupTotal,
    check_notes,
)
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
from protojobs.port.results import JobResult
from protojobs.port.schedules import DueCursor, DueSchedules, Fired, Firing, Schedule, SchedulePage
from protojobs_memory import (
    administration,
    claiming,
    diagnosing,
    inspection,
    leases,
    observing,
    schedules,
    transfer,
)
from protojobs_memory.state import State

__all__ = ["MemoryDriver"]

_shared: dict[str, State] = {}


class MemoryDriver:
    """A store in this process. `memory://` makes a new one; all drivers of `memory://name` share one.

    `time_offset` (seconds) moves the store time of this object, not that of others.
    """

    port_version = PORT_VERSION
    capabilities = Capabilities(cross_process=False, server_time=False, durable=False, observing=True, results=True)

    def __init__(self, url: str = "memory://", *, time_offset: float = 0.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self.state = _state_of(url)
        self.time_offset = time_offset
        self._clock = clock

    def setup(self) -> None:
        """Nothing to do."""

    def teardown(self) -> None:
        with self.state.lock:
            self.state.empty()

    def close(self) -> None:
        """Nothing to give back; the jobs stay as long as a driver object knows the store, or its name."""

    def now(self) -> datetime:
        """Store time: this process's clock, never running backwards, plus `time_offset`."""
        with self.state.lock:
            moment = self.state.never_back(self._clock.now())
        return moment + timedelta(seconds=self.time_offset) if self.time_offset else moment

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        rules.check_jobs(jobs)
        with self.state.lock:
            return claiming.enqueue(self.state, self.now(), jobs)

    def register(self, worker: WorkerInfo) -> None:
        with self.state.lock:
            leases.register(self.state, self.now(), worker)

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
        with self.state.lock:
            return leases.heartbeat(self.state, self.now(), worker, progress)

    def leave(self, worker: str) -> None:
        with self.state.lock:
            leases.leave(self.state, worker)

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        with self.state.lock:
            return leases.reclaim(self.state, self.now(), limit, until)

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        with self.state.lock:
            return claiming.claim(self.state, self.now(), worker, queues, slots, limit)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        rules.check_settlements(settlements)
        with self.state.lock:
            return claiming.settle(self.state, self.now(), settlements)

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        with self.state.lock:
            settled = tuple(self.settle(settlements))
            try:
                claims = tuple(self.claim(worker, queues, slots=slots, limit=limit)) if limit else ()
            except LeaseLost:
                return ClaimReply(settled=settled, lease_lost=True)
            return ClaimReply(settled=settled, claimed=claims)

    def held(self, worker: str) -> list[ClaimedJob]:
        with self.state.lock:
            return claiming.held(self.state, worker)

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """The timeout is real time, whoever's clock the store goes by."""
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        with self.state.lock:
            while True:
                due_in = claiming.due_in(self.state, self.now(), queues)
                left = ends_at - SYSTEM_CLOCK.monotonic()
                if due_in <= 0 or left <= 0:
                    return due_in <= 0
                self.state.wakeup.wait(min(due_in, left))

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        rules.check_batch(ids)
        with self.state.lock:
            return inspection.get(self.state, ids)

    def get_results(self, ids: Sequence[str]) -> list[JobResult]:
        rules.check_batch(ids)
        with self.state.lock:
            return inspection.get_results(self.state, ids)

    def find(
        self, which: JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> JobPage:
        """The cursor is the last id that was examined."""
        rules.check_cursor(cursor)
        with self.state.lock:
            return inspection.find(self.state, which, limit, cursor, chars_max)

    def failed(
        self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        with self.state.lock:
            return inspection.failed_page(self.state, self.state.failures, queue, limit, cursor, chars_max)

    def get_failed(self, ids: Sequence[str]) -> list[FailedJob]:
        rules.check_batch(ids)
        with self.state.lock:
            return inspection.get_failed(self.state, ids)

    def stats(self, queue: str | None = None, *, counted_max: int = COUNTED_MAX) -> Stats:
        """Always exact."""
        with self.state.lock:
            return inspection.stats(self.state, self.now(), queue)

    def queues(self, *, after: str = "", limit: int = 10_000, counted_max: int = COUNTED_MAX) -> list[QueueInfo]:
        """Always exact."""
        with self.state.lock:
            return inspection.queues(self.state, self.now(), after, limit)

    def workers(self) -> list[WorkerRecord]:
        with self.state.lock:
            return inspection.workers(self.state)

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        rules.check_batch(ids)
        with self.state.lock:
            return administration.cancel(self.state, self.now(), ids, reason)

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        rules.check_batch(ids)
        with self.state.lock:
            return administration.retry_failed(self.state, self.now(), ids)

    def forget_failed(self, ids: Sequence[str]) -> int:
        rules.check_batch(ids)
        with self.state.lock:
            return administration.forget_failed(self.state, ids)

    def clear(self, queue: str, *, limit: int = 1_000) -> Cleared:
        with self.state.lock:
            return administration.clear(self.state, queue, limit)

    def pause(self, queue: str) -> bool:
        with self.state.lock:
            return administration.pause(self.state, queue)

    def resume(self, queue: str) -> bool:
        with self.state.lock:
            return administration.resume(self.state, queue)

    def prune(
        self,
        *,
        completed_older_than: float | None = None,
        failed_older_than: float | None = None,
        limit: int = 1_000,
    ) -> Pruned:
        with self.state.lock:
            return administration.prune(self.state, self.now(), completed_older_than, failed_older_than, limit)

    def export_jobs(
        self, token: str, *, cursor: str | None = None, limit: int = 500
    ) -> tuple[list[ExportedJob], str | None]:
        transfer.check_cursor(cursor)
        with self.state.lock:
            return transfer.export_jobs(self.state, token, cursor, limit)

    def import_jobs(self, jobs: Sequence[ExportedJob]) -> list[Enqueued]:
        transfer.check_imported(jobs)
        with self.state.lock:
            return transfer.import_jobs(self.state, jobs)

    def drop_exported(self, token: str, ids: Sequence[str]) -> int:
        rules.check_batch(ids)
        with self.state.lock:
            return transfer.drop_exported(self.state, token, ids)

    def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
        with self.state.lock:
            return schedules.save(self.state, schedule, version)

    def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
        rules.check_batch(ids)
        with self.state.lock:
            return schedules.get(self.state, ids)

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> SchedulePage:
        """The cursor is the last id of the page."""
        rules.check_schedule_cursor(cursor)
        with self.state.lock:
            return schedules.page(self.state, limit, cursor)

    def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
        with self.state.lock:
            return schedules.due(self.state, self.now(), limit, cursor)

    def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        rules.check_firings(firings)
        with self.state.lock:
            return schedules.fire(self.state, self.now(), firings)

    def remove_schedule(self, schedule_id: str) -> bool:
        with self.state.lock:
            return schedules.remove(self.state, schedule_id)

    def record(self, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
        check_notes(rollups, attempts)
        with self.state.lock:
            observing.record(self.state, worker, rollups, attempts)

    def rollups(
        self, period_s: int, since: datetime, until: datetime, *, queue: str = "", job_name: str = ""
    ) -> list[Rollup]:
        with self.state.lock:
            return observing.rollups(self.state, period_s, since, until, queue, job_name)

    def totals(
        self, period_s: int, since: datetime, until: datetime, *, by: Literal["queue", "job_name"], limit: int = 100
    ) -> list[RollupTotal]:
        with self.state.lock:
            return observing.totals(self.state, period_s, since, until, by, limit)

    def sample_depths(self, *, limit: int = 50, counted_max: int = 10_000) -> bool:
        """Always exact."""
        with self.state.lock:
            return observing.sample_depths(self.state, self.now(), limit)

    def depths(self, since: datetime, until: datetime, *, queue: str | None = None) -> list[DepthSample]:
        with self.state.lock:
            return observing.depths(self.state, since, until, queue)

    def attempts(self, job_id: str) -> list[AttemptNote]:
        with self.state.lock:
            return observing.attempts(self.state, job_id)

    def failure_groups(
        self, *, limit: int = 100, counted_max: int = 1_000, chars_max: int | None = None
    ) -> list[FailureGroup]:
        with self.state.lock:
            return observing.failure_groups(self.state, limit, counted_max, chars_max)

    def failed_alike(
        self, fingerprint: str, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        with self.state.lock:
            keys = self.state.alike.get(fingerprint)
            return inspection.failed_page(self.state, keys, None, limit, cursor, chars_max)

    def note_action(self, action: ActionNote) -> None:
        with self.state.lock:
            self.state.notes.add_action(action)

    def actions(self, *, limit: int = 50, cursor: str | None = None) -> ActionPage:
        """The cursor is the last id that was shown."""
        rules.check_cursor(cursor)
        with self.state.lock:
            return observing.actions(self.state, limit, cursor)

    def diagnose(self) -> list[Finding]:
        with self.state.lock:
            return diagnosing.diagnose(self.state)

    def in_front(self, job_id: str, *, counted_max: int = IN_FRONT_MAX) -> int:
        with self.state.lock:
            return diagnosing.in_front(self.state, self.now(), job_id, counted_max)

    def oldest_ended(self) -> Mapping[JobState, datetime]:
        with self.state.lock:
            return diagnosing.oldest_ended(self.state)


def _state_of(url: str) -> State:
    """A store of one's own for `memory://`, the one that all of this process share for `memory://name`."""
    parts = urlsplit(url)
    if parts.scheme != "memory" or parts.path.strip("/") or parts.query or parts.fragment:
        raise OptionInvalid(
            f"{shown(url)} is no memory URL.", mend='Write "memory://", or "memory://name" to share a store.'
        )
    if not parts.netloc:
        return State()
    # Without a lock, which a child might inherit locked: the first to store one wins.
    return _shared.get(parts.netloc) or _shared.setdefault(parts.netloc, State())
