"""One run of one claimed job: undo the transforms, decode, call, and decide. Returns an Outcome; touches no store and
starts no thread.

Who raised decides what an error means. What comes out of the job's own code is held against `retry_on` and
`discard_on`. What went wrong before it was called, or around it, is not: the job goes back unspent, or the attempt has
failed.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Unpack, cast

import msgspec

from protojobs.clock import Clock
from protojobs.errors import JobCrashed, JobError, JobLost, JobTimeout, PayloadNotDecodable, ResultInvalid
from protojobs.forks import end_if_copied, this_process
from protojobs.hooks.hooks import Hooks
from protojobs.interrupts import Interrupted
from protojobs.jobs import codec
from protojobs.jobs.backoff import from_policy
from protojobs.jobs.context import NO_RESOURCES, JobContext
from protojobs.jobs.definition import JobDefinition, Registry
from protojobs.jobs.fingerprints import title
from protojobs.jobs.results import result_text
from protojobs.jobs.returns import Discard, Retry, Snooze, undone
from protojobs.names import check_seconds
from protojobs.new_jobs import JobMaker
from protojobs.port.lifecycle import CRASHES_MAX, RETURNS_FREE, Verb
from protojobs.port.records import ClaimedJob, Fence, Settlement
from protojobs.worker.outcome import Details, Outcome, settlement
from protojobs.worker.runs.failure_text import forget_locals, with_error

__all__ = ["LEASE_IN_DOUBT", "NOT_BEGUN", "NOT_COMMITTED", "NOT_JUDGED", "SOFT", "NotBegun", "Run", "prepare", "unrun"]

RETRY_AFTER_MAX_S = 86_400.0  # that an exception may ask for: quotas are by the day. Never below the job's retry_delay
UNRUN_DELAY_MAX_S = 300.0  # between two tries of a job that goes back since it cannot be run here
UNDECODABLE_RETURNS_MAX = 300  # a day, with these delays; docs/decisions/0027
LEASE_IN_DOUBT = "lease in doubt"  # why a run of an exclusive job was cut, or not begun
SOFT = "soft timeout"  # it was struck when the job's own code was over, or had not begun
CANCELLED_RUNNING = "cancelled while running"
NOT_COMMITTED = "the transaction in which the job was completed has not been committed"
NOT_JUDGED = "its end could not be judged"  # a mistake of ours or of a plugin: the job goes back
_PLAIN = frozenset({type(None), bool, int, float, str, list, dict})  # results that need no look


class NotBegun:
    """What is reported of a run that was overdue, or was ended before it began: the job goes back into the line."""


NOT_BEGUN = NotBegun()


class Run:
    """A job about to run, or running: everything an executor needs, and the judge of how it ended."""

    __slots__ = (
        *("_clock", "_context", "_end", "_hooks", "_is_cancelled", "_is_opening", "_is_stopping", "_process"),
        *("_report", "began_at", "begins_by", "claimed", "completer", "cut_by", "definition", "is_open", "key"),
        *("maker", "resources"),
    )

    def __init__(
        self,
        claimed: ClaimedJob,
        definition: JobDefinition,
        hooks: Hooks,
        clock: Clock,
        report: Callable[[Fence, float], None],
    ) -> None:
        self.claimed = claimed
        self.definition = definition
        self.key = (claimed.id, claimed.claim_seq)
        self.cut_by = ""  # `timeout`, `cancel`, `shutdown` or LEASE_IN_DOUBT once somebody has ended it from outside
        self.begins_by = math.inf  # on the monotonic clock; set where it is handed over before a slot is free
        self.began_at = -math.inf  # on the monotonic clock; until it begins
        self.is_open = False  # whether the transforms have been undone
        self.completer: Callable[[object, Fence], None] | None = None  # of the driver, where it has transactions
        self.maker: JobMaker | None = None  # where the store keeps results, and what comes next
        self.resources = NO_RESOURCES
        self._hooks = hooks
        self._clock = clock
        self._report = report
        self._context: JobContext | None = None
        self._is_cancelled = self._is_stopping = False
        self._is_opening = False
        self._process = 0
        self._end: Outcome | None = None  # what the job's own code came to, while around hooks are still at it

    @property
    def context(self) -> JobContext:
        """What the job may know of its run. Made when somebody asks: most jobs do not."""
        if self._context is None:
            claimed = self.claimed
            context = JobContext(
                Fence(id=claimed.id, claim_seq=claimed.claim_seq, reserved_by=claimed.reserved_by),
                queue=claimed.queue,
                job_name=claimed.job_name,
                attempt=claimed.attempts,
                max_retries=claimed.max_retries,
                ends_at=self._ends_at,
                meta=_meta(claimed),
                clock=self._clock,
                report=self._report,
            )
            context.completer = self.completer
            context.maker = None if self.maker is None else self.maker.make
            context.resources, context.is_async = self.resources, self.is_async
            self._context = context
            if self._is_cancelled:  # said before anybody could hear it, or just now
                context.request_cancel()
            if self._is_stopping:
                context.request_stop()
        return self._context

    @property
    def _ends_at(self) -> float | None:
        if not self.claimed.timeout:
            return None
        return (self.began_at if self.has_begun else self._clock.monotonic()) + self.claimed.timeout

    @property
    def has_begun(self) -> bool:
        """Whether anything of it has run. What ends it before costs the job no attempt."""
        return self.began_at > -math.inf

    @property
    def is_async(self) -> bool:
        """Whether it belongs on the event loop."""
        return self.definition.is_async

    @property
    def exclusive_holder(self) -> str:
        """Of an exclusive job the worker identity that holds the claim; empty for others."""
        return self.claimed.reserved_by if self.definition.exclusive else ""

    @property
    def timeout(self) -> float:
        """Seconds; 0 = none."""
        return self.claimed.timeout

    def begin(self) -> None:
        """From now on its time counts, in this process."""
        self._process = this_process()
        self.began_at = self._clock.monotonic()

    def execute(self) -> Outcome:
        """Run a plain job in this thread. Only `Interrupted` passes."""
        self.begin()
        if isinstance(data := self._ready(), Outcome):
            return data
        try:
            if self._hooks.around_job:
                with self._hooks.around(self.context):
                    result = self._called(data)
            else:
                result = self._called(data)
        except Interrupted:
            raise
        except BaseException as error:  # noqa: BLE001  (the job's own code: whatever it raises is its failure, sys.exit() too)
            return self._ended_by(error)
        return self._end or self.returned(result)

    async def aexecute(self) -> Outcome:
        """Run an async job on this loop. A cancellation from outside ends as `cut` says."""
        self.begin()
        if isinstance(data := self._ready(), Outcome):
            return data
        try:
            if self._hooks.around_job:
                with self._hooks.around(self.context):
                    result = await self._acalled(data)
            else:
                result = await self._acalled(data)
        except BaseException as error:  # noqa: BLE001  (as above)
            return self._ended_by(error)
        return self._end or self.returned(result)

    @property
    def needs_opening(self) -> bool:
        """Whether transforms are still to be undone."""
        return self._hooks.has_before_run and not self.is_open

    def _called(self, data: object) -> object:
        """What the job's own code returns, in this process."""
        end_if_copied(self._process)  # by a plugin
        try:
            result = self.definition.call(data, self.context if self.definition.context_parameter else None)
        except BaseException as error:
            end_if_copied(self._process, error)
            if self._hooks.around_job and not isinstance(error, Interrupted):
                self._end = self._judged(error)
            raise
        end_if_copied(self._process)
        if self._hooks.around_job:
            self._end = self.returned(result)
        return result

    async def _acalled(self, data: object) -> object:
        """`_called` for an async job."""
        end_if_copied(self._process)
        context = self.context if self.definition.context_parameter else None
        try:
            result = await self._timed(cast("Awaitable[object]", self.definition.call(data, context)))
        except BaseException as error:
            end_if_copied(self._process, error)
            if self._hooks.around_job:
                self._end = self._judged(error)
            raise
        end_if_copied(self._process)
        if self.cut_by == "cancel" and _was_told_to_end():
            self._end = self._outcome(Verb.CANCEL, reason=CANCELLED_RUNNING)
        elif self._hooks.around_job:
            self._end = self.returned(result)
        return result

    def _timed(self, awaitable: Awaitable[object]) -> Awaitable[object]:
        if not self.definition.soft_timeout:
            return awaitable
        from protojobs.worker.runs.soft_timeout import in_time  # with asyncio, which is loaded where a loop runs

        return in_time(awaitable, self.definition.soft_timeout, lambda: bool(self.cut_by))

    def _judged(self, error: BaseException) -> Outcome:
        """What it means that the job's own code has ended so: it raised, or was cancelled from outside."""
        if self.cut_by and self.is_async:
            import asyncio  # loaded already where a loop runs

            if isinstance(error, asyncio.CancelledError):
                return self.ended_outside(error.__traceback__)
        return self.raised(error)

    def _ended_by(self, error: BaseException) -> Outcome:
        outcome = self._end or self._judged(error)
        forget_locals(error)
        return outcome

    def open(self) -> Outcome | None:
        """Undo what transforms did to the job before it was pushed. An Outcome: a plugin failed, so nothing runs."""
        if not self.needs_opening:
            return None
        self._is_opening = True
        try:
            self.claimed = self._hooks.before_run(self.claimed)
        except Interrupted:
            raise
        except BaseException as error:  # noqa: BLE001  (a transform fails closed)
            return self.not_opened(error)
        self._is_opening, self.is_open = False, True
        return None

    def _ready(self) -> object:
        """The data as the job's code wants it, or the Outcome of a job whose code cannot be called."""
        if (outcome := self.open()) is not None:
            return outcome
        claimed = self.claimed
        what = f'job {claimed.id} "{claimed.job_name}"'
        try:
            _ = self.definition.context_parameter  # an annotation that means nothing is not raised by the job's code
            return codec.decode(claimed.data, self.definition.data_type, what=what)
        except Interrupted:
            raise
        except PayloadNotDecodable as error:
            if claimed.claim_seq - claimed.attempts < UNDECODABLE_RETURNS_MAX:  # a newer worker may know how
                return unrun(claimed, Verb.RELEASE, reason="undecodable", delay=_growing(claimed), exception=error)
            outcome = self.failed(error)
        except BaseException as error:  # noqa: BLE001  (the data type may have code of its own)
            outcome = self.failed(error)
        forget_locals(outcome.exception)
        return outcome

    def not_opened(self, error: BaseException, delay: float = 0.0) -> Outcome:
        """A transform cannot be undone: back unspent, until the plugin is mended."""
        claimed = self.claimed
        wait = max(delay, _growing(claimed))
        return unrun(claimed, Verb.RELEASE, reason="transform", delay=wait, exception=error)

    def tell_cancelled(self) -> None:
        """Let the job know that a person wants it to end."""
        self._is_cancelled = True
        if self._context is not None:
            self._context.request_cancel()

    def tell_stopping(self) -> None:
        """Let the job know that its worker wants to stop."""
        self._is_stopping = True
        if self._context is not None:
            self._context.request_stop()

    def returned(self, result: object) -> Outcome:
        """What a returned value means: Snooze, Retry and Discard steer, all else is the result.

        Unless it says that the work is not done: then the attempt has failed.
        """
        if self._context is not None and self._context.is_completed:
            return self._completed_by_itself(result)
        if type(result) in _PLAIN:
            return self._complete(result)
        match result:
            case Snooze():
                return self._outcome(Verb.SNOOZE, delay=check_seconds("Snooze", result.in_))
            case Discard():
                return self._outcome(Verb.CANCEL, reason=result.reason or "discarded by the job")
            case Retry():
                return self._again(JobError("the job asked for a retry"), result.in_)
            case _:
                return self._complete(result) if (error := undone(result)) is None else self.failed(error)

    def raised(self, error: BaseException) -> Outcome:
        """What an exception of the job's own code means: the end, or another attempt by the job's policy."""
        definition = self.definition
        if definition.discard_on and isinstance(error, definition.discard_on):
            return self._outcome(Verb.CANCEL, exception=error, reason=title(error))
        if definition.retry_on and not isinstance(error, definition.retry_on):
            return self._outcome(Verb.FAIL, exception=error)
        return self.failed(error)

    def failed(self, error: BaseException, *, asks_job: bool = True) -> Outcome:
        """The attempt has failed, for a reason that `retry_on` and `discard_on` say nothing of: a timeout, a crash, a
        result that is none. `asks_job`: whether its own `retry_in` may be asked when to try again.
        """
        return self._again(error, None, asks_job=asks_job)

    def _complete(self, result: object) -> Outcome:
        """The way of nearly every job: what `_outcome` would say, in one step."""
        if self._context is not None and self._context.has_heard_cancel:  # it was told, and returned: it stopped early
            return self._outcome(Verb.CANCEL, reason=CANCELLED_RUNNING)
        if self.definition.store_result or (self._context is not None and self._context.next_jobs):
            return self._complete_carrying(result)
        claimed = self.claimed
        said = Settlement(
            id=claimed.id, claim_seq=claimed.claim_seq, reserved_by=claimed.reserved_by, verb=Verb.COMPLETE
        )
        return Outcome(claimed=claimed, settlement=said, result=result, duration_s=self._duration_s)

    def _complete_carrying(self, result: object) -> Outcome:
        """Complete with what the run has returned and what it has asked for next: the store keeps all in one step.

        A result that cannot be kept fails the job at once: another run would return the like.
        """
        text: str | None = None
        if self.definition.store_result and self.maker is not None:
            try:
                text = result_text(result, self.definition)
            except ResultInvalid as error:
                forget_locals(error)
                return self._outcome(Verb.FAIL, exception=error)
        next_jobs = () if self._context is None else tuple(self._context.next_jobs)
        done = self._outcome(Verb.COMPLETE, result=result)
        return msgspec.structs.replace(
            done, settlement=msgspec.structs.replace(done.settlement, result=text, then=next_jobs)
        )

    @property
    def _duration_s(self) -> float:
        return self._clock.monotonic() - self.began_at if self.has_begun else 0.0

    def _completed_by_itself(self, result: object) -> Outcome:
        """The run has completed its job in a transaction of its own; only the store knows whether that was committed.

        So it is sent as a failed attempt. If the job is completed, the store says so and does nothing: the claim has
        no holder any more. If the transaction is still open, the store lets us wait for its end.
        """
        error = JobError(NOT_COMMITTED)
        return msgspec.structs.replace(self._again(error, None), result=result)

    def cut(
        self,
        where: TracebackType | None = None,
        *,
        ended: bool = True,
        exit_bound: float = 0.0,
        asks_job: bool = True,
    ) -> Outcome | NotBegun:
        """How a run ends that was ended from outside: NOT_BEGUN where it had not begun, unless it is not wanted."""
        if self._end is not None:  # the job's own code was done; what took longer was a plugin's
            return self._end
        if not self.has_begun and self.cut_by not in ("cancel", NOT_JUDGED):
            return NOT_BEGUN
        outcome = self.ended_outside(where, ended=ended, exit_bound=exit_bound, asks_job=asks_job)
        traceback.clear_frames(where)
        return outcome

    def ended_outside(
        self,
        where: TracebackType | None = None,
        *,
        ended: bool = True,
        exit_bound: float = 0.0,
        asks_job: bool = True,
    ) -> Outcome:
        """How a run ends that was ended from outside after it had begun, and `where` it was then, if that is known.

        Not `ended`: its thread may still be at work. Then it is not run again for `exit_bound` seconds, within which
        this process ends.
        """
        if self.cut_by == "timeout":
            limit = f"{self.timeout:g} s"
            error = JobTimeout(
                f"the run outlasted its timeout of {limit}", mend="" if ended else "and could not be ended."
            ).with_traceback(where)
            if self._is_opening:  # a plugin took the time; none of the job's own code has run
                return self.not_opened(error, 0.0 if ended else exit_bound)
            # Not ended: we are in the claim loop, where none of the job's own code may run.
            outcome = self.failed(error, asks_job=asks_job and ended)
            if ended or outcome.settlement.verb is not Verb.RETRY:
                return outcome
            delay = max(outcome.settlement.delay, exit_bound)
            return msgspec.structs.replace(outcome, settlement=msgspec.structs.replace(outcome.settlement, delay=delay))
        if self.cut_by == SOFT:
            return self.failed(JobTimeout())
        if self.cut_by == "cancel":
            return self._outcome(Verb.CANCEL, reason=CANCELLED_RUNNING)
        return self._given_back(0.0 if ended else exit_bound)

    def _given_back(self, delay: float) -> Outcome:
        """Cut short, and not by a fault of the job's own.

        A stop is not held against a job past RETURNS_FREE, when the store would spend an attempt for each return: it
        comes later instead.
        """
        claimed = self.claimed
        reason = self.cut_by if self.cut_by in (LEASE_IN_DOUBT, NOT_JUDGED) else "shutdown"
        if reason != NOT_JUDGED and claimed.returns >= RETURNS_FREE:
            return self._outcome(Verb.RELEASE, reason=reason, delay=max(delay, _growing(claimed)))
        return self._outcome(Verb.RELEASE, reason=reason, counts_return=True, delay=delay)

    def _again(self, error: BaseException, delay: float | timedelta | None, *, asks_job: bool = True) -> Outcome:
        claimed = self.claimed
        if claimed.attempts > claimed.max_retries:
            return self._outcome(Verb.FAIL, exception=error)
        try:
            if delay is None and asks_job:
                delay = _asked_by(error, max(RETRY_AFTER_MAX_S, claimed.retry_delay))
            if delay is None and asks_job:
                delay = self.definition.retry_in(claimed.attempts, error)
            wait = None if delay is None else check_seconds("the delay before a retry", delay)
        except Interrupted:
            raise
        except BaseException as own:  # noqa: BLE001  (the job's own `retry_in`, or a `retry_after` that is no number)
            kind = type(own).__name__
            self.context.log.error("job %s could not say when to retry, its policy decides: %s", claimed.id, kind)
            wait = None
        if wait is None:
            wait = from_policy(claimed.retry_policy).delay(claimed.attempts, claimed.retry_delay, claimed.id)
        return self._outcome(Verb.RETRY, exception=error, delay=wait)

    def _outcome(
        self, verb: Verb, *, exception: BaseException | None = None, result: object = None, **rest: Unpack[Details]
    ) -> Outcome:
        return Outcome(
            claimed=self.claimed,
            settlement=settlement(self.claimed, verb, **with_error(self.claimed, rest, exception)),
            exception=exception,
            result=result,
            duration_s=self._duration_s,
        )


