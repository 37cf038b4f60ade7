"""A worker's lease: a heartbeat every sixth of it, from a thread of its own that no job can hold up."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from protojobs.clock import Clock, within
from protojobs.entropy import fresh_id
from protojobs.errors import DriverError, LeaseLost
from protojobs.port.driver import Driver
from protojobs.port.records import Fence, Heartbeat, WorkerInfo
from protojobs.worker.lease.longest_run import ReportedRunBound, RunBound
from protojobs.worker.lease.watch import LeaseWatch
from protojobs.worker.reports.health import WorkerHealth
from protojobs.worker.reports.rollups import Rollups

__all__ = ["BEATS_PER_LEASE", "HeartbeatResult", "Told", "WorkerLease"]

BEATS_PER_LEASE = 6
NEWS_S = 0.9  # progress is stored, and a wish to cancel heard of, within a second; only while runs take that long
BEAT_MIN_S = 1.0  # a call may take a sixth of the lease, but of a very short one this long
LEAVE_S = 2.0  # a stop does not wait for a store that is away
DOUBT_PAUSE_S = 2.0  # a worker in doubt starts nothing, so it asks more often whether the store is back
Told: TypeAlias = Callable[[str, float, float], None]
"""`told(worker, lease_s, lasts_s)`: it lives, and its runs may last so many seconds more. Must not block."""
_log = logging.getLogger("protojobs.worker")


class HeartbeatResult(msgspec.Struct, frozen=True):
    """How one heartbeat went. `reply` is None when the store did not answer; `is_lost`: the row of `worker` is gone."""

    sent_at: float
    reply: Heartbeat | None = None
    is_lost: bool = False
    worker: str = ""


class WorkerLease:
    """The worker's row in the store, and the thread that keeps it standing.

    A worker is one fresh id per process (a fork makes a new one). The lease of a JobQueue that works now and then stays
    registered between its calls, so that it gathers the good heartbeats which `reclaim` asks for.
    """

    def __init__(
        self,
        driver: Driver,
        queues: Sequence[str],
        *,
        concurrency: int,
        lease_s: float,
        clock: Clock,
        isolates: bool = False,
    ) -> None:
        self.info = WorkerInfo(
            id=fresh_id(),
            host=socket.gethostname()[:100],
            pid=os.getpid(),
            queues=tuple(queues),
            concurrency=concurrency,
            lease_s=lease_s,
            isolates=isolates,
        )
        self.watch = LeaseWatch(lease_s)
        self.run_bound = RunBound()
        self.health = WorkerHealth()
        self.rollups = Rollups(None, self.info.id, clock)  # of all its identities
        self.maintenance_at: dict[str, float] = {}  # when which is due: many short calls of `work` are one worker
        self._driver = driver
        self._clock = clock
        self._is_registered = False
        self._progress: dict[Fence, float] = {}
        self._runs: Callable[[], set[tuple[str, int]]] = set  # by their keys
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_ours(self) -> bool:
        """Whether this process may use it: not after a fork."""
        return self.info.pid == os.getpid()

    def resume(self) -> None:
        """Register, or prove that the lease of the last call still stands. Raises StoreUnavailable."""
        if self._is_registered:
            sent_at = self._clock.monotonic()
            if not self.watch.is_beat_due(sent_at):
                return
            try:
                reply = self._driver.heartbeat(self.info.id, {})
                self.watch.good_beat(self._clock.monotonic(), sent_at, reply)
                return
            except LeaseLost:
                pass  # reclaimed while nobody worked; nothing was held
        self.renew_identity()

    def renew_identity(self) -> None:
        """Become a new worker: an id is never used again once its lease was lost."""
        self.info = msgspec.structs.replace(self.info, id=fresh_id())
        self._is_registered = False
        sent_at = self._clock.monotonic()
        self._driver.register(self.info)
        self._is_registered = True
        self.watch.begin(sent_at)

    def keep_posted(self, told: Told) -> None:
        """From the next `start` on call `told` with every beat, and before a run begins that is to take longer."""
        lease_s = self.info.lease_s
        self.run_bound = ReportedRunBound(
            self._clock, lease_s / BEATS_PER_LEASE, lambda lasts_s: told(self.info.id, lease_s, lasts_s)
        )

    def start(self, tell: Callable[[HeartbeatResult], None]) -> None:
        """HeartbeatResult until `stop`, and tell how each beat went."""
        self.health.begins(self.info, self._clock.monotonic())
        self.run_bound.beat()
        self._end = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, args=(tell, self._end), name="protojobs-heartbeat", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the row stays."""
        self._end.set()

    def leave(self) -> None:
        """Delete the row. Best effort: a row that stays lapses by itself."""
        if self._is_registered and self.is_ours:
            self._is_registered = False
            try:
                with within(LEAVE_S):
                    self._driver.leave(self.info.id)
                    self.rollups.end()  # with what is left of the time: signing off comes first
            except DriverError as error:
                _log.info("worker %s could not sign off, its lease will lapse: %s", self.info.id, error)

    def look_at(self, runs: Callable[[], set[tuple[str, int]]]) -> None:
        """`runs()` tells which runs are going on: for those that take longer than a moment beats come sooner."""
        self._runs = runs

    def report(self, fence: Fence, share: float) -> None:
        """Progress of a run, to be sent within a second."""
        self._progress[fence] = share

    def _keep(self, progress: dict[Fence, float]) -> None:
        """For the next beat, but for what jobs have reported since. The store passes over runs that have ended."""
        for fence, share in progress.items():
            self._progress.setdefault(fence, share)

    def _beat(self, tell: Callable[[HeartbeatResult], None], end: threading.Event) -> None:
        interval, misses = self.info.lease_s / BEATS_PER_LEASE, 0
        look_at, running = self._clock.monotonic() + NEWS_S, self._runs()
        while not end.wait(max(0.0, min(self.watch.next_beat_at, look_at) - self._clock.monotonic())):
            worker, sent_at = self.info.id, self._clock.monotonic()
            if sent_at < self.watch.next_beat_at:
                before, running = running, self._runs()
                look_at = sent_at + NEWS_S
                if misses or not (self._progress or not before.isdisjoint(running)):
                    continue  # runs that are short want nothing and are not wanted; a store that is away has time
            progress, self._progress = self._progress, {}
            progress = dict(progress)  # a job's thread may still have the old one in hand
            try:
                self.run_bound.beat()  # before the call, which may take its time
                with within(max(interval, BEAT_MIN_S)):
                    beat = HeartbeatResult(sent_at, self._driver.heartbeat(worker, progress), worker=worker)
            except LeaseLost:
                beat = HeartbeatResult(sent_at, is_lost=True, worker=worker)
            except DriverError as error:
                _log.debug("heartbeat: %s", error)
                beat = HeartbeatResult(sent_at)
                self._keep(progress)
            except Exception:  # noqa: BLE001  (a driver's mistake: without this thread the lease would lapse unseen)
                _log.exception("heartbeat: the driver failed in a way that it should not")
                beat = HeartbeatResult(sent_at)
                self._keep(progress)
            misses = 0 if beat.reply is not None else misses + 1
            self.health.beats(self._clock.monotonic(), self.info, is_good=beat.reply is not None)
            pause = interval if misses < 2 else min(interval, DOUBT_PAUSE_S)
            # counted from before it was sent, and never two at once
            self.watch.next_beat_at = max(sent_at + pause, self._clock.monotonic())
            tell(beat)
