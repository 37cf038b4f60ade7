"""RedisDriver: the port on Redis and Valkey. Each verb is one script or few, each of which is one atomic step.

The functions are in the modules named here. They send the scripts of `scripts/` by a ScriptRunner. What the verbs
promise is written in `protojobs.port`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

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
from protojobs_redis import administration, claiming, diagnosing, inspection, leases, observing, schedules, transfer
from protojobs_redis.connecting.connections import Connections
from protojobs_redis.connecting.replicas import check_replicas
from protojobs_redis.connecting.urls import check_namespace, parse
from protojobs_redis.packing import moment
from protojobs_redis.prune_cursor import PruneCursors
from protojobs_redis.runner import ScriptRunner
from protojobs_redis.waiting import Waiter

__all__ = ["RedisDriver"]

SCAN_COUNT = 1_000  # keys that the server looks at in one round


class RedisDriver:
    """Jobs in Redis or Valkey; implements `Store`.

    `url` is `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, `valkey://`, `valkeys://`, `unix:///path`,
    or `redis+sentinel://host:port,host:port/service[/db]`. A cluster is recognised (or said by `?cluster=true`, with
    several nodes to begin with: `redis://host:port,host:port`). Other options in the URL go to redis-py:
    `?socket_timeout=2&ssl_ca_certs=...`.

    All keys of a `namespace` (default "protojobs") share one hash tag, so it lives in one slot of a cluster and is one
    atomic domain; to use more of a cluster, use several. Nothing is opened before the first verb, and no verb waits for
    a reply for more than `socket_timeout` (5 seconds). The server must never evict keys (`noeviction`).
    `time_offset` (seconds) is added to the server's clock; 0 in production.

    With `wait_replicas` (default 0, also `?wait_replicas=1`) what is stored, settled, cancelled or retried counts only
    when so many replicas say, within `wait_timeout` (1 second), that they have it: else StoreUnavailable.
    """

    port_version = PORT_VERSION
    capabilities = Capabilities(concurrent_calls=True, observing=True, results=True)

    def __init__(
        self,
        url: str,
        *,
        time_offset: float = 0.0,
        namespace: str | None = None,
        wait_replicas: int | None = None,
        wait_timeout: float | None = None,
    ) -> None:
        address = parse(url)
        replicas = check_replicas(
            address.wait_replicas if wait_replicas is None else wait_replicas,
            address.wait_timeout if wait_timeout is None else wait_timeout,
        )
        self.namespace = check_namespace(namespace or address.namespace or "protojobs")
        self._connections = Connections(address, self.namespace, replicas)
        self._scripts = ScriptRunner(self._connections, time_offset)
        self._waiter = Waiter(self._connections)
        self._prune_cursors = PruneCursors()

    def __repr__(self) -> str:
        return f"<RedisDriver {self._connections.address.shown} {self.namespace}>"

    @property
    def time_offset(self) -> float:
        """Seconds that the store's clock is ahead of the server's."""
        return self._scripts.time_offset

    @time_offset.setter
    def time_offset(self, seconds: float) -> None:
        self._scripts.move(seconds)

    def setup(self) -> None:
        """Mark the namespace with this release's layout; there is nothing else to make."""
        self._connections.set_up_layout()

    def teardown(self) -> None:
        """Delete the keys of the namespace."""
        _delete_namespace(self._connections)

    def close(self) -> None:
        self._waiter.close()
        self._connections.close()

    def now(self) -> datetime:
        return moment(self._scripts.number("now"))

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        return claiming.enqueue(self._scripts, jobs)

    def register(self, worker: WorkerInfo) -> None:
        leases.register(self._scripts, worker)

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
        return leases.heartbeat(self._scripts, worker, progress)

    def leave(self, worker: str) -> None:
        leases.leave(self._scripts, worker)

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        return leases.reclaim(self._scripts, limit, until)

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        return claiming.claim(self._scripts, worker, queues, slots, limit)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return claiming.settle(self._scripts, settlements)

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        return claiming.take_turn(self._scripts, settlements, worker, queues, slots, limit)

    def held(self, worker: str) -> list[ClaimedJob]:
        return claiming.held(self._scripts, worker)

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        return self._waiter.wait(queues, timeout, self._scripts.offset)

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        return inspection.get(self._scripts, ids)

    def get_results(self, ids: Sequence[str]) -> list[JobResult]:
        return inspection.get_results(self._scripts, ids)

    def find(
        self, which: JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> JobPage:
        """The cursor is the last id that was examined."""
        return inspection.find(self._scripts, which, limit, cursor, chars_max)

    def failed(
        self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        return inspection.failed(self._scripts, queue, limit, cursor, chars_max)

    def get_failed(self, ids: Sequence[str]) -> list[FailedJob]:
        return inspection.get_failed(self._scripts, ids)

    def stats(self, queue: str | None = None, *, counted_max: int = COUNTED_MAX) -> Stats:
        """Always exact."""
        return inspection.stats(self._scripts, queue)

    def queues(self, *, after: str = "", limit: int = 10_000, counted_max: int = COUNTED_MAX) -> list[QueueInfo]:
        """Always exact."""
        return inspection.queues(self._scripts, after, limit)

    def workers(self) -> list[WorkerRecord]:
        return inspection.workers(self._scripts)

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        return administration.cancel(self._scripts, ids, reason)

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        return administration.retry_failed(self._scripts, ids)

    def forget_failed(self, ids: Sequence[str]) -> int:
        return administration.forget_failed(self._scripts, ids)

    def clear(self, queue: str, *, limit: int = 1_000) -> Cleared:
        return administration.clear(self._scripts, queue, limit)

    def pause(self, queue: str) -> bool:
        return administration.pause(self._scripts, queue)

    def resume(self, queue: str) -> bool:
        return administration.resume(self._scripts, queue)

    def prune(
        self,
        *,
        completed_older_than: float | None = None,
        failed_older_than: float | None = None,
        limit: int = 1_000,
    ) -> Pruned:
        return administration.prune(self._scripts, self._prune_cursors, completed_older_than, failed_older_than, limit)

    def export_jobs(
        self, token: str, *, cursor: str | None = None, limit: int = 500
    ) -> tuple[list[ExportedJob], str | None]:
        return transfer.export_jobs(self._scripts, token, cursor, limit)

    def import_jobs(self, jobs: Sequence[ExportedJob]) -> list[Enqueued]:
        return transfer.import_jobs(self._scripts, jobs)

    def drop_exported(self, token: str, ids: Sequence[str]) -> int:
        return transfer.drop_exported(self._scripts, token, ids)

    def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
        return schedules.save(self._scripts, schedule, version)

    def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
        return schedules.get(self._scripts, ids)

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> SchedulePage:
        """The cursor is the last id of the page."""
        return schedules.page(self._scripts, limit, cursor)

    def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
        return schedules.due(self._scripts, limit, cursor)

    def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        return schedules.fire(self._scripts, firings)

    def remove_schedule(self, schedule_id: str) -> bool:
        return schedules.remove(self._scripts, schedule_id)

    def record(self, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
        observing.record(self._scripts, worker, rollups, attempts)

    def rollups(
        self, period_s: int, since: datetime, until: datetime, *, queue: str = "", job_name: str = ""
    ) -> list[Rollup]:
        return observing.rollups(self._scripts, period_s, since, until, queue, job_name)

    def totals(
        self, period_s: int, since: datetime, until: datetime, *, by: Literal["queue", "job_name"], limit: int = 100
    ) -> list[RollupTotal]:
        return observing.totals(self._scripts, period_s, since, until, by, limit)

    def sample_depths(self, *, limit: int = 50, counted_max: int = 10_000) -> bool:
        """Always exact."""
        return observing.sample_depths(self._scripts, limit)

    def depths(self, since: datetime, until: datetime, *, queue: str | None = None) -> list[DepthSample]:
        return observing.depths(self._scripts, since, until, queue)

    def attempts(self, job_id: str) -> list[AttemptNote]:
        return observing.attempts(self._scripts, job_id)

    def failure_groups(
        self, *, limit: int = 100, counted_max: int = 1_000, chars_max: int | None = None
    ) -> list[FailureGroup]:
        return observing.failure_groups(self._scripts, limit, counted_max, chars_max)

    def failed_alike(
        self, fingerprint: str, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        return observing.failed_alike(self._scripts, fingerprint, limit, cursor, chars_max)

    def note_action(self, action: ActionNote) -> None:
        observing.note_action(self._scripts, action)

    def actions(self, *, limit: int = 50, cursor: str | None = None) -> ActionPage:
        """The cursor is the last id that was shown."""
        return observing.actions(self._scripts, limit, cursor)

    def diagnose(self) -> list[Finding]:
        return diagnosing.diagnose(self._scripts)

    def in_front(self, job_id: str, *, counted_max: int = IN_FRONT_MAX) -> int:
        return diagnosing.in_front(self._scripts, job_id, counted_max)

    def oldest_ended(self) -> Mapping[JobState, datetime]:
        return diagnosing.oldest_ended(self._scripts)


def _delete_namespace(connections: Connections) -> None:
    with connections.translating():
        server, cursor = connections.server(), 0
        pattern = re.sub(r"([\\*?\[\]^-])", r"\\\1", connections.prefix) + "*"
        while True:
            cursor, keys = server.scan(cursor, match=pattern, count=SCAN_COUNT)
            if keys:
                server.unlink(*keys)
            if not cursor:
                return
