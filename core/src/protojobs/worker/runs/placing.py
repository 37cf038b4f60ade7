"""The executors of one worker, each made when the first job needs it, and which job belongs to which."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from protojobs.jobs.context import NO_RESOURCES
from protojobs.port.lifecycle import SUSPECT_RECLAIMS
from protojobs.runtime import Runtime
from protojobs.worker.handover import Line
from protojobs.worker.runs.executor import CHILDREN_WORK, Executor, Report, Unplaced
from protojobs.worker.runs.run import Run
from protojobs.worker.runs.threads import ThreadExecutor

if TYPE_CHECKING:
    from protojobs.worker.kept_resources import Opened
    from protojobs.worker.runs.children.pool import ProcessExecutor
    from protojobs.worker.runs.event_loop import AsyncExecutor

__all__ = ["Executors"]


class Executors:
    """Threads, an event loop, child processes: `size` runs at once in each."""

    def __init__(
        self,
        runtime: Runtime,
        size: int,
        opened: Opened | None,
        *,
        report: Report,
        give_back: Callable[[Unplaced], None],
    ) -> None:
        """`report`: hears the end of each run. `give_back`: hears of runs that no child can do."""
        self._size = size
        self._runtime, self._registry, self._clock = runtime, runtime.registry, runtime.clock
        self._default = runtime.settings.executor
        self._report = report
        self._give_back = give_back
        self._opened = opened
        self.resources = NO_RESOURCES if opened is None else opened.values
        self._threads = ThreadExecutor(size, report, runtime.clock)
        self._loop: AsyncExecutor | None = None
        self._children: ProcessExecutor | None = None

    def place(self, run: Run) -> Executor:
        """Where it runs. In a child process if it wishes so, or if it is a suspect that one can run."""
        definition = run.definition
        is_suspect = run.claimed.reclaims >= SUSPECT_RECLAIMS and self.has_child(definition.name)
        wants_child = (definition.executor or self._default) == "process" and not definition.is_async and CHILDREN_WORK
        if is_suspect or wants_child:
            return self._in_children()
        return self.here(is_async=True) if definition.is_async else self._threads

    def has_child(self, name: str) -> bool:
        """Whether a child process can run jobs of that name, as far as is known."""
        if not CHILDREN_WORK or (self._children is not None and name in self._children.homeless):
            return False
        job = self._registry.find(name)
        return job is None or job.is_importable

    def line_of(self, name: str) -> Line | None:
        """Where jobs of that name may lie ready before there is a slot for them; None: nowhere."""
        job = self._registry.find(name)
        if job is None or job.exclusive:
            return None
        if job.is_async:
            return "loop"
        return "threads" if (job.executor or self._default) == "thread" or not CHILDREN_WORK else None

    def here(self, *, is_async: bool) -> Executor:
        """The one in this process."""
        if not is_async:
            return self._threads
        if self._loop is None:
            from protojobs.worker.runs.event_loop import (
                AsyncExecutor,  # asyncio costs 30 ms that plain workers need not pay
            )

            if self._opened is None:
                self._loop = AsyncExecutor(self._size, self._report, self._clock)
            else:
                self._loop = AsyncExecutor(self._size, self._report, self._clock, self._opened.loop)
        return self._loop

    def _in_children(self) -> Executor:
        if self._children is None:
            from protojobs.worker.runs.children.pool import ProcessExecutor  # subprocess, for those who want it

            self._children = ProcessExecutor(
                self._size,
                self._runtime,
                report=self._report,
                give_back=self._give_back,
            )
        return self._children

    def withdraw(self, keys: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Take back those of the runs that have not begun in a thread, or on the loop."""
        keys = tuple(keys)
        return self._threads.withdraw(keys) + (self._loop.withdraw(keys) if self._loop is not None else [])

    def give_up(self) -> None:
        """Do not wait for threads and tasks that cannot be ended."""
        self._threads.give_up()
        if self._loop is not None:
            self._loop.give_up()

    def close(self, within_s: float) -> None:
        """Close those that there are. Waits for the end of children, up to so many seconds."""
        self._threads.close()
        if self._loop is not None:
            self._loop.close()
        if self._children is not None:
            self._children.close(within_s)