def prepare(
    claimed: ClaimedJob, registry: Registry, hooks: Hooks, clock: Clock, report: Callable[[Fence, float], None]
) -> Run | Outcome:
    """The claimed job as a Run, or the Outcome of one that must not run here."""
    if claimed.is_cancel_requested:
        return unrun(claimed, Verb.CANCEL, reason="cancelled before it ran")
    if claimed.crashes >= CRASHES_MAX:
        error = JobCrashed(f"the job took its process down {claimed.crashes} times, and is not run again")
        return unrun(claimed, Verb.FAIL, exception=error)
    if claimed.attempts > claimed.max_retries + 1:
        lost = JobLost(f"no result came of the job's last attempt; it had come back {claimed.returns} times before")
        return unrun(claimed, Verb.FAIL, exception=lost)
    if (definition := registry.find(claimed.job_name)) is None:
        return unrun(claimed, Verb.RELEASE, reason="unknown_name", delay=_growing(claimed))
    return Run(claimed, definition, hooks, clock, report)


def unrun(
    claimed: ClaimedJob, verb: Verb, *, exception: BaseException | None = None, **rest: Unpack[Details]
) -> Outcome:
    """The Outcome of a job that was lent, and none of whose own code has run."""
    said = settlement(claimed, verb, **with_error(claimed, rest, exception))
    forget_locals(exception)
    return Outcome(claimed=claimed, settlement=said, exception=exception, was_run=False)


def _asked_by(error: BaseException, most_s: float) -> float | None:
    """The `retry_after` of an exception. It may be that of a library, which has it from a server: so it has a bound."""
    after = cast("float | timedelta | None", getattr(error, "retry_after", None))
    return None if after is None else min(check_seconds("retry_after", after), most_s)


def _was_told_to_end() -> bool:
    """Whether the task that runs this was cancelled, so that a CancelledError came to what it awaited."""
    import asyncio  # loaded already where a loop runs

    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _growing(claimed: ClaimedJob) -> float:
    """1 s, 2 s, 4 s ... 5 min: the difference of the two counters is how often the job went back unspent."""
    return min(UNRUN_DELAY_MAX_S, 2.0 ** min(max(claimed.claim_seq - claimed.attempts, 0), 9))


def _meta(claimed: ClaimedJob) -> Mapping[str, str]:
    if not claimed.meta:
        return {}
    try:
        return msgspec.json.decode(claimed.meta, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError):  # foreign writing; the job's data is what counts
        return {}
