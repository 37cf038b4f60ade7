"""The conditions in the words of the indexes: a partial index serves a query only if its condition stands there so.

MariaDB and MySQL have no partial indexes; `mariadb/conditions.py` says how it is there.
"""

from __future__ import annotations

from itertools import pairwise

from sqlalchemy import ColumnElement, exists, literal_column, or_

from protojobs.port.lifecycle import STORED, JobState
from protojobs_sqlalchemy.tables.tables import Tables

__all__ = ["Conditions", "spans_between"]


class Conditions:
    """Which jobs, by an index."""

    def __init__(self, tables: Tables) -> None:
        self.jobs, self.workers = tables.jobs.c, tables.workers.c
        self._is_not_live = self.jobs.status.not_in([literal_column("'pending'"), literal_column("'processing'")])

    def is_pending(self, queue: str | None = None) -> list[ColumnElement[bool]]:
        """Pending, in `queue` if one is named; served by jobs_ready."""
        return [self._is(JobState.PENDING)] if queue is None else [self._is(JobState.PENDING), self.jobs.queue == queue]

    def is_processing(self) -> ColumnElement[bool]:
        """Processing; served by jobs_processing."""
        return self._is(JobState.PROCESSING)

    def is_finished(self, state: JobState) -> list[ColumnElement[bool]]:
        """Finished in this way; served by jobs_finished."""
        return [self._is(state), self._is_not_live]

    def in_no_state(self) -> list[list[ColumnElement[bool]]]:
        """In a state that no driver writes: the spans of jobs_finished between those that there are."""
        return [[*span, self._is_not_live] for span in spans_between(self.jobs.status)]

    def without_worker(self, apart_from: list[str]) -> list[list[ColumnElement[bool]]]:
        """Processing, and the holder, none of `apart_from`, has no row: one list of conditions for each index.

        Those without any holder too, though no driver writes that.
        """
        standing = exists().where(self.workers.id == self.jobs.reserved_by)
        others = self.jobs.reserved_by.not_in(apart_from)
        return [[~standing, or_(self.jobs.reserved_by.is_(None), others)] if apart_from else [~standing]]

    def _is(self, state: JobState) -> ColumnElement[bool]:
        return self.jobs.status == literal_column(f"'{state.value}'")


def spans_between(status: ColumnElement[str]) -> list[list[ColumnElement[bool]]]:
    """The spans of an index on the state between the states that drivers write."""
    written: list[ColumnElement[str]] = [
        literal_column(f"'{state.value}'") for state in sorted(set(STORED) - {JobState.PENDING})
    ]
    between = [[status > low, status < high] for low, high in pairwise(written)]
    return [[status < written[0]], *between, [status > written[-1]]]
