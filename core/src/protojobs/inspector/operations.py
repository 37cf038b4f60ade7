"""Runs bulk operations: each on a thread, in bounded chunks, with its progress, and a way to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec.structs import replace

from protojobs.errors import OptionInvalid, ProtojobsError
from protojobs.inspector.search import Batch, Search
from protojobs.inspector.views import Operation, OperationState
from protojobs.port.records import CancelAnswer, RetryAnswer

if TYPE_CHECKING:
    from protojobs.queue.queue import JobQueue

__all__ = ["CHUNK", "Action", "Operations"]

CHUNK = 500  # jobs in one round trip: a lock held for milliseconds
RUNNING_MAX = 4
KEPT_MAX = 100  # operations that are remembered, the latest

Action: TypeAlias = Literal["retry", "cancel", "forget"]


class Operations:
    """The bulk operations of this process, those of all viewers. They end with it; what was done stays done."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._changed = threading.Condition()
        self._known: dict[str, Operation] = {}
        self._stopping: set[str] = set()

    def list(self) -> list[Operation]:
        """The latest first."""
        with self._changed:
            return list(reversed(self._known.values()))

    def get(self, operation_id: str) -> Operation | None:
        """The operation as it stands."""
        with self._changed:
            return self._known.get(operation_id)

    def start(self, operation: Operation, search: Search, note: Callable[[Operation], None]) -> Operation:
        """Begin it on a thread of its own, and note that and its end. Raises OptionInvalid when four are running."""
        with self._changed:
            running = [one for one in self._known.values() if one.state is OperationState.RUNNING]
            if len(running) >= RUNNING_MAX:
                raise OptionInvalid(f"{len(running)} operations are running.", mend="Wait for one, or stop one.")
            self._known[operation.id] = operation
            while len(self._known) > KEPT_MAX:
                del self._known[next(one.id for one in self._known.values() if one.state is not OperationState.RUNNING)]
        note(operation)
        run = threading.Thread(
            target=self._run, args=(operation, search, note), name="protojobs-operation", daemon=True
        )
        run.start()
        return operation

    def stop(self, operation_id: str) -> bool:
        """Let it end after the chunk that it is at. False: it is not running."""
        with self._changed:
            operation = self._known.get(operation_id)
            if operation is None or operation.state is not OperationState.RUNNING:
                return False
            self._stopping.add(operation_id)
            return True

    def wait(self, operation_id: str, timeout: float) -> Operation | None:
        """The operation once something about it has changed, or after `timeout` seconds."""
        with self._changed:
            before = self._known.get(operation_id)
            if before is not None and before.state is OperationState.RUNNING:
                self._changed.wait_for(lambda: self._known.get(operation_id) is not before, timeout)
            return self._known.get(operation_id)

    def _run(self, operation: Operation, search: Search, note: Callable[[Operation], None]) -> None:
        state, error, began = OperationState.DONE, "", self._queue.clock.monotonic()
        try:
            for batch in search.batches(page=CHUNK):
                operation = self._told(self._acted(operation, batch))
                if operation.id in self._stopping and batch.cursor is not None:
                    state = OperationState.STOPPED
                    break
        except ProtojobsError as failure:
            state, error = OperationState.FAILED, str(failure)
        except Exception as failure:  # noqa: BLE001  (a driver's mistake: the operation must not look as if it went on)
            state, error = OperationState.FAILED, f"{type(failure).__name__}: {failure}"
        took = timedelta(seconds=self._queue.clock.monotonic() - began)
        operation = replace(operation, state=state, error=error, ended_at=operation.started_at + took)
        note(operation)  # before it is told: who waits for the end finds it in the audit log
        self._told(operation)
        self._stopping.discard(operation.id)

    def _acted(self, operation: Operation, batch: Batch) -> Operation:
        done = _ACTS[operation.action](self._queue, batch) if batch.found else 0
        return replace(
            operation,
            examined=operation.examined + batch.examined,
            done=operation.done + done,
            refused=operation.refused + len(batch.found) - done,
        )

    def _told(self, operation: Operation) -> Operation:
        with self._changed:
            self._known[operation.id] = operation
            self._changed.notify_all()
        return operation


def _retry(queue: JobQueue, batch: Batch) -> int:
    return queue.retry_failed(_failed_ids(batch)).count(RetryAnswer.REQUEUED)


def _cancel(queue: JobQueue, batch: Batch) -> int:
    answers = queue.cancel_many([found.job.id for found in batch.found])
    return answers.count(CancelAnswer.CANCELLED) + answers.count(CancelAnswer.REQUESTED)


def _forget(queue: JobQueue, batch: Batch) -> int:
    return queue.forget_failed(_failed_ids(batch))


def _failed_ids(batch: Batch) -> list[str]:
    return [found.failure.id for found in batch.found if found.failure is not None]


_ACTS: dict[str, Callable[[JobQueue, Batch], int]] = {"retry": _retry, "cancel": _cancel, "forget": _forget}
