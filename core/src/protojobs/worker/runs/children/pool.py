"""Plain functions in child processes: a run that hangs in C is killed, and one that crashes takes only its child along.

One thread for each slot owns one child, hands it a job at a time and watches the run. Children are started when jobs
come and used again; a child that has died, was killed, has run JOBS_MAX jobs or has grown is replaced.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from copy import copy
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar, cast

import msgspec

from protojobs.errors import JobCrashed, JobRaised, JobTimeout
from protojobs.logs import RUNNING
from protojobs.port.lifecycle import Verb
from protojobs.runtime import Runtime
from protojobs.worker.outcome import Outcome
from protojobs.worker.runs.children.frames import (
    Begin,
    Begun,
    Cancel,
    Ended,
    FromChild,
    Logged,
    OutOfPlace,
    Progress,
    Ready,
    Stopping,
    Unknown,
    Work,
)
from protojobs.worker.runs.children.handle import ChildHandle
from protojobs.worker.runs.executor import NotBegun, Report, Runnable, Unplaced
from protojobs.worker.runs.run import LEASE_IN_DOUBT, NOT_JUDGED, Run, unrun

__all__ = ["ProcessExecutor"]

JOBS_MAX = 1_000  # of one child: bounds what jobs leak
GROWTH_BYTES_MAX = 512 * 1024 * 1024  # beyond what it held after its first job, when libraries and models are loaded
START_S = 60.0  # for a child to import the application
BEGIN_S = 10.0  # for an idle child to take a job. One that does not is held up by what a job before has left behind
TICK_S = 0.1  # how soon a wish to cancel or to stop is seen
CANCEL_S = 2.0  # how long a job that was told of it may go on
KILL_S = 1.0  # from being told to end to SIGKILL; less than _timeouts.END_S
GONE_S = 5.0  # from SIGKILL to be taken for dead
CLOSE_S = 4.0  # for all children to be gone
NO_CHILD_DELAY_S = 5.0
JUDGE_S = 5.0  # for a job's own `retry_in` to say when to run it again, where its child cannot ask
NOT_FOUND = (
    "a child process does not find it by importing {}. Define it at the top of a module, not in the script that is run"
)
NO_CHILD = "no child process could be started"
OUT_OF_PLACE = "it completes itself in a transaction of its own, which a child process cannot do"
T = TypeVar("T")
_log = logging.getLogger("protojobs.worker")


class ProcessExecutor:
    """At most `size` children. `give_back` takes runs that no child can do."""

    keeps_time = True  # the start of a child is not the job's

    def __init__(
        self,
        size: int,
        runtime: Runtime,
        *,
        report: Report,
        give_back: Callable[[Unplaced], None],
    ) -> None:
        self.clock = runtime.clock
        self.is_closed = False
        self._size = size
        self._settings, self._registry = runtime.settings, runtime.registry
        self._store = runtime.driver.capabilities
        self._report = report
        self._give_back = give_back
        self._inbox: SimpleQueue[Run | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._slots: list[_Slot] = []
        self._load = 0  # runs taken and not yet ended
        self.homeless: set[str] = set()  # names that no child can run

    def start(self, run: Runnable) -> None:
        assert isinstance(run, Run)  # `failed()` runs in the worker
        if run.definition.name in self.homeless or not run.definition.is_importable:
            self.refused(run, NOT_FOUND)
            return
        with self._lock:
            if self._load + 1 > len(self._slots) and len(self._slots) < self._size:
                self._slots.append(_Slot(self, self._inbox))
            self._load += 1
        self._inbox.put(run)

    def interrupt(self, run: Runnable) -> None:
        """Nothing to do: the slot that watches the run sees its `cut_by`."""

    def interrupt_again(self, run: Runnable) -> None:
        """Nothing to do: a child that does not end is killed."""

    def close(self, within_s: float = CLOSE_S) -> None:
        """Take no more, kill what still runs, and return when all children are gone, which takes a moment."""
        self.is_closed = True
        for _ in self._slots:
            self._inbox.put(None)
        ends = self.clock.monotonic() + min(CLOSE_S, within_s)
        for slot in self._slots:
            slot.thread.join(max(0.0, ends - self.clock.monotonic()))

    def begin(self) -> Begin:
        """What a new child must know."""
        settings = self._settings
        known = (self._registry.get(name) for name in self._registry)
        modules = [app.partition(":")[0] for app in settings.app]
        named = {definition.module for definition in known if definition.is_importable}
        named |= {resource.module for resource in self._registry.resources.values()} - {"__main__"}
        modules += sorted(named - {*modules})
        return Begin(
            path=tuple(sys.path),
            modules=tuple(modules),
            settings=msgspec.structs.replace(settings, url=None, app=(), schedules={}),
            store=self._store,
            log_levels=(logging.getLogger().level, logging.getLogger("protojobs").level),
        )

    def kill_s(self, why: str) -> float:
        """How long a child that was told to end, for this reason, may take. Where the lease is short, so is this."""
        return min(KILL_S, self._settings.lease / 12) if why == LEASE_IN_DOUBT else KILL_S

    def ended(self, run: Run, outcome: Outcome | NotBegun) -> None:
        """A slot is done with a run."""
        with self._lock:
            self._load -= 1
        self._report(run.key, outcome)

    def is_guest(self, run: Run) -> bool:
        """Whether it runs here only as a suspect."""
        return run.is_async or (run.definition.executor or self._settings.executor) != "process"

    def refused(self, run: Run, why: str, *, was_taken: bool = False) -> None:
        """No child can run this job: back to the worker, which runs it itself."""
        with self._lock:
            self._load -= was_taken
        if run.definition.name not in self.homeless:
            self.homeless.add(run.definition.name)
            why = why.format(run.definition.module)
            _log.warning('job "%s" runs in the worker itself: %s', run.definition.name, why)
        self._give_back(Unplaced(run))


class _Slot:
    """One thread, the child that it owns, and the run that it watches."""

    def __init__(self, pool: ProcessExecutor, inbox: SimpleQueue[Run | None]) -> None:
        self._pool = pool
        self._clock = pool.clock
        self._inbox = inbox
        self._child: ChildHandle | None = None
        self.thread = threading.Thread(target=self._serve, name="protojobs-child", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            while (run := self._inbox.get()) is not None:
                RUNNING.set(run.claimed)  # what the child logs is logged by this thread
                outcome = self._perform(run)
                RUNNING.set(None)
                if isinstance(outcome, str):
                    self._pool.refused(run, outcome, was_taken=True)
                else:
                    self._pool.ended(run, outcome)
                del run, outcome  # an idle slot keeps nothing of its last job
        finally:
            self._drop()

    def _perform(self, run: Run) -> Outcome | NotBegun | str:
        """The outcome, or why no child can do it."""
        try:
            if run.needs_opening and (unopened := self._opened(run)) is not None:
                return unopened
            for _ in range(2):
                child = self._child or self._started(run)
                if run.cut_by or child is None:
                    return run.cut() if run.cut_by else self._not_started(run)
                watch = _Watch(self._pool, run, child)
                outcome = watch.outcome()
                if outcome is not None:
                    break
                _log.error("a child process %s between two jobs", child.death())
                self._drop()
            else:
                return self._not_started(run)
        except BaseException as error:  # noqa: BLE001  (foreign code, or a mistake of ours: the run must be answered for)
            _log.exception("job %s: the slot of its child process failed", run.claimed.id)
            self._drop()
            return run.failed(error, asks_job=False)
        # A guest's child is for this run only: workers whose jobs run in threads keep no children.
        if watch.is_over or self._pool.is_guest(run) or self._is_used_up(child, watch.resident_bytes):
            self._drop()
        return outcome

    def _not_started(self, run: Run) -> Outcome | str:
        """A guest can run elsewhere, and must not wait for a child that perhaps never starts."""
        if self._pool.is_guest(run) and not self._pool.is_closed:
            return NO_CHILD
        return unrun(run.claimed, Verb.RELEASE, reason=NO_CHILD, delay=NO_CHILD_DELAY_S)

    def _opened(self, run: Run) -> Outcome | NotBegun | None:
        """Undo the transforms, here and not in the child, which need not have the plugin. The job's time is theirs."""
        opened = copy(run)  # one that is given up may still change it
        ends = self._clock.monotonic() + run.timeout if run.timeout else math.inf
        call = _Aside(opened.open)
        while not call.has_ended(TICK_S):
            if run.cut_by or self._pool.is_closed:
                return run.cut()
            if self._clock.monotonic() >= ends:
                return run.not_opened(JobTimeout(f"a transform outlasted the job's timeout of {run.timeout:g} s"))
        run.claimed, run.is_open = opened.claimed, opened.is_open
        return call.answer

    def _started(self, run: Run) -> ChildHandle | None:
        """A child that has done its imports; None if there is none to be had, or the run was cut meanwhile."""
        try:
            child = self._child = ChildHandle(self._pool.begin())
        except OSError as error:
            _log.error("no child process can be started: %s", error)
            return None
        ends = self._clock.monotonic() + START_S
        try:
            while not isinstance(message := child.receive(TICK_S), Ready):
                _log_here(message)
                if run.cut_by or self._pool.is_closed or self._clock.monotonic() >= ends:
                    break
            else:
                return child
            _log.error("a child process was given up before its imports were done")
        except EOFError:
            _log.error("a child process %s before its imports were done", child.death())
        child.kill()
        self._drop()
        return None

    def _is_used_up(self, child: ChildHandle, resident_bytes: int) -> bool:
        child.jobs += 1
        child.first_bytes = child.first_bytes or resident_bytes
        return child.jobs >= JOBS_MAX or resident_bytes - child.first_bytes > GROWTH_BYTES_MAX

    def _drop(self) -> None:
        child, self._child = self._child, None
        try:
            if child is not None:
                child.close()
        except Exception:  # noqa: BLE001  (a mistake of ours: the run must be answered for, and the slot go on)
            _log.exception("a child process could not be closed")


