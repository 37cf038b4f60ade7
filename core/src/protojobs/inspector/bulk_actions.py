"""What a person may do to all jobs that match a query: what it would meet, its beginning, its progress, its end.

Retry and forget meet failed jobs, cancel pending and processing ones, whatever else matches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from itertools import islice

from msgspec.structs import replace

from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid, QueryInvalid, one_line, shown
from protojobs.inspector.counting import COUNT_S, counted
from protojobs.inspector.operations import Action
from protojobs.inspector.scope import Scope
from protojobs.inspector.search import PAGES_MAX, Batch, Found, Search
from protojobs.inspector.views import JobListing, Operation, OperationState, Preview
from protojobs.port.lifecycle import JobState
from protojobs.querying.query import parse

__all__ = ["ACTED_STATES", "operation", "operations", "preview", "start", "stop_operation", "wait"]

TOTAL_MAX = 10_000  # jobs that are counted before an operation begins
SAMPLE = 5
ACTED_STATES: Mapping[str, frozenset[JobState]] = {
    "retry": frozenset({JobState.FAILED}),
    "cancel": frozenset({JobState.PENDING, JobState.PROCESSING, JobState.UNREADABLE}),
    "forget": frozenset({JobState.FAILED}),
}


def preview(scope: Scope, action: Action, query: str) -> Preview:
    """How many jobs `start` would meet now, and five of them. Raises QueryInvalid as that does."""
    with scope.looking():
        search = _of_action(scope, action, query)
        total = counted(search, TOTAL_MAX, scope.queue.clock)
        sample_jobs = next(search.batches(page=SAMPLE)).found
        if not sample_jobs and total.number:  # they stand where they were counted
            sample_jobs = _first(scope, search)
    sample_jobs = sample_jobs[:SAMPLE]
    failures = {one.job.id: one.failure for one in sample_jobs if one.failure is not None}
    sample = JobListing(jobs=tuple(one.job for one in sample_jobs), failures=failures)
    return Preview(total=total, sample=sample, at=search.query.now)


def start(scope: Scope, action: Action, query: str, *, at: datetime | None = None) -> Operation:
    """Retry, cancel or forget all jobs that match, on a thread, 500 at a time; those that come later are not met.

    `at`, of a Preview: nor are those that have come since then, while a person was being asked.
    Raises QueryInvalid, also where the query leaves no state that the action is for, and OptionInvalid while four
    operations are running.
    """
    scope.access.act(action, f"all that match {shown(query)}")
    with scope.looking():
        now = scope.driver.now()
        search = _of_action(scope, action, query, at)
        total = counted(search, TOTAL_MAX, scope.queue.clock)
    operation = Operation(
        id=fresh_id(),
        action=action,
        query=query,
        actor=scope.viewer.name,
        state=OperationState.RUNNING,
        total=total,
        started_at=now,
    )
    return scope.operations.start(operation, search, partial(_note, scope))


def stop_operation(scope: Scope, operation_id: str) -> bool:
    """Let it end after the 500 jobs that it is at. False: it is not running."""
    with scope.acting("stop_operation", operation_id) as done:
        done.count = int(stopped := scope.operations.stop(operation_id))
    return stopped


def operations(scope: Scope) -> list[Operation]:
    """The bulk operations of this process, the latest first. Asks no store."""
    scope.access.look()
    return scope.operations.list()


def operation(scope: Scope, operation_id: str) -> Operation | None:
    """The operation as it stands. Asks no store."""
    scope.access.look()
    return scope.operations.get(operation_id)


def wait(scope: Scope, operation_id: str, timeout: float = 1.0) -> Operation | None:
    """The operation once something about it has changed, or as it is after `timeout` seconds."""
    scope.access.look()
    return scope.operations.wait(operation_id, timeout)


def _first(scope: Scope, search: Search) -> list[Found]:
    """What a walk as long as that of counting meets first."""
    ends = scope.queue.clock.monotonic() + COUNT_S
    for batch in islice(search.batches(), PAGES_MAX):
        if batch.found or scope.queue.clock.monotonic() >= ends:
            return batch.found
    return []


def _of_action(scope: Scope, action: str, query: str, at: datetime | None = None) -> Search:
    if action not in ACTED_STATES:
        raise OptionInvalid(f'There is no operation "{one_line(action)}".', mend=f"Known: {', '.join(ACTED_STATES)}.")
    asked = parse(query).narrowed(ACTED_STATES[action])
    if asked.is_void:
        states = " and ".join(state.value for state in JobState if state in ACTED_STATES[action])
        raise QueryInvalid(f"{action} is for {states} jobs, and the query leaves none.", mend="Take state: away.")
    kind = Search if at is None else _Shown
    return kind(scope.driver, asked.at(at or scope.driver.now()), scope.redaction, clock=scope.queue.clock)


def _note(scope: Scope, operation: Operation) -> None:
    words = f"operation {operation.id} {operation.state.value}"
    words += f", {operation.refused} refused" if operation.refused else ""
    words += f": {operation.error}" if operation.error else ""
    scope.access.note(operation.action, f"all that match {shown(operation.query)}", count=operation.done, detail=words)


class _Shown(Search):
    """What matches, but for jobs that have come, or failed jobs that have failed, since the moment of its query."""

    def batches(self, cursor: str | None = None, *, page: int | None = None) -> Iterator[Batch]:
        for batch in super().batches(cursor, page=page):
            yield replace(batch, found=[one for one in batch.found if _came_at(one) <= self.query.now])


def _came_at(match: Found) -> datetime:
    return match.job.created_at if match.failure is None else match.failure.failed_at
