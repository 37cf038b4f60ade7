"""Where jobs run. An executor runs what it is given and reports the Outcome; it knows no driver and decides nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TypeAlias

from msgspec import Struct

from protojobs.port.records import ClaimedJob
from protojobs.worker.outcome import Outcome
from protojobs.worker.runs.run import NOT_BEGUN, NOT_JUDGED, NotBegun, Run

__all__ = ["CHILDREN_WORK", "NOT_BEGUN", "Executor", "NotBegun", "Report", "Runnable", "Unplaced", "not_judged"]

_log = logging.getLogger("protojobs.worker")
CHILDREN_WORK = os.name == "posix"  # pipes by number, sessions and signals


class Runnable(Protocol):
    """What an executor can run: a job, or a job's `failed()`."""

    claimed: ClaimedJob
    key: tuple[str, int]
    cut_by: str
    begins_by: float
    """On the monotonic clock. One that has not begun by then goes back to the claim loop instead."""
    began_at: float
    """On the monotonic clock; minus infinity until it begins."""

    @property
    def is_async(self) -> bool:
        """Whether it belongs on the event loop."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds from its beginning; 0 = none."""
        ...

    @property
    def exclusive_holder(self) -> str:
        """The worker identity on whose lease it depends, if it must end before that can."""
        ...

    def execute(self) -> Outcome | None:
        """Run in this thread; only Interrupted passes."""
        ...

    async def aexecute(self) -> Outcome | None:
        """Run on this loop."""
        ...

    def tell_cancelled(self) -> None:
        """Let the job know that a person wants it to end."""
        ...

    def tell_stopping(self) -> None:
        """Let the job know that its worker wants to stop."""
        ...

    def cut(
        self, where: TracebackType | None = None, *, ended: bool = True, exit_bound: float = 0.0
    ) -> Outcome | NotBegun | None:
        """The Outcome of a run that was ended from outside, `where` it was then."""
        ...


Report: TypeAlias = Callable[[tuple[str, int], "Outcome | NotBegun | None"], None]
"""Called once for each run, from the executor's own thread."""


def not_judged(run: Runnable) -> Outcome | NotBegun | None:
    """What to report, inside an `except`, of a run whose end could not be made an Outcome: the job goes back."""
    _log.exception("job %s: %s", run.key[0], NOT_JUDGED)
    run.cut_by = run.cut_by or NOT_JUDGED
    return run.cut()


class Unplaced(Struct, frozen=True):
    """A run that no child process can do. It has not begun."""

    run: Run


class Executor(Protocol):
    """A place where runs happen."""

    keeps_time: bool
    """Whether it ends runs that outlast their timeout by itself."""

    def start(self, run: Runnable) -> None:
        """Take the run; it is reported once. Never blocks. Raises RuntimeError, and has not taken it, where the system
        has no thread for it.
        """
        ...

    def interrupt(self, run: Runnable) -> None:
        """End the run if it is still going: it is reported as its `cut_by` says. Never blocks."""
        ...

    def interrupt_again(self, run: Runnable) -> None:
        """The run has been told to end and goes on: tell it again, unless it is cleaning up. Never blocks."""
        ...

    def close(self) -> None:
        """Take no more, and let idle threads go. Does not wait for a run."""
        ...
