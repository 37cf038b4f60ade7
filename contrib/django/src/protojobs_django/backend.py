"""The backend for `django.tasks` (Django 6): each task is a job, under the name of its function.

A worker knows the tasks of the modules that are imported there, as it knows jobs. Nothing is imported because of a name
in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from inspect import iscoroutinefunction
from traceback import format_exception
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec
from django.tasks import Task, TaskContext, TaskResult, TaskResultStatus
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import TaskError
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.utils import timezone
from django.utils.json import normalize_json

from protojobs import JobContext, job
from protojobs.errors import NotSupported
from protojobs.jobs.job_class import FunctionJob
from protojobs.port.lifecycle import JobState
from protojobs.port.records import JobRecord
from protojobs_django.current import queue

__all__ = ["StoredResult", "TaskBackend"]

if TYPE_CHECKING:
    AnyTask: TypeAlias = Task[..., Any]
    AnyResult: TypeAlias = TaskResult[..., Any]
    AnyContext: TypeAlias = TaskContext[..., Any]
else:  # at run time they take no parameters
    AnyTask, AnyResult, AnyContext = Task, TaskResult, TaskContext

_STATUS = {
    JobState.PENDING: TaskResultStatus.READY,
    JobState.PROCESSING: TaskResultStatus.RUNNING,
    JobState.COMPLETED: TaskResultStatus.SUCCESSFUL,
    JobState.FAILED: TaskResultStatus.FAILED,
    JobState.CANCELLED: TaskResultStatus.FAILED,
}
_known: dict[str, tuple[AnyTask, FunctionJob[..., object]]] = {}  # by the path of the function


class Call(msgspec.Struct, kw_only=True):
    """The data of a task's job."""

    args: list[Any]
    kwargs: dict[str, Any]
    enqueued_at: str
    run_after: str | None
    backend: str


class _Data(msgspec.Struct):
    call: Call


class StoredResult(AnyResult):
    """A result without the task's return value, which protojobs does not keep."""

    @property
    def return_value(self) -> Any:  # noqa: ANN401  (as Django declares it)
        """Raises NotSupported for a task that succeeded; else ValueError, as Django's own."""
        if self.status == TaskResultStatus.SUCCESSFUL:
            raise NotSupported(
                f"The return value of {self.task.module_path} was not kept.",
                mend="Let the task store what it makes in a row of yours.",
            )
        return super().return_value


