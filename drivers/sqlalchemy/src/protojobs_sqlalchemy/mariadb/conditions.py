"""The conditions on MariaDB and MySQL: a generated column that is NULL outside of it stands for a partial index."""

from __future__ import annotations

from sqlalchemy import ColumnElement, column, exists

from protojobs.port.lifecycle import JobState
from protojobs_sqlalchemy.tables.conditions import Conditions, spans_between
from protojobs_sqlalchemy.tables.types import Name

__all__ = ["GeneratedColumns"]

_ready = column("ready", Name(100))  # the first column of jobs_ready: the name of a pending job's queue
_finished = column("finished", Name(12))


class GeneratedColumns(Conditions):
    """Which jobs, by an index."""

    def is_pending(self, queue: str | None = None) -> list[ColumnElement[bool]]:
        return [_ready.is_not(None) if queue is None else _ready == queue]

    def is_processing(self) -> ColumnElement[bool]:
        return self.jobs.reserved_by.is_not(None)

    def is_finished(self, state: JobState) -> list[ColumnElement[bool]]:
        return [_finished == state.value]

    def in_no_state(self) -> list[list[ColumnElement[bool]]]:
        return spans_between(_finished)

    def without_worker(self, apart_from: list[str]) -> list[list[ColumnElement[bool]]]:
        # jobs_processing has all that somebody holds; what nobody holds is in jobs_finished.
        standing = exists().where(self.workers.id == self.jobs.reserved_by)
        others = self.jobs.reserved_by.not_in(apart_from)
        return [[~standing, self.jobs.reserved_by.is_not(None), others], [_finished == JobState.PROCESSING.value]]
