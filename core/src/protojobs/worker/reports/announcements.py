"""What follows once the store has answered: the event to send, and the job's own `failed()`."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable
from types import TracebackType
from typing import TypedDict, cast

from msgspec.structs import replace

from protojobs.errors import ContractBroken, PayloadNotDecodable
from protojobs.events import (
    JobCancelled,
    JobEvent,
    JobFailed,
    JobLate,
    JobProcessed,
    JobProcessing,
    JobReleased,
    JobRetrying,
    JobSnoozed,
)
from protojobs.forks import end_if_copied, this_process
from protojobs.interrupts import Interrupted
from protojobs.jobs import codec
from protojobs.jobs.definition import JobDefinition, Registry
from protojobs.jobs.fingerprints import fingerprint
from protojobs.jobs.returns import undone
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, Settled, SettleStatus
from protojobs.worker.outcome import Outcome, settlement

__all__ = ["FAILED_LIMIT_S", "FailedCall", "announcement", "beginning", "failed_call", "tries"]

FAILED_LIMIT_S = 30.0  # for `failed()`; it is a courtesy, and may not hold a slot for long
_log = logging.getLogger("protojobs.worker")


def beginning(claimed: ClaimedJob) -> JobProcessing:
    """The event of a run that begins."""
    wait_s = (claimed.reserved_at - claimed.available_at).total_seconds()
    return JobProcessing(**_job_facts(claimed), wait_s=max(wait_s, 0.0))


def tries(outcome: Outcome) -> tuple[Outcome, Outcome]:
    """What a run led to, and what is sent where the store cannot take that.

    Where that is refused too, the next comparison of what this worker holds gives the job back.
    """
    error = ContractBroken("The store refused the result of this run.")
    mark = fingerprint(outcome.claimed.job_name, error)
    refused = settlement(outcome.claimed, Verb.FAIL, error=error.message, fingerprint=mark)
    return outcome, replace(outcome, settlement=refused)


def announcement(outcome: Outcome, answer: Settled, *, late_s: float) -> JobEvent:
    """The event that the store's answer calls for: it follows the job's resulting state, not the run's wish."""
    facts = _job_facts(outcome.claimed)
    sent = outcome.settlement
    duration_s = outcome.duration_s
    if answer.status is SettleStatus.STALE:
        if sent.verb is Verb.RELEASE:  # no result: the job has gone back before we could give it back
            return JobReleased(**facts, reason=sent.reason, error=sent.error, available_at=answer.available_at)
        return JobLate(**facts, late_s=late_s)
    if answer.state is JobState.COMPLETED:  # perhaps in the job's own transaction, whatever the run came to after it
        return JobProcessed(**facts, result=outcome.result, duration_s=duration_s)
    if answer.state is JobState.CANCELLED:
        return JobCancelled(**facts, reason=sent.reason or "cancelled on request")
    match sent.verb:
        case Verb.FAIL:
            return JobFailed(**facts, exception=outcome.exception, error=sent.error, duration_s=duration_s)
        case Verb.RETRY:
            return JobRetrying(
                **facts,
                exception=outcome.exception,
                error=sent.error,
                duration_s=duration_s,
                available_at=answer.available_at,
            )
        case Verb.SNOOZE:
            return JobSnoozed(**facts, available_at=answer.available_at)
        case _:
            return JobReleased(**facts, reason=sent.reason, error=sent.error, available_at=answer.available_at)


class JobFacts(TypedDict):
    """The fields that every job event has."""

    job_id: str
    job_name: str
    job_class: str
    queue: str
    attempt: int


def _job_facts(claimed: ClaimedJob) -> JobFacts:
    return {
        "job_id": claimed.id,
        "job_name": claimed.job_name,
        "job_class": claimed.job_class,
        "queue": claimed.queue,
        "attempt": claimed.attempts,
    }


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
