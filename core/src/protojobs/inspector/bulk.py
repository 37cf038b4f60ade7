"""Acting on all jobs that match a query: what it would meet, its beginning, its progress, its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice

from msgspec.structs import replace

from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid, QueryInvalid, one_line, shown
from protojobs.inspector.counting import COUNT_S, counted
from protojobs.inspector.operations import Action
from protojobs.inspector.search import PAGES_MAX, Batch, Found, Search
from protojobs.inspector.viewing import Viewing
from protojobs.inspector.views import JobListing, Operation, OperationState, Preview
from protojobs.port.lifecycle import JobState
from protojobs.querying.query import parse

__all__ = ["ACTED_STATES", "Bulk"]

TOTAL_MAX = 10_000  # jobs that are counted before an operation begins
SAMPLE = 5
ACTED_STATES: Mapping[str, frozenset[JobState]] = {
    "retry": frozenset({JobState.FAILED}),
    "cancel": frozenset({JobState.PENDING, JobState.PROCESSING, JobState.UNREADABLE}),
    "forget": frozenset({JobState.FAILED}),
}


class Bulk(Viewing):
    """Bulk operations: retry and forget meet failed jobs, cancel pending and processing ones, whatever else matches."""

    def preview(self, action: Action, query: str) -> Preview:
        """How many jobs `start` would meet now, and five of them. Raises QueryInvalid as that does."""
        with self._looking():
            search = self._of_action(action, query)
            total = counted(search, TOTAL_MAX, self._queue.clock)
            found = next(search.batches(page=SAMPLE)).found
            if not found and total.number:  # they stand where they were counted
                found = self._first(search)
        found = found[:SAMPLE]
        failures = {one.job.id: one.failure for one in found if one.failure is not None}
        sample = JobListing(jobs=tuple(one.job for one in found), failures=failures)
        return Preview(total=total, sample=sample, at=search.query.now)

    def start(self, action: Action, query: str, *, at: datetime | None = None) -> Operation:
        """Retry, cancel or forget all jobs that match, on a thread, 500 at a time; those that come later are not met.

        `at`, of a Preview: nor are those that have come since then, while a person was being asked.
        Raises QueryInvalid, also where the query leaves no state that the action is for, and OptionInvalid while four
        operations are running.
        """
        self._access.act(action, f"all that match {shown(query)}")
        with self._looking():
            now = self._driver.now()
            search = self._of_action(action, query, at)
            total = counted(search, TOTAL_MAX, self._queue.clock)
        operation = Operation(
            id=fresh_id(),
            action=action,
            query=query,
            actor=self.viewer.name,
            state=OperationState.RUNNING,
            total=total,
            started_at=now,
        )
        return self._operations.start(operation, search, self._note)

    def stop_operation(self, operation_id: str) -> bool:
        """Let it end after the 500 jobs that it is at. False: it is not running."""
        with self._acting("stop_operation", operation_id) as done:
            done.count = int(stopped := self._operations.stop(operation_id))
        return stopped

    def operations(self) -> list[Operation]:
        """The bulk operations of this process, the latest first. Asks no store."""
        self._access.look()
        return self._operations.list()

    def operation(self, operation_id: str) -> Operation | None:
        """The operation as it stands. Asks no store."""
        self._access.look()
        return self._operations.get(operation_id)

    def wait(self, operation_id: str, timeout: float = 1.0) -> Operation | None:
        """The operation once something about it has changed, or as it is after `timeout` seconds."""
        self._access.look()
        return self._operations.wait(operation_id, timeout)

    def _first(self, search: Search) -> list[Found]:
        """What a walk as long as that of counting meets first."""
        ends = self._queue.clock.monotonic() + COUNT_S
        for batch in islice(search.batches(), PAGES_MAX):
            if batch.found or self._queue.clock.monotonic() >= ends:
                return batch.found
        return []

    def _of_action(self, action: str, query: str, at: datetime | None = None) -> Search:
        if action not in ACTED_STATES:
            raise OptionInvalid(
                f'There is no operation "{one_line(action)}".', mend=f"Known: {', '.join(ACTED_STATES)}."
            )
        asked = parse(query).narrowed(ACTED_STATES[action])
        if asked.is_void:
            states = " and ".join(state.value for state in JobState if state in ACTED_STATES[action])
            raise QueryInvalid(f"{action} is for {states} jobs, and the query leaves none.", mend="Take state: away.")
        kind = Search if at is None else _Shown
        return kind(self._driver, asked.at(at or self._driver.now()), self._redaction, clock=self._queue.clock)

    def _note(self, operation: Operation) -> None:
        words = f"operation {operation.id} {operation.state.value}"
        words += f", {operation.refused} refused" if operation.refused else ""
        words += f": {operation.error}" if operation.error else ""
        self._access.note(
            operation.action, f"all that match {shown(operation.query)}", count=operation.done, detail=words
        )


class _Shown(Search):
    """What matches, but for jobs that have come, or failed jobs that have failed, since the moment of its query."""

    def batches(self, cursor: str | None = None, *, page: int | None = None) -> Iterator[Batch]:
        for batch in super().batches(cursor, page=page):
            yield replace(batch, found=[one for one in batch.found if _came_at(one) <= self.query.now])


def _came_at(found: Found) -> datetime:
    return found.job.created_at if found.failure is None else found.failure.failed_at