class TaskBackend(BaseTaskBackend):
    """`TASKS = {"default": {"BACKEND": "protojobs_django.backend.TaskBackend", "QUEUES": ["default", "emails"]}}`."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: AnyTask) -> None:
        """As Django's own; and make the task known to the workers of this process."""
        super().validate_task(task)
        _job_of(task)

    def enqueue(  # type: ignore[override]  # to Django's types the result is of the very types of the task
        self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AnyResult:
        """Push the task; inside `transaction.atomic()` it is stored with the rows of that transaction.

        Raises TypeError for arguments that are no JSON, StoreUnavailable when the store does not answer.
        """
        self.validate_task(task)
        enqueued_at = timezone.now()
        call = Call(
            args=cast("list[Any]", normalize_json(list(args))),
            kwargs=cast("dict[str, Any]", normalize_json(dict(kwargs))),
            enqueued_at=enqueued_at.isoformat(),
            run_after=None if task.run_after is None else task.run_after.isoformat(),
            backend=self.alias,
        )
        bound = _job_of(task).bind(call=call).on_queue(task.queue_name).with_priority(task.priority)
        job_id = queue.push(bound) if task.run_after is None else queue.later(_aware(task.run_after), bound)
        result = _result(task, job_id, call, status=TaskResultStatus.READY)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> AnyResult:
        """How the task stands. Raises TaskResultDoesNotExist for one that is not stored (any more), or of no task that
        this process knows.
        """
        record = queue.get(result_id)
        if record is None or record.job_name not in _known:
            raise TaskResultDoesNotExist(result_id)
        known, _ = _known[record.job_name]
        call = msgspec.json.decode(record.data, type=_Data).call
        after = call.run_after
        task = self.task_class(
            func=known.func,
            priority=record.priority,
            queue_name=record.queue,
            backend=call.backend,
            run_after=None if after is None else datetime.fromisoformat(after),
            takes_context=known.takes_context,
        )
        result = _result(task, record.id, call, status=_STATUS[record.status], record=record)
        if record.status is JobState.FAILED:
            for row in queue.driver.get_failed([record.id]):
                result.errors.append(TaskError(exception_class_path=_class_of(row.exception), traceback=row.exception))
        return result


def _job_of(task: AnyTask) -> FunctionJob[..., object]:
    path = task.module_path
    if path not in _known or _known[path][0].func is not task.func:
        _known[path] = task, _made_job(task)
    return _known[path][1]


def _made_job(task: AnyTask) -> FunctionJob[..., object]:
    function = task.func

    def run(call: Call, context: JobContext) -> object:
        with _told(task, call, context) as first:
            return function(*first, *call.args, **call.kwargs)

    async def run_async(call: Call, context: JobContext) -> object:
        with _told(task, call, context) as first:
            return await function(*first, *call.args, **call.kwargs)

    chosen: Callable[..., object] = run_async if iscoroutinefunction(function) else run
    # The place of the task, where a worker and its child processes import it.
    chosen.__module__, chosen.__qualname__ = function.__module__, function.__qualname__
    made: FunctionJob[..., object] = job(name=task.module_path)(chosen)
    return made


@contextmanager
def _told(task: AnyTask, call: Call, context: JobContext) -> Generator[tuple[AnyContext, ...]]:
    """Around one attempt: Django's signals. Yields what the function takes before its own arguments."""
    result = _result(task, context.id, call, status=TaskResultStatus.RUNNING)
    now = timezone.now()
    _set(result, started_at=now, last_attempted_at=now, worker_ids=[context.fence.reserved_by] * context.attempt)
    task_started.send(TaskBackend, task_result=result)
    try:
        yield (TaskContext(task_result=result),) if task.takes_context else ()
    except BaseException as error:
        kind = type(error)
        path = f"{kind.__module__}.{kind.__qualname__}"
        result.errors.append(TaskError(exception_class_path=path, traceback="".join(format_exception(error))))
        _set(result, finished_at=timezone.now(), status=TaskResultStatus.FAILED)
        task_finished.send(TaskBackend, task_result=result)
        raise
    _set(result, finished_at=timezone.now(), status=TaskResultStatus.SUCCESSFUL)
    task_finished.send(TaskBackend, task_result=result)


def _result(
    task: AnyTask, job_id: str, call: Call, *, status: TaskResultStatus, record: JobRecord | None = None
) -> StoredResult:
    started_at = None if record is None else record.reserved_at
    return StoredResult(
        task=task,
        id=job_id,
        status=status,
        enqueued_at=datetime.fromisoformat(call.enqueued_at),
        started_at=started_at,
        finished_at=None if record is None else record.processed_at,
        last_attempted_at=started_at,
        args=call.args,
        kwargs=call.kwargs,
        backend=call.backend,
        errors=[],
        # Which workers had it before is not kept, only how often it was attempted.
        worker_ids=[] if record is None else [record.reserved_by] * record.attempts,
    )


def _set(result: AnyResult, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)  # it is frozen, and Django's own backends do the same


def _aware(moment: datetime) -> datetime:
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment


def _class_of(traceback: str) -> str:
    """The class in the last line of a traceback that is not indented: `shop.errors.Refused: ...`."""
    lines = [line for line in traceback.splitlines() if line and not line[0].isspace() and ":" in f"{line}:"]
    name = (lines[-1] if lines else "Exception").partition(":")[0]
    return name if "." in name else f"builtins.{name}"