class _Aside(Generic[T]):
    """A call of foreign code on a thread of its own, so that it can be given up."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = copy_context().run  # with the job that log lines belong to
        self._answers: SimpleQueue[T] = SimpleQueue()
        self.answer: T | None = None
        threading.Thread(target=self._run, args=(call,), name="protojobs-aside", daemon=True).start()

    def has_ended(self, wait_s: float) -> bool:
        """Whether it has answered by now, or within so long. If so, `answer` is what it said."""
        try:
            self.answer = self._answers.get(timeout=wait_s)
        except Empty:
            return False
        return True

    def _run(self, call: Callable[[], T]) -> None:
        self._answers.put(self._call(call))


class _Watch:
    """A run in a child: passes on what either side wants the other to know, and ends it when its time is over.

    The limit is kept here and not in the table of timeouts: it counts from when the child has taken the job.
    """

    def __init__(self, pool: ProcessExecutor, run: Run, child: ChildHandle) -> None:
        self.is_over = False  # the child is not to be used again
        self.resident_bytes = 0
        self._pool = pool
        self._clock = pool.clock
        self._run = run
        self._child = child
        self._begins_by: float | None = self._clock.monotonic() + BEGIN_S
        self._ends: float | None = None
        self._cancel_ends: float | None = None
        self._has_told_stopping = False
        self._kill_at: float | None = None
        self._why = ""

    def outcome(self) -> Outcome | NotBegun | str | None:
        """Hand it over and wait for its end: the outcome, or why no child can do it. None: the child has not begun it.

        One that has died since its last job did not die of this one.
        """
        self._run.began_at = -math.inf  # the child before may have been given up
        self._child.send(self._work())
        while True:
            try:
                message = self._received()
            except EOFError:
                self.is_over = True
                if self._run.has_begun or self._why not in ("", NOT_JUDGED):
                    return self._dead()
                return None
            match message:
                case Ended():
                    self.resident_bytes = message.resident_bytes
                    return self._answered(message)
                case Unknown():
                    return NOT_FOUND
                case OutOfPlace():
                    return OUT_OF_PLACE
                case _:
                    self._hear(message)

    def _received(self) -> FromChild | None:
        message = self._child.receive(self._turn())
        if isinstance(message, Ended) and (message.settlement.id, message.settlement.claim_seq) != self._run.key:
            self._child.break_off("an answer to another run")
            raise EOFError
        return message

    def _work(self) -> Work:
        run, named = self._run, self._run.definition
        is_guest = self._pool.is_guest(run)
        return Work(claimed=run.claimed, module=named.module, job_class=named.job_class, is_guest=is_guest)

    def _hear(self, message: FromChild | None) -> None:
        run = self._run
        if isinstance(message, Begun):
            run.begin()
            self._begins_by, self._ends = None, run.began_at + run.timeout if run.timeout else None
        _log_here(message)
        if isinstance(message, Progress) and message.fence == run.context.fence:  # else of a thread that a job left
            run.context.progress(message.share)

    def _turn(self) -> float:
        """Do what it is time for; answer how long to listen."""
        now = self._clock.monotonic()
        if self._kill_at is None:
            self._tell_cancelled(now)
            self._tell_stopping()
            self._why = self._why_end(now)
            if self._why:
                self.is_over = True
                self._kill_at = now + self._pool.kill_s(self._why)
                self._child.end()
        if self._kill_at is not None and (now >= self._kill_at or self._pool.is_closed):
            self._child.kill()
            if now >= self._kill_at + GONE_S:
                raise EOFError  # the kernel holds it in some call; nobody waits for that
        times = (t - now for t in (self._ends, self._cancel_ends, self._kill_at) if t is not None and t > now)
        return min([TICK_S, *times])

    def _tell_cancelled(self, now: float) -> None:
        if self._cancel_ends is None and self._run.context.is_cancel_requested:
            self._cancel_ends = now + CANCEL_S
            self._child.send(Cancel(self._run.context.fence))

    def _tell_stopping(self) -> None:
        if not self._has_told_stopping and self._run.context.stopping:
            self._has_told_stopping = True
            self._child.send(Stopping(self._run.context.fence))

    def _why_end(self, now: float) -> str:
        if self._run.cut_by:
            return self._run.cut_by
        if self._pool.is_closed:
            return "shutdown"
        if self._cancel_ends is not None and now >= self._cancel_ends:
            return "cancel"
        if self._begins_by is not None and now >= self._begins_by:
            return NOT_JUDGED  # it may just have begun it
        return "timeout" if self._ends is not None and now >= self._ends else ""

    def _dead(self) -> Outcome | NotBegun:
        run = copy(self._run)  # the run's own `cut_by` belongs to the table of timeouts
        if self._why:
            run.cut_by = run.cut_by or self._why
            return self._judged(run.cut, lambda: run.cut(asks_job=False))
        error = JobCrashed(f"the process that ran the job {self._child.death()}")
        outcome = self._judged(lambda: run.failed(error), lambda: run.failed(error, asks_job=False))
        if outcome.settlement.verb not in (Verb.RETRY, Verb.FAIL):
            return outcome
        return msgspec.structs.replace(
            outcome, settlement=msgspec.structs.replace(outcome.settlement, counts_crash=True)
        )

    def _judged(self, ask: Callable[[], T], without_asking: Callable[[], T]) -> T:
        """What the end of the child means for the job, whose own `retry_in` may be asked; it is not waited for long."""
        call = _Aside(ask)
        return cast("T", call.answer) if call.has_ended(JUDGE_S) else without_asking()

    def _answered(self, message: Ended) -> Outcome:
        return Outcome(
            claimed=self._run.claimed,
            settlement=message.settlement,
            result=None if message.result is None else msgspec.json.decode(message.result),
            exception=None if message.error is None else JobRaised(*message.error),
            duration_s=message.duration_s,
            was_run=message.was_run,
        )


def _log_here(message: FromChild | None) -> None:
    """Log what the child has logged, as if it had been logged here."""
    if not isinstance(message, Logged):
        return
    logger = logging.getLogger(message.name)
    if logger.isEnabledFor(message.level):
        facts: dict[str, object] = {
            "name": message.name,
            "levelno": message.level,
            "levelname": logging.getLevelName(message.level),
            "msg": message.message,
            "created": message.created,
            "msecs": message.created % 1 * 1000,
            "threadName": "protojobs-child",
        }
        if message.job_id is not None:
            facts.update(job_id=message.job_id, attempt=message.attempt)
        if message.exception:
            facts.update(exc_text=message.exception, exception=message.exception)
        logger.handle(logging.makeLogRecord(facts))
