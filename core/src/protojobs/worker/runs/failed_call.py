"""A job's own `failed()`: called once the store knows that the job has failed for good."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable
from types import TracebackType
from typing import cast

from protojobs.errors import PayloadNotDecodable
from protojobs.forks import end_if_copied, this_process
from protojobs.interrupts import Interrupted
from protojobs.jobs import codec
from protojobs.jobs.definition import JobDefinition, Registry
from protojobs.jobs.returns import undone
from protojobs.port.records import ClaimedJob
from protojobs.worker.outcome import Outcome

__all__ = ["FAILED_LIMIT_S", "FailedCall", "failed_call"]

FAILED_LIMIT_S = 30.0  # for `failed()`; it is a courtesy, and may not hold a slot for long
_log = logging.getLogger("protojobs.worker")


class FailedCall:
    """The call of a job's `failed(exception, data)`, after the store knows that the job has failed.

    It runs at most once; its own errors are logged and change nothing. Undecodable data arrives as None.
    """

    __slots__ = ("_definition", "_exception", "began_at", "claimed", "cut_by", "key")

    begins_by = math.inf
    timeout = FAILED_LIMIT_S

    def __init__(self, claimed: ClaimedJob, definition: JobDefinition, exception: BaseException) -> None:
        self.claimed = claimed
        self.key = (claimed.id, -claimed.claim_seq)  # apart from the run's own key
        self.cut_by = ""
        self.began_at = -math.inf
        self._definition = definition
        self._exception = exception

    @property
    def is_async(self) -> bool:
        """Whether the job's `failed` is a coroutine function."""
        return self._definition.failed_is_async

    @property
    def exclusive_holder(self) -> str:
        """None: the job is settled, and no lease protects what comes after."""
        return ""

    def execute(self) -> Outcome | None:
        """Call a plain `failed` in this thread."""
        process = this_process()
        try:
            self._look_at(self._call())
        except Interrupted:
            raise
        except BaseException as error:  # noqa: BLE001  (the user's code, and a courtesy)
            end_if_copied(process, error)
            self._complain(error)
        end_if_copied(process)
        return None

    async def aexecute(self) -> Outcome | None:
        """Await an async `failed` on this loop."""
        import asyncio  # loaded already where a loop runs

        process = this_process()
        try:
            self._look_at(await cast("Awaitable[object]", self._call()))
        except asyncio.CancelledError:
            if self.cut_by:
                raise
        except BaseException as error:  # noqa: BLE001  (as above; a sys.exit() would end the whole loop)
            end_if_copied(process, error)
            self._complain(error)
        end_if_copied(process)
        return None

    def tell_cancelled(self) -> None:
        """The job has failed already; there is nothing to cancel."""

    def tell_stopping(self) -> None:
        """It is short, and has the grace for itself."""

    def cut(self, where: TracebackType | None = None, *, ended: bool = True, exit_bound: float = 0.0) -> Outcome | None:
        """It was ended from outside: there is nothing to store."""
        _log.error("failed() of job %s was ended by a %s", self.claimed.id, self.cut_by)
        return None

    def _call(self) -> object:
        what = f"failed() of job {self.claimed.id}"
        try:
            data = codec.decode(self.claimed.data, self._definition.data_type, what=what)
        except PayloadNotDecodable:
            data = None
        return self._definition.failed(self._exception, data)

    def _look_at(self, result: object) -> None:
        if (error := undone(result)) is not None:
            self._complain(error)

    def _complain(self, error: BaseException) -> None:
        _log.error("failed() of job %s failed itself: %r", self.claimed.id, error, exc_info=error)


def failed_call(outcome: Outcome, registry: Registry) -> FailedCall | None:
    """The `failed()` of a job that has failed for good, where it has one."""
    definition = registry.find(outcome.claimed.job_name)
    if definition is None or not definition.has_failed or outcome.exception is None:
        return None
    return FailedCall(outcome.claimed, definition, outcome.exception)
