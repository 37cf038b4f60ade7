"""What every worker does beside its jobs: reclaim those of dead workers, compare, prune, look at its own memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from protojobs.config import kept_s
from protojobs.entropy import jittered
from protojobs.errors import DriverError
from protojobs.events import Event, JobReclaimed, WorkerMemoryExceeded
from protojobs.port.lifecycle import JobState
from protojobs.port.records import ClaimedJob, JobFilter
from protojobs.runtime import Runtime
from protojobs.worker.lease.lease import WorkerLease
from protojobs.worker.memory import resident_bytes
from protojobs.worker.queue_order import QueueOrder
from protojobs.worker.reports.joblog import log_event
from protojobs.worker.reports.unserved import Unserved, every_queue

__all__ = ["Maintenance"]

RECLAIM_ROUND = 500  # jobs taken back in one step
RECLAIM_JITTER_S = 0.5  # a fleet does not reclaim in step; with the beats it keeps recovery within lease + 2 s
COMPARE_EVERY_S = 30.0  # between what the store says this worker holds, and what it knows of
QUEUES_EVERY_S = 5.0  # a new queue whose name a `*` stands for is found so late; it costs as much as a page of `queues`
UNSERVED_EVERY_S = 60.0
PRUNE_EVERY_S = 60.0
PRUNE_ROUND = 1_000
PRUNE_SHARE = 0.05  # of the claim loop's time, while there is more to prune: without a pause claims fall to a quarter
MEMORY_EVERY_S = 1.0
LEFT_BEHIND_PAGE = 100  # processing jobs that are looked at for holders that are gone
_HOUR_S = 3600.0
_log = logging.getLogger("protojobs.worker")


class Maintenance:
    """Each task on its own jittered timer, in bounded rounds between two round trips of the claim loop."""

    def __init__(
        self,
        runtime: Runtime,
        lease: WorkerLease,
        order: QueueOrder,
        send: Callable[[Event], None],
        compared: Callable[[float, Sequence[ClaimedJob]], None],
    ) -> None:
        self._driver = runtime.driver
        self._clock = runtime.clock
        self._settings = runtime.settings
        self._lease = lease
        self._order = order
        self._unserved = Unserved(runtime.driver)
        self._send = send
        self._compared = compared
        self._at = lease.maintenance_at
        self._at.setdefault("compare", runtime.clock.monotonic() + jittered(COMPARE_EVERY_S))
        self._at.setdefault("prune", runtime.clock.monotonic() + jittered(PRUNE_EVERY_S))
        every_s = QUEUES_EVERY_S if order.is_open else UNSERVED_EVERY_S
        self._at.setdefault("queues", runtime.clock.monotonic() + jittered(every_s))
        self._at.setdefault("unserved", runtime.clock.monotonic() + jittered(UNSERVED_EVERY_S))
        self.max_memory = runtime.settings.max_memory  # 0: no limit
        self._memory_at = 0.0
        self._is_memory_unknown = False

    def turn(self, now: float, *, may_write: bool) -> None:
        """Do what is due. Raises DriverErrors; the next turn tries again."""
        try:
            if may_write and self._lease.watch.may_reclaim(now):
                self._reclaim(now)
            if now >= self._at["compare"]:
                self._at["compare"] = now + jittered(COMPARE_EVERY_S)
                self._compared(now, self._driver.held(self._lease.info.id))
            if now >= self._at["queues"]:
                self._at["queues"] = now + jittered(QUEUES_EVERY_S if self._order.is_open else UNSERVED_EVERY_S)
                self._look_at_queues(now)
            if may_write and now >= self._at["prune"]:
                self._at["prune"] = now + jittered(PRUNE_EVERY_S)
                self._prune()
            if may_write and self._lease.rollups.is_on:  # a stop has no time to lose, and at its end the notes are sent
                self._lease.rollups.turn(now)
        except Exception as error:  # noqa: BLE001  (a driver's mistake in one of these must not end the worker)
            self._troubled(now, error)

    def _look_at_queues(self, now: float) -> None:
        queues = list(every_queue(self._driver))
        if self._order.is_open:
            self._order.found(queues)
        if now >= self._at["unserved"]:
            self._at["unserved"] = now + jittered(UNSERVED_EVERY_S)
            self._unserved.look(now, queues)

    def _troubled(self, now: float, error: Exception) -> None:
        if isinstance(error, DriverError):
            raise error
        _log.exception("upkeep: the driver failed in a way that it should not")
        self._lease.watch.reclaimed(now, None, False, self.jitter())  # not again at once; the others have their times

    def jitter(self) -> float:
        """Seconds to wait beyond the end of another's lease."""
        return jittered(RECLAIM_JITTER_S, 1.0) / 2

    def is_memory_exceeded(self, now: float, *, has_run: bool) -> bool:
        """Whether this process and its children have more than they may. Measured once a second. Raises nothing."""
        if not self.max_memory or now < self._memory_at:
            return False
        self._memory_at = now + MEMORY_EVERY_S
        rss, most = self._resident(), self.max_memory
        if rss <= most:
            return False
        if has_run:
            _log.warning("memory: %d MiB, beyond max_memory; ending once the jobs are done", rss >> 20)
        else:
            _log.error(
                "max_memory is %d MiB, and this process takes %d MiB before it has run any job: no worker can run"
                " anything. Raise max_memory (--max-memory).",
                most >> 20,
                rss >> 20,
            )
        worker = self._lease.info.id
        self._send(WorkerMemoryExceeded(worker=worker, rss_bytes=rss, limit_bytes=most))
        return True

    def left_behind(self) -> str:
        """The id of a dead worker whose jobs of our queues nobody has taken back, or nothing. Raises DriverErrors."""
        # In this order: a claim that is settled meanwhile has no holder that is gone.
        held = self._driver.find(JobFilter(states=(JobState.PROCESSING,)), limit=LEFT_BEHIND_PAGE, chars_max=0).jobs
        rows, now = self._driver.workers(), self._driver.now()
        for row in rows:
            if row.lease_ends_at <= now and row.processing and any(map(row.serves, self._order.names)):
                return row.id
        known = {row.id for row in rows}
        orphans = (job for job in held if job.reserved_by not in known)
        return next((job.reserved_by for job in orphans if self._order.serves(job.queue)), "")

    def _resident(self) -> int:
        try:
            return resident_bytes()
        except Exception as error:  # noqa: BLE001  (whatever it is, the worker's jobs go on)
            if not self._is_memory_unknown:
                self._is_memory_unknown = True
                _log.error("memory cannot be measured, max_memory is not enforced until it can: %r", error)
            return 0

    def _reclaim(self, now: float) -> None:
        taken = self._driver.reclaim(RECLAIM_ROUND, until=self._lease.watch.reclaim_until)
        self._lease.watch.reclaimed(now, taken.others_end_in, taken.has_more, self.jitter())
        for worker in taken.workers:
            _log.warning("worker %s has not been heard of for its lease; taking back its jobs", worker)
        if taken.jobs and (at := self._lease.watch.store_now(now)) is not None:
            self._lease.rollups.lost(now, at, taken.jobs)
        for job in taken.jobs:
            event = JobReclaimed(
                job_id=job.id,
                job_name=job.job_name,
                job_class=job.job_class,
                queue=job.queue,
                attempt=job.attempts,
                reserved_by=job.reserved_by,
                state=job.state.value,
            )
            log_event(event)
            self._send(event)

    def _prune(self) -> None:
        began = self._clock.monotonic()
        pruned = self._driver.prune(
            completed_older_than=kept_s(self._settings.completed_job_retention),
            failed_older_than=kept_s(self._settings.failed_job_retention),
            limit=PRUNE_ROUND,
        )
        if pruned.has_more:
            ended = self._clock.monotonic()
            self._at["prune"] = ended + (ended - began) * (1 / PRUNE_SHARE - 1)
