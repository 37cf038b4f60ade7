"""SQLAlchemyDriver: each verb of the port names the function that does it, and how that step is run.

What a verb promises is told in `protojobs.port`. The statements that differ from database to database are in the
folders `sqlite/`, `postgresql/` and `mariadb/`, behind `self._dialect`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace
from sqlalchemy import URL, ColumnElement, Engine

from protojobs.port import observing, records, rules, schedules
from protojobs.port.diagnosis import IN_FRONT_MAX, Finding
from protojobs.port.driver import PORT_VERSION
from protojobs.port.lifecycle import JobState
from protojobs.port.records import COUNTED_MAX, ClaimedJob, ClaimReply, Enqueued, Fence, NewJob, Settled, Settlement
from protojobs.port.results import JobResult
from protojobs_sqlalchemy import diagnosing, transfer
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import Mode, TurnReply, TurnRequest, Use
from protojobs_sqlalchemy.inspecting import failures, finding, results, stats
from protojobs_sqlalchemy.inspecting.finding import check_names
from protojobs_sqlalchemy.migrations import version
from protojobs_sqlalchemy.observing import actions, depths, runs
from protojobs_sqlalchemy.observing.failures import groups
from protojobs_sqlalchemy.opening import opened
from protojobs_sqlalchemy.sessions.joining import Joining, load_if_the_orm_is
from protojobs_sqlalchemy.verbs import administration, leases
from protojobs_sqlalchemy.verbs import schedules as scheduling
from protojobs_sqlalchemy.verbs.inserting import check_new, due_queues, enqueued

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from protojobs_sqlalchemy.tables.models import FailedJobModel, JobModel

__all__ = ["SQLAlchemyDriver"]

_SET_ASIDE_ROUNDS = 10  # of at most as many jobs as were asked for


class SQLAlchemyDriver:
    """Jobs in SQLite, PostgreSQL, MariaDB or MySQL; implements `Store` and both transaction protocols.

    `where` is a URL, or your application's own Engine: then its pool is used, never disposed of, and no setting of its
    connections outlives a verb. Nothing is opened before the first verb. A verb takes at most about `timeout` seconds.

    `time_offset` is added to the store's clock (tests move it; 0 in production). `is_pooled` says that the URL leads to
    a pooler such as PgBouncer: nothing is kept in a session then, and LISTEN needs `listen_url`, a direct one.
    `archive="daily"` (or `?archive=daily` in the URL) puts completed jobs into a table with a partition for each day:
    for PostgreSQL and a million jobs a day or more. Give it to every process of the store.

    `schema` (PostgreSQL) puts all tables into a schema of their own, `prefix` (every database) in front of the name of
    each; `?schema=` and `?prefix=` in the URL say the same. See docs/how-to/beside-your-own-tables.md.
    """

    port_version = PORT_VERSION

    def __init__(  # noqa: PLR0913 (the options of a store)
        self,
        where: str | URL | Engine,
        *,
        time_offset: float = 0.0,
        timeout: float = 10.0,
        is_pooled: bool = False,
        listen_url: str | None = None,
        archive: str | None = None,
        schema: str | None = None,
        prefix: str | None = None,
    ) -> None:
        load_if_the_orm_is()
        connections = opened(
            where,
            time_offset=time_offset,
            timeout=timeout,
            is_pooled=is_pooled,
            listen_url=listen_url,
            archive=archive,
            schema=schema,
            prefix=prefix,
        )
        self._use(connections, Joining(connections))

    def _use(self, connections: Connections, joining: Joining) -> None:
        self._connections = connections
        self._dialect = self._connections.dialect
        self._run, self._run_at = self._connections.run, self._connections.run_at
        self._joining = joining
        self._clearing = administration.Clearing(self._connections)
        self.capabilities = records.Capabilities(
            transactions=True,
            async_transactions=True,
            server_time=self._dialect.is_server,
            concurrent_calls=self._dialect.is_server,
            observing=True,
            results=True,
        )

    @classmethod
    def from_url(cls, url: str) -> SQLAlchemyDriver:
        """A driver with the default settings."""
        return cls(url)

    def __repr__(self) -> str:
        return f"<SQLAlchemyDriver {self._dialect.names.said(masked(self._connections.engine.url))}>"

    @property
    def engine(self) -> Engine:
        """For your own sessions: the engine that you gave, or one of the driver's with a pool for nothing else."""
        return self._connections.sessions

    @property
    def job_model(self) -> type[JobModel]:
        """`jobs` of this store as a mapped class, for your own sessions: `JobModel`, under the store's own names."""
        from protojobs_sqlalchemy.tables.models import models_of

        return models_of(self._dialect.tables)[0]

    @property
    def failed_job_model(self) -> type[FailedJobModel]:
        """`failed_jobs` of this store as a mapped class: `FailedJobModel`, under the store's own names."""
        from protojobs_sqlalchemy.tables.models import models_of

        return models_of(self._dialect.tables)[1]

    @property
    def time_offset(self) -> float:
        """Seconds that the store's clock is ahead of the server's."""
        return self._dialect.time_offset

    @time_offset.setter
    def time_offset(self, seconds: float) -> None:
        self._dialect.time_offset = seconds

    # The storage

    def setup(self) -> None:
        """Create or upgrade the tables."""
        self.migrate()

    def teardown(self) -> None:
        """Remove the tables, jobs included."""
        self.migrate(down=True)

    def migrate(self, *, down: bool = False, to: str | None = None) -> list[str]:
        """As `setup` (or `teardown`); the revisions that were run. `to` names another version of the tables."""
        from protojobs_sqlalchemy.migrations.migrating import Schema  # Alembic is a quarter of the import time

        return Schema(self._connections).migrate(down=down, to=to)

    def pending_migrations(self) -> list[str]:
        """The revisions that `migrate` would run; none where this release can work on the tables. Changes nothing."""
        self._dialect.check_file()
        return self._run(lambda conn: version.pending(conn, self._dialect), Mode.READ, needs_tables=False)

    def migration_sql(self, *, down: bool = False) -> str:
        """The statements of a whole migration, to be read or run by hand."""
        from protojobs_sqlalchemy.migrations.migrating import Schema  # Alembic is a quarter of the import time

        return Schema(self._connections).sql(down=down)

    def close(self) -> None:
        self._dialect.close()
        self._connections.close()

    def now(self) -> datetime:
        return self._run(self._dialect.now, Mode.SINGLE, needs_tables=False)

    # A job's way

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        if not jobs:
            return []
        check_new(jobs)
        mode = self._dialect.enqueue_mode(jobs)
        stored = self._run(
            lambda conn: self._dialect.enqueue(conn, jobs),
            mode,
            is_repeatable=True,  # by the ids
        )
        self._dialect.wake(due_queues(jobs), told=stored.told)
        return enqueued(jobs, stored.ids)

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        reply = self._turn(TurnRequest(worker=worker, queues=queues, slots=slots, limit=limit))
        if reply.lease_lost:
            raise leases.lease_lost(worker)
        return list(reply.claimed)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        if not settlements:
            return []
        return list(self._turn(TurnRequest(worker=settlements[0].reserved_by, settlements=settlements)).settled)

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        return self._turn(TurnRequest(worker=worker, settlements=settlements, queues=queues, slots=slots, limit=limit))

    def _turn(self, request: TurnRequest, *, rounds_left: int = _SET_ASIDE_ROUNDS) -> ClaimReply:
        rules.check_settlements(request.settlements)
        if next_jobs := [job for settlement in request.settlements for job in settlement.then]:
            check_new(next_jobs)
        reply = self._run(lambda conn: self._dialect.turn(conn, request), self._dialect.turn_mode, use=Use.WORK)
        if next_jobs:
            self._dialect.wake(due_queues(next_jobs))
        if isinstance(reply, TurnReply):
            leases.set_aside(self._connections, reply.unreadable)
            if not reply.claimed and rounds_left:  # only such jobs stood in front: the queues are not empty
                more = self._turn(replace(request, settlements=()), rounds_left=rounds_left - 1)
                return replace(more, settled=reply.settled)
        return reply

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        with self._connections.translating():
            return self._dialect.wait(queues, timeout)

    # A worker's lease

    def register(self, worker: records.WorkerInfo) -> None:
        self._connections.warn_of_few(worker.concurrency)
        self._run_at(
            lambda conn, now: leases.register(conn, self._dialect, worker, now),
            Mode.WORK,
            use=Use.WORK,
            is_repeatable=True,
        )

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> records.Heartbeat:
        return leases.beat(self._connections, worker, progress)

    def leave(self, worker: str) -> None:
        self._run(lambda conn: leases.leave(conn, self._dialect, worker), Mode.WORK, use=Use.WORK)

    def reclaim(self, limit: int, *, until: datetime | None = None) -> records.Reclaimed:
        reclaimed = self._run_at(
            lambda conn, now: leases.reclaim(conn, self._dialect, limit, now, until), Mode.WORK, use=Use.WORK
        )
        self._dialect.wake({job.queue for job in reclaimed.jobs}, came_back=True)
        return reclaimed

    def held(self, worker: str) -> list[ClaimedJob]:
        return leases.held(self._connections, worker)

    # Looking (port: Inspects)

    def get(self, ids: Sequence[str]) -> list[records.JobRecord]:
        rules.check_batch(ids)
        return self._run(lambda conn: finding.get(conn, self._dialect, ids), Mode.READ)

    def find(
        self, which: records.JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> records.JobPage:
        check_names(which.queue, which.job_name)
        return self._run(lambda conn: finding.find(conn, self._dialect, which, limit, cursor, chars_max), Mode.READ)

    def failed(
        self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> records.FailedPage:
        check_names(queue)
        which = self._dialect.tables.failed_jobs.c.queue == queue if queue is not None else None
        return self._failed_page(which, limit, cursor, chars_max)

    def get_failed(self, ids: Sequence[str]) -> list[records.FailedJob]:
        rules.check_batch(ids)
        return self._run(lambda conn: failures.get_failed(conn, self._dialect, ids), Mode.READ)

    def get_results(self, ids: Sequence[str]) -> list[JobResult]:
        rules.check_batch(ids)
        return self._run(lambda conn: results.get_results(conn, self._dialect, ids), Mode.READ)

    def stats(self, queue: str | None = None, *, counted_max: int = COUNTED_MAX) -> records.Stats:
        check_names(queue)
        return self._run_at(lambda conn, now: stats.of_queue(conn, self._dialect, queue, now, counted_max), Mode.READ)

    def queues(
        self, *, after: str = "", limit: int = 10_000, counted_max: int = COUNTED_MAX
    ) -> list[records.QueueInfo]:
        check_names(after)
        return self._run_at(
            lambda conn, now: stats.list_queues(
                conn, self._dialect, now, after=after, limit=limit, counted_max=counted_max
            ),
            Mode.READ,
        )

    def workers(self) -> list[records.WorkerRecord]:
        return self._run(lambda conn: leases.list_workers(conn, self._dialect), Mode.READ)

    # What people do (port: Administers)

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[records.CancelAnswer]:
        rules.check_batch(ids)
        return self._run_at(lambda conn, now: administration.cancel(conn, self._dialect, ids, reason, now), Mode.STORE)

    def retry_failed(self, ids: Sequence[str]) -> list[records.RetryAnswer]:
        rules.check_batch(ids)
        replies, queues = self._run_at(
            lambda conn, now: administration.retry_failed(conn, self._dialect, ids, now), Mode.STORE
        )
        self._dialect.wake(queues)
        return replies

    def forget_failed(self, ids: Sequence[str]) -> int:
        rules.check_batch(ids)
        return self._run(lambda conn: administration.forget_failed(conn, self._dialect, ids), Mode.STORE)

    def clear(self, queue: str, *, limit: int = 1_000) -> records.Cleared:
        return self._clearing.clear(queue, limit)

    def pause(self, queue: str) -> bool:
        return self._run_at(lambda conn, now: administration.pause(conn, self._dialect, queue, now), Mode.STORE)

    def resume(self, queue: str) -> bool:
        was_paused = self._run(lambda conn: administration.resume(conn, self._dialect, queue), Mode.STORE)
        self._dialect.wake([queue])
        return was_paused

    def prune(
        self, *, completed_older_than: float | None = None, failed_older_than: float | None = None, limit: int = 1_000
    ) -> records.Pruned:
        return administration.prune(self._connections, completed_older_than, failed_older_than, limit)

    def export_jobs(
        self, token: str, *, cursor: str | None = None, limit: int = 500
    ) -> tuple[list[records.ExportedJob], str | None]:
        return self._run(lambda conn: transfer.export_jobs(conn, self._dialect, token, cursor, limit), Mode.STORE)

    def import_jobs(self, jobs: Sequence[records.ExportedJob]) -> list[Enqueued]:
        rules.check_batch(jobs)
        stored = self._run(lambda conn: transfer.import_jobs(conn, self._dialect, jobs), Mode.STORE)
        self._dialect.wake({job.queue for job in jobs})
        return stored

    def drop_exported(self, token: str, ids: Sequence[str]) -> int:
        rules.check_batch(ids)
        return self._run(lambda conn: transfer.drop_exported(conn, self._dialect, token, ids), Mode.STORE)

    # Schedules

    def save_schedule(self, schedule: schedules.Schedule, *, version: int) -> bool:
        # Never run twice by itself: the second run would say False of what the first has stored.
        return self._run(lambda conn: scheduling.save(conn, self._dialect, schedule, version), Mode.STORE)

    def get_schedules(self, ids: Sequence[str]) -> schedules.SchedulePage:
        rules.check_batch(ids)
        return self._run(lambda conn: scheduling.get(conn, self._dialect, ids), Mode.READ)

    def list_schedules(self, *, limit: int = 100, cursor: str | None = None) -> schedules.SchedulePage:
        rules.check_schedule_cursor(cursor)
        return self._run(lambda conn: scheduling.page_of(conn, self._dialect, limit, cursor), Mode.READ)

    def due_schedules(self, limit: int, *, cursor: schedules.DueCursor | None = None) -> schedules.DueSchedules:
        return self._run_at(
            lambda conn, now: scheduling.due(conn, self._dialect, limit, cursor, now),
            Mode.SINGLE,
            use=Use.WORK,
            is_repeatable=True,
        )

    def fire(self, firings: Sequence[schedules.Firing]) -> list[schedules.Fired]:
        return scheduling.fire(self._connections, firings)

    def remove_schedule(self, schedule_id: str) -> bool:
        if not rules.is_storable(schedule_id):
            return False
        return self._run(lambda conn: scheduling.remove(conn, self._dialect, schedule_id), Mode.STORE)

    # Inside a caller's transaction

    def begin(self) -> AbstractContextManager[Session]:
        """A Session on `driver.engine`: committed at the end of the block, rolled back by an exception.

        The driver sets no time limit to its statements and transactions. On SQLite it holds the write lock from its
        start, so keep it short.
        """
        return self._joining.begin()

    def enqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], *, on_commit: Callable[[], None] | None = None
    ) -> list[Enqueued]:
        return self._joining.enqueue_in(transaction, jobs, on_commit)

    async def aenqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], *, on_commit: Callable[[], None] | None = None
    ) -> list[Enqueued]:
        return await self._joining.aenqueue_in(transaction, jobs, on_commit)

    def complete_in(self, transaction: object, claim: Fence) -> None:
        self._joining.complete_in(transaction, claim)

    # Notes beside the jobs (port: Observes)

    def record(
        self, worker: str, rollups: Sequence[observing.Rollup], attempts: Sequence[observing.AttemptNote]
    ) -> None:
        runs.record(self._connections, worker, rollups, attempts)

    def rollups(
        self, period_s: int, since: datetime, until: datetime, *, queue: str = "", job_name: str = ""
    ) -> list[observing.Rollup]:
        check_names(queue, job_name)
        span = runs.Span(period_s, since, until)
        return self._run(lambda conn: runs.rollups(conn, self._dialect, span, queue, job_name), Mode.READ)

    def totals(
        self, period_s: int, since: datetime, until: datetime, *, by: Literal["queue", "job_name"], limit: int = 100
    ) -> list[observing.RollupTotal]:
        span = runs.Span(period_s, since, until)
        return self._run(lambda conn: runs.totals(conn, self._dialect, span, by, limit), Mode.READ)

    def sample_depths(self, *, limit: int = 50, counted_max: int = 10_000) -> bool:
        return depths.sample_depths(self._connections, limit, counted_max)

    def depths(self, since: datetime, until: datetime, *, queue: str | None = None) -> list[observing.DepthSample]:
        check_names(queue)
        return self._run(lambda conn: depths.depths(conn, self._dialect, since, until, queue), Mode.READ)

    def attempts(self, job_id: str) -> list[observing.AttemptNote]:
        return self._run(lambda conn: runs.attempts_of(conn, self._dialect, job_id), Mode.READ)

    def failure_groups(
        self, *, limit: int = 100, counted_max: int = 1_000, chars_max: int | None = None
    ) -> list[observing.FailureGroup]:
        return self._run(lambda conn: groups(conn, self._dialect, limit, counted_max, chars_max), Mode.READ)

    def failed_alike(
        self, fingerprint: str, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> records.FailedPage:
        check_names(fingerprint)
        return self._failed_page(
            self._dialect.tables.failed_jobs.c.fingerprint == fingerprint, limit, cursor, chars_max
        )

    def _failed_page(
        self, which: ColumnElement[bool] | None, limit: int, cursor: str | None, chars_max: int | None
    ) -> records.FailedPage:
        return self._run(
            lambda conn: failures.failed_page(
                conn, self._dialect, which, limit=limit, cursor=cursor, chars_max=chars_max
            ),
            Mode.READ,
        )

    def note_action(self, action: observing.ActionNote) -> None:
        row = actions.action_row(action)
        self._run(
            lambda conn: self._dialect.inserts(conn, self._dialect.tables.audit, row), Mode.WORK, is_repeatable=True
        )

    def actions(self, *, limit: int = 50, cursor: str | None = None) -> observing.ActionPage:
        return self._run(lambda conn: actions.actions(conn, self._dialect, limit, cursor), Mode.READ)

    # The doctor (port: Diagnoses)

    def diagnose(self) -> list[Finding]:
        return diagnosing.diagnose(self._connections, self.migration_sql())

    def in_front(self, job_id: str, *, counted_max: int = IN_FRONT_MAX) -> int:
        return self._run_at(
            lambda conn, now: diagnosing.in_front(conn, self._dialect, job_id, counted_max, now), Mode.READ
        )

    def oldest_ended(self) -> Mapping[JobState, datetime]:
        return self._run(lambda conn: diagnosing.oldest_ended(conn, self._dialect), Mode.READ)
