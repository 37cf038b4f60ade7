"""Notes beside the jobs: what charts, pages of errors and the audit log are made of.

They are written as claims are (`Mode.WORK`): after a power cut the last of them may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, TypeVar

from sqlalchemy import Connection

from protojobs.clock import SYSTEM_CLOCK, time_left
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
from protojobs.port.records import FailedPage
from protojobs_sqlalchemy.dialect import Mode, Use
from protojobs_sqlalchemy.inspecting.failures import failed_page
from protojobs_sqlalchemy.observing import actions as observing_actions
from protojobs_sqlalchemy.observing import depths as observing_depths
from protojobs_sqlalchemy.observing import failures
from protojobs_sqlalchemy.observing import runs as observing_runs
from protojobs_sqlalchemy.observing.expiry import KINDS, TIME_S, expire
from protojobs_sqlalchemy.tables.tables import failed_jobs
from protojobs_sqlalchemy.verbs.bounds import check_names
from protojobs_sqlalchemy.verbs.steps import Steps

__all__ = ["Observing"]

T = TypeVar("T")

_AT_ONCE = 250  # notes that one step stores: SQLite has one write lock, and claims wait for it


class Observing(Steps):
    """The verbs of `protojobs.port.observing.Observes`."""

    def record(self, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
        """Store the worker's rollups in place of those that it sent before, and its attempts."""
        check_notes(rollups, attempts)
        counts = observing_runs.rollup_rows(worker, rollups)
        runs = observing_runs.attempt_rows(attempts)
        for first in range(0, max(len(counts), len(runs)), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            self._note(partial(observing_runs.record, counts=counts[part], runs=runs[part]))

    def rollups(
        self, period_s: int, since: datetime, until: datetime, *, queue: str = "", job_name: str = ""
    ) -> list[Rollup]:
        """The counts of all workers together, by (began_at, result), oldest first."""
        check_names(queue, job_name)
        span = observing_runs.Span(period_s, since, until)
        return self._run(lambda conn: observing_runs.rollups(conn, span, queue, job_name), Mode.READ)

    def totals(
        self, period_s: int, since: datetime, until: datetime, *, by: Literal["queue", "job_name"], limit: int = 100
    ) -> list[RollupTotal]:
        """The counts over the whole span by name and result, the name with the most runs first."""
        span = observing_runs.Span(period_s, since, until)
        return self._run(lambda conn: observing_runs.totals(conn, span, by, limit), Mode.READ)

    def sample_depths(self, *, limit: int = 50, counted_max: int = 10_000) -> bool:
        """Delete what has outlived its time, and store how many jobs the longest queues have, once a minute.

        In steps, so that none holds a lock while jobs are counted: one that dies between them costs the minute's
        sample. Deleting comes first: where counting outlasts the caller's patience, minute by minute, notes would pile
        up without end.
        """
        now = self._run(self._dialect.now, Mode.SINGLE, use=Use.WORK)
        if not self._note(lambda conn: observing_depths.begin(conn, now)):
            return False
        ends_at = SYSTEM_CLOCK.monotonic() + time_left(TIME_S)
        left = [partial(expire, kind=kind, before=now - timedelta(seconds=kind.kept_s)) for kind in KINDS]
        while left := [step for step in left if self._note(step)]:  # a step for each kind, for as long as it has more
            if SYSTEM_CLOCK.monotonic() >= ends_at:
                break
        samples = self._run(
            lambda conn: observing_depths.measure(conn, now, limit, counted_max), Mode.READ, use=Use.WORK
        )
        self._note(lambda conn: observing_depths.store(conn, samples))
        return True

    def depths(self, since: datetime, until: datetime, *, queue: str | None = None) -> list[DepthSample]:
        """The samples of one queue or of all, oldest first."""
        check_names(queue)
        return self._run(lambda conn: observing_depths.depths(conn, since, until, queue), Mode.READ)

    def attempts(self, job_id: str) -> list[AttemptNote]:
        """What was noted of the job's runs, by claim_seq."""
        return self._run(lambda conn: observing_runs.attempts_of(conn, job_id), Mode.READ)

    def failure_groups(
        self, *, limit: int = 100, counted_max: int = 1_000, chars_max: int | None = None
    ) -> list[FailureGroup]:
        """The failed jobs by fingerprint, the group that failed last first."""
        return self._run(lambda conn: failures.groups(conn, limit, counted_max, chars_max), Mode.READ)

    def failed_alike(
        self, fingerprint: str, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        """A page of one group, the latest failure first."""
        check_names(fingerprint)
        alike = failed_jobs.c.fingerprint == fingerprint
        return self._run(
            lambda conn: failed_page(conn, alike, limit=limit, cursor=cursor, chars_max=chars_max), Mode.READ
        )

    def note_action(self, action: ActionNote) -> None:
        """Store a line of the audit log, unless its id is there."""
        row = observing_actions.row_of(action)
        self._note(lambda conn: observing_actions.insert_action(conn, row), use=Use.CALL)

    def actions(self, *, limit: int = 50, cursor: str | None = None) -> ActionPage:
        """A page of the audit log, newest id first."""
        return self._run(lambda conn: observing_actions.actions(conn, limit, cursor), Mode.READ)

    def _note(self, step: Callable[[Connection], T], *, use: Use = Use.WORK) -> T:
        """Each of these steps may be done twice: a key that is there is stored over, or left alone."""
        return self._run(step, Mode.WORK, use=use, is_repeatable=True)
