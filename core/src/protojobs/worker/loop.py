"""The worker: one claim loop that decides alone, and around it the threads that carry, run, beat, ring and observe.

Everything that happens arrives in one inbox. The loop tells it to `Planner`, does what the plan says, and waits for
more. Finished runs are settled and new jobs are claimed in one round trip, of which one is on its way at a time.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from typing import TypeAlias

from protojobs import events
from protojobs.clock import within
from protojobs.entropy import jittered
from protojobs.errors import ContractBroken, DriverError, JobCrashed, ProtojobsError
from protojobs.events import Event, JobProcessed, JobProcessing
from protojobs.hooks.dispatcher import Dispatcher
from protojobs.port.lifecycle import CRASHES_MAX, SUSPECT_RECLAIMS, JobState, Verb
from protojobs.port.records import ClaimedJob, ClaimReply, Settled, SettleStatus
from protojobs.port.transactions import SupportsTransaction
from protojobs.runtime import Runtime
from protojobs.stopping import StopToken
from protojobs.worker.inbox import Inbox, Message
from protojobs.worker.lease.lease import HeartbeatResult, WorkerLease
from protojobs.worker.lease.maintenance import Maintenance
from protojobs.worker.lease.validity import LeaseValidity
from protojobs.worker.outcome import Outcome, WorkReport
from protojobs.worker.plan import released
from protojobs.worker.planner import Plan, Planner, WorkLimits
from protojobs.worker.prefetch import LEAD_WAIT_S
from protojobs.worker.reports.announcements import FAILED_LIMIT_S, FailedCall, announcement, beginning, failed_call
from protojobs.worker.reports.health import Outages
from protojobs.worker.reports.joblog import is_logged, log_event
from protojobs.worker.round_trip import RoundTrip, RoundTripThread, settled_singly
from protojobs.worker.runs.executor import NotBegun, Runnable, Unplaced
from protojobs.worker.runs.placing import Executors
from protojobs.worker.runs.run import Run, prepare, unrun
from protojobs.worker.runs.timeouts import END_S, Timeouts
from protojobs.worker.shutdown import LAST_CALL_S, LAST_WORDS_S
from protojobs.worker.wakeup import WakeupThread

__all__ = ["Worker"]

OBSERVERS_END_S = 5.0  # how long `work()` waits for observers before it returns
ENDS_THAT_WAIT = ("empty", "max_jobs", "max_time")  # with nothing running, for the jobs of a worker that died
NOT_STARTED, NOT_STARTED_DELAY_S = "no thread could be started", 5.0  # for a run
STAY_S = 1.0  # between two looks at whether there still are such jobs
LOST_WORKERS_MAX = SUSPECT_RECLAIMS + CRASHES_MAX  # died with a job that no child can run: it is given up
_log = logging.getLogger("protojobs.worker")

_Key: TypeAlias = tuple[str, int]


class Worker:
    """One `work()`: claims, runs and settles until its limits say that it is done."""

    def __init__(
        self,
        runtime: Runtime,
        names: Sequence[str],
        limits: WorkLimits,
        lease: WorkerLease,
        must_end_by: Callable[[float], None] = lambda _at: None,
    ) -> None:
        """`must_end_by(moment)` is told by when this process must be gone: infinite once it need not any more."""
        self._driver = runtime.driver
        self._registry = runtime.registry
        self._clock = runtime.clock
        self._hooks = runtime.hooks
        self._lease = lease
        self._names = names
        self._inbox = Inbox()
        self._validity = LeaseValidity(lease.info.lease_s)
        self._timeouts = Timeouts(self._clock, self._validity, self._is_stuck)
        self._must_end_by = must_end_by
        self._stuck_lock = threading.Lock()
        self._stuck_runs: dict[_Key, float] = {}  # that go on, and by when their process must be gone
        lease.run_bound.look_at(self._timeouts.left_s)
        self._sender = RoundTripThread(self._driver, names, self._inbox.put)
        self._wakeup = WakeupThread(self._driver, names, lambda: self._inbox.put(None))
        self._dispatcher = Dispatcher(self._hooks)
        self._executors = Executors(
            limits.concurrency,
            runtime.settings,
            runtime.registry,
            clock=self._clock,
            report=self._report,
            give_back=self._inbox.put,
        )
        now, places = self._clock.monotonic(), self._executors
        self._planner = Planner(limits, lease.watch, now, jittered, places.may_lead, places.has_child)
        self._maintenance = Maintenance(runtime, lease, self._send, self._planner.compared)
        self._stays_at_most: float | None = None  # for the jobs of a dead worker ...
        self._waits_for = ""  # ... this one
        self._complete_in = self._driver.complete_in if isinstance(self._driver, SupportsTransaction) else None
        self._done = self._failed = self._late = 0
        self._answered_at, self._unknown = 0.0, False  # a claim's answer was lost: ask the store what we hold
        self._unsure: set[_Key] = set()  # results whose settling got no answer
        self._calls: deque[FailedCall] = deque()  # `failed()` waiting for a slot
        self._outages = Outages(self._send)

    def run(self, stop: StopToken) -> WorkReport:
        """Work until the end. Raises only what `DriverError`s at the start raise."""
        self._lease.resume()
        worker, slots = self._lease.info.id, self._planner.limits.concurrency
        self._validity.good_beat(worker, self._lease.watch.last_good_at)
        self._send(events.WorkerStarting(worker=worker, queues=tuple(self._names), concurrency=slots))
        unsubscribe = stop.subscribe(self._inbox.put)
        self._lease.start(self._beaten)
        try:
            reason = self._loop()
        except BaseException:
            self._cut_short()
            self._dispatcher.close(0.0)
            raise
        finally:
            unsubscribe()
            self._lease.stop()
            for part in (self._sender, self._wakeup, self._timeouts):
                part.close()
            self._executors.close(self._left_s())
        worker, done, failed = self._lease.info.id, self._done, self._failed
        self._send(events.WorkerStopped(worker=worker, reason=reason, done=done, failed=failed))
        self._dispatcher.close(min(OBSERVERS_END_S, self._left_s()))
        return WorkReport(done=done, failed=failed, runs=self._planner.runs, reason=reason, late=self._late)

    @property
    def signs_off(self) -> bool:
        """Not where the last word got no answer: a stop does not wait twice, and a run that goes on needs the lease."""
        return not (self._unknown or (self.is_busy and self._planner.has_unsettled))

    @property
    def is_busy(self) -> bool:
        """Whether a run of it goes on, though it has ended."""
        return bool(self._planner.running or self._stuck_runs)

    def _left_s(self) -> float:
        """How long whatever follows the loop may take: a process that must be gone waits for nobody beyond that."""
        return self._planner.shutdown.left_s(self._clock.monotonic())

    def _cut_short(self) -> None:
        """This call is left by an exception: its runs must not outlive it, with nobody to end them or to tell how.

        They are cut as at the end of a grace, and what they came to is sent once. Raises no Exception.
        """
        began = self._clock.monotonic()
        self._planner.shutdown.stop(began, 2, "stopped")
        self._timeouts.cut(None, "shutdown")
        try:
            while self._planner.running and (left_s := began + END_S - self._clock.monotonic()) > 0:
                self._listen(left_s, 1)
            self._withdraw(self._planner.running_jobs())
            if (plan := self._planner.plan(self._clock.monotonic())).settle and not self._planner.is_asked:
                with within(LAST_CALL_S):
                    self._talk(plan)
        except Exception:  # noqa: BLE001  (most likely what has ended the loop; that one is raised)
            _log.exception("what runs were cut to could not be told; their jobs go back when the lease has ended")

    # -------------------------------------------------------------------------------------------------- the claim loop

    def _loop(self) -> str:
        self._look_at_memory(self._clock.monotonic())  # before the first claim: it may be too much without any job
        while True:
            now = self._clock.monotonic()
            self._lease.health.turns(now, self._planner.running, self._answered_at)
            plan = self._planner.plan(now)
            if plan.ended is not None:
                if self._stays(now, plan.ended):
                    continue
                self._say_last(plan)
                return plan.ended
            talks = bool(plan.settle or plan.limit)
            goes_on = talks and plan.goes_on and not self._unknown
            if goes_on:
                self._planner.asked(plan)
                self._sender.send(RoundTrip(plan, self._lease.info.id))
            if plan.start:
                self._begin(plan)
            self._start_calls()
            if plan.cut_all:
                self._timeouts.cut(None, "shutdown")
            if plan.withdraw:
                self._withdraw(self._planner.running_jobs())
            if talks and not goes_on:
                self._talk(plan)
            elif plan.is_idle and not (talks or self._planner.limits.ends_when_empty):
                self._wakeup.listen()
            self._keep_up()
            # Last, so that the next plan knows of what happened meanwhile.
            self._listen(0.0 if talks else plan.wait_s, plan.gather)

    def _stays(self, now: float, reason: str) -> bool:
        """Whether a worker that has nothing to do stays for the jobs of a dead one.

        A worker may take those back once it is half a lease old, for else an outage could cost the living their leases.
        A fleet of workers that live shorter would never do it. So one stays that long, where there is such a job.
        """
        if reason not in ENDS_THAT_WAIT or (reason == "max_jobs" and self._planner.limits.ends_when_empty):
            return False
        if self._stays_at_most is None:
            self._stays_at_most = now + self._lease.info.lease_s * 2 / 3 + STAY_S
        elif now >= self._stays_at_most:
            return False
        watch = self._lease.watch
        if watch.is_young:
            dead = self._left_behind()
            if not dead:
                return False
            watch.plan_reclaim(now, 0.0, 0.0)
        elif not watch.may_reclaim(now):
            return False
        self._planner.stay(now + STAY_S)
        return True

    def _left_behind(self) -> str:
        try:
            dead = self._maintenance.left_behind(self._names)
        except DriverError:
            return ""
        if dead and dead != self._waits_for:
            _log.info("worker %s died and holds jobs; staying until they may be taken back, about half a lease", dead)
        self._waits_for = dead
        return dead

    def _say_last(self, plan: Plan) -> None:
        is_asked = self._planner.is_asked
        if plan.settle:
            self._talk(plan)
        self._unknown = self._unknown or is_asked  # a call that takes too long may have brought jobs

    def _talk(self, plan: Plan) -> None:
        """Settle and claim in one round trip, and wait for the answer."""
        exchange = RoundTrip(plan, self._lease.info.id, asks_held=self._unknown)
        exchange.take_place(self._driver, self._names)
        self._answered(exchange)

    def _answered(self, exchange: RoundTrip) -> None:
        now, plan, reply, error = self._clock.monotonic(), exchange.plan, exchange.reply, exchange.error
        self._planner.answered()
        if exchange.held is not None:
            self._planner.adopted(now, exchange.held)
            self._unknown = False
        if isinstance(error, ContractBroken) and plan.settle:  # refused whole: nothing was settled, and nothing lent
            _log.error("the store refuses a result, sending them one by one: %s", error)
            self._talk_singly(plan)
        elif isinstance(error, ProtojobsError):  # also a password that was changed: what runs here is not lost for that
            self._unknown = True  # it may have been done all the same
            self._no_answer(plan.settle, error)
        elif error is not None:
            raise error
        else:
            self._took(now, plan, reply)
            if exchange.worker != self._lease.info.id:
                return  # what was lent to a lost lease is others' by now
            if reply.lease_lost:
                self._lost_lease(now)
            elif plan.limit:
                self._planner.claimed(now, plan, reply.claimed)

    def _took(self, now: float, plan: Plan, reply: ClaimReply) -> None:
        """The store has the results."""
        self._answered_at = now
        self._outages.over()
        self._planner.store_answered()
        self._planner.settled(reply.settled, plan.settle)
        self._lease.rollups.took(now, reply, plan.settle)
        tells = self._unsure or self._is_heard(JobProcessed)
        for answer, outcome in zip(reply.settled, plan.settle, strict=True):
            if tells or answer.state is not JobState.COMPLETED or answer.status is SettleStatus.STALE:
                self._settled(answer, outcome)
            else:
                self._done += 1

    def _talk_singly(self, plan: Plan) -> None:
        """Settle each result by itself, so that one which the store cannot take does not hold up the others."""
        for outcome in plan.settle:
            try:
                found = settled_singly(self._driver, outcome)
            except ProtojobsError as error:
                self._no_answer([outcome], error)
                return
            if found is not None:
                attempt, answer = found
                self._lease.rollups.took(self._clock.monotonic(), ClaimReply(settled=(answer,)), [attempt])
                self._settled(answer, attempt)
            self._planner.dropped(outcome)

    def _no_answer(self, sent: Sequence[Outcome], error: ProtojobsError) -> None:
        """These may be settled, or not."""
        self._unsure.update((outcome.settlement.id, outcome.settlement.claim_seq) for outcome in sent)
        # A claim that breaks the contract counts too: a corrupt row must not end the worker.
        self._outages.missed(self._lease.info.id, error)
        self._planner.store_failed(self._clock.monotonic())

    def _begin(self, plan: Plan) -> None:
        """Hand jobs to their executors, or settle them unrun. Short ones may wait there for a slot, for a moment."""
        self._lease.run_bound.begins(max([job.timeout or math.inf for job in plan.start]) + LEAD_WAIT_S)
        tells = self._is_heard(JobProcessing)
        for claimed in plan.start:
            if claimed.reclaims >= LOST_WORKERS_MAX and not self._executors.has_child(claimed.job_name):
                run: Run | Outcome = _given_up(claimed)
            else:
                run = prepare(claimed, self._registry, self._hooks, self._clock, self._lease.report)
            if isinstance(run, Outcome):
                self._planner.finished(self._clock.monotonic(), (claimed.id, claimed.claim_seq), run, was_run=False)
                continue
            run.completer = self._complete_in
            if tells:
                event = beginning(claimed)
                log_event(event)
                self._send(event)
            timeout = run.claimed.timeout
            if claimed.job_name in plan.short and not claimed.reclaims:
                run.begins_by = self._clock.monotonic() + LEAD_WAIT_S
                timeout = timeout and timeout + LEAD_WAIT_S
            try:
                executor = self._executors.place(run)
                self._timeouts.add(run, executor, timeout)
                executor.start(run)
            except RuntimeError as error:
                self._not_started(run, error)
        self._lease.run_bound.begun()

    def _start_here(self, run: Runnable, timeout: float) -> None:
        self._lease.run_bound.begins(timeout or math.inf)
        try:
            executor = self._executors.here(is_async=run.is_async)
            self._timeouts.add(run, executor, timeout)
            executor.start(run)
        except RuntimeError as error:
            self._not_started(run, error)
        self._lease.run_bound.begun()

    def _not_started(self, run: Runnable, error: RuntimeError) -> None:
        """The system has no thread left. That may pass, and is nothing to end for."""
        _log.error("job %s: its run cannot be started: %s", run.key[0], error)
        self._timeouts.remove(run.key)
        back = None
        if isinstance(run, Run):
            back = unrun(run.claimed, Verb.RELEASE, reason=NOT_STARTED, delay=NOT_STARTED_DELAY_S)
        self._planner.finished(self._clock.monotonic(), run.key, back, was_run=back is None)

    def _withdraw(self, keys: list[_Key]) -> bool:
        """Take back those of them that were handed over and have not begun. Whether there are any."""
        keys = self._executors.withdraw(keys)
        for key in keys:
            self._timeouts.remove(key)
        self._planner.withdrawn(self._clock.monotonic(), keys, self._lease.info.id)
        return bool(keys)

    def _start_calls(self) -> None:
        """Start the waiting `failed()` for which there is a slot: their time limit begins only then."""
        while self._calls and self._planner.running - len(self._calls) < self._planner.limits.concurrency:
            self._start_here(self._calls.popleft(), FAILED_LIMIT_S)

    def _settled(self, answer: Settled, outcome: Outcome) -> None:
        """The store has the result: tell observers, and the job itself if it has failed for good."""
        key = (outcome.claimed.id, outcome.claimed.claim_seq)
        is_unsure = key in self._unsure
        self._unsure.discard(key)
        late_s = 0.0
        if answer.status is SettleStatus.STALE:
            if is_unsure:
                return  # the call that got no answer had stored it, and the job has moved on since
            self._late += outcome.settlement.verb is not Verb.RELEASE
            late_s = self._clock.monotonic() - self._validity.sure_at(outcome.claimed.reserved_by)
        elif answer.state is JobState.COMPLETED:
            self._done += 1
        elif answer.state is JobState.FAILED:
            self._failed += 1
            if (call := failed_call(outcome, self._registry)) is not None:
                self._planner.calling_failed(call.key)
                self._calls.append(call)
        event = announcement(outcome, answer, late_s=late_s)
        log_event(event)
        self._send(event)

    def _is_heard(self, kind: type[Event]) -> bool:
        return self._hooks.listens(kind.event_name) or is_logged(kind)

    # ---------------------------------------------------------------------------------------------------- the inbox

    def _listen(self, wait_s: float, gather: int) -> None:
        """Take in all that has happened; with nothing wait up to `wait_s`, or for so many ends of runs."""
        stuck = [run for message in self._inbox.messages(wait_s, gather) if (run := self._take(message)) is not None]
        now, back = self._clock.monotonic(), list[_Key]()
        for key, outcome in self._inbox.ended():
            if isinstance(outcome, NotBegun):
                back.append(key)
            else:
                self._planner.finished(now, key, outcome, was_run=outcome is None or outcome.was_run)
        if back:
            self._planner.withdrawn(now, back, self._lease.info.id)
        for run in stuck:  # last: its end may have been right behind
            self._stuck(run)

    def _take(self, message: Message) -> Runnable | None:
        """Take in one thing that has happened. Answers a run that is said to be stuck."""
        now = self._clock.monotonic()
        match message:
            case None:
                self._planner.rang(now)
            case int():
                self._planner.shutdown.stop(now, message, "stopped")
            case HeartbeatResult():
                self._beat(now, message)
            case RoundTrip():
                self._answered(message)
            case Unplaced():
                self._begin_here(now, message.run)
            case _:
                return message
        return None

    def _stuck(self, run: Runnable) -> None:
        now = self._clock.monotonic()
        if self._timeouts.has_another(run) or self._withdraw([run.key]):  # it lay ready, and this loop was held up
            return
        outcome = run.cut(ended=False, exit_bound=self._planner.limits.exit_bound_s)
        if isinstance(outcome, NotBegun):  # its thread or its child has not come to it, and will say so
            return
        self._executors.give_up()
        if self._planner.finished(now, run.key, outcome):  # else it has ended just now, after all
            self._planner.shutdown.stuck(now, self._stuck_runs.get(run.key, now + self._planner.limits.exit_bound_s))

    def _begin_here(self, now: float, run: Run) -> None:
        """Run in this process what no child can run, as it turns out. A suspect beside another one goes back."""
        self._timeouts.remove(run.key)
        if run.cut_by:
            self._report(run.key, run.cut())
        elif run.claimed.reclaims >= LOST_WORKERS_MAX:
            self._planner.finished(now, run.key, _given_up(run.claimed), was_run=False)
        elif run.claimed.reclaims >= SUSPECT_RECLAIMS and self._planner.holds_another_suspect(run.key):
            self._planner.finished(now, run.key, released(run.claimed, "suspect"), was_run=False)
        else:
            again = copy(run)  # a sweep may be about to cut the one in the child
            again.began_at = -math.inf
            self._start_here(again, run.timeout)

    def _beaten(self, beat: HeartbeatResult) -> None:
        """Called by the heartbeat thread: what the claim loop hears when it listens, exclusive runs must hear now."""
        if beat.is_lost:
            self._validity.lost(beat.worker)
        elif beat.reply is not None:
            self._validity.good_beat(beat.worker, beat.sent_at)
        self._inbox.put(beat)

    def _beat(self, now: float, beat: HeartbeatResult) -> None:
        if beat.is_lost:
            if beat.worker == self._lease.info.id:  # not heard of from a claim's answer before
                self._lost_lease(now)
        elif beat.reply is None:
            self._planner.watch.missed_beat()
            if self._planner.watch.in_doubt and beat.sent_at > self._answered_at:  # else an answer has come since
                self._outages.missed(self._lease.info.id, None)
        else:
            self._planner.watch.good_beat(now, beat.sent_at, beat.reply, self._maintenance.jitter())
            for fence in beat.reply.cancels:
                self._cancel((fence.id, fence.claim_seq))

    def _cancel(self, key: _Key) -> None:
        """A person wants this run to end: stop it, or settle it if it has not begun. A plain function is only told."""
        self._withdraw([key])
        if (waiting := self._planner.cancel_waiting(key)) is not None:
            outcome = unrun(waiting, Verb.CANCEL, reason="cancelled before it ran")
            self._planner.finished(self._clock.monotonic(), key, outcome, was_run=False)
        else:
            self._timeouts.cancel(key)

    def _lost_lease(self, now: float) -> None:
        """Others may have our jobs: drop what was not started, become a new worker. Results are sent all the same."""
        _log.error("worker %s: the lease is gone; its jobs run again elsewhere, starting afresh", self._lease.info.id)
        self._validity.lost(self._lease.info.id)
        self._withdraw(self._planner.running_jobs())
        self._planner.lease_lost(now)
        try:
            self._lease.renew_identity()
            self._validity.good_beat(self._lease.info.id, self._lease.watch.last_good_at)
        except ProtojobsError as error:  # also a password that was changed
            self._no_answer((), error)

    def _keep_up(self) -> None:
        """Reclaim and prune when it is time; stop when the memory limit is passed."""
        now = self._clock.monotonic()
        try:
            if not self._planner.is_quiet(now):
                self._maintenance.turn(now, may_write=self._planner.shutdown.has_time)
        except DriverError as error:
            self._no_answer((), error)
        self._look_at_memory(now)

    def _look_at_memory(self, now: float) -> None:
        has_run = self._planner.runs > 0
        if self._planner.shutdown.level == 0 and self._maintenance.is_memory_exceeded(now, has_run=has_run):
            self._planner.shutdown.drain("memory")

    def _send(self, event: Event) -> None:
        if self._hooks.listens(event.event_name):
            self._dispatcher.send(event)

    def _report(self, key: _Key, outcome: Outcome | NotBegun | None) -> None:
        """Called by the executors' threads: that a run has ended is known whatever holds the claim loop up."""
        self._timeouts.remove(key)
        if self._stuck_runs:
            self._forget_stuck(key)
        self._inbox.put_ended(key, outcome)

    def _is_stuck(self, run: Runnable) -> None:
        """Called by the thread that ends runs, for one that does not end. By when this process must be gone is told
        here: the claim loop may be held up in a call to a store that does not answer.
        """
        now = self._clock.monotonic()
        if run.began_at > -math.inf:
            gone_by = now + self._planner.limits.exit_bound_s  # its retry may be due then
            if run.exclusive_holder:
                gone_by = min(gone_by, max(self._validity.gone_by(run.exclusive_holder), now + LAST_WORDS_S))
            with self._stuck_lock:
                self._stuck_runs[run.key] = gone_by
                self._must_end_by(min(self._stuck_runs.values()))
            if not self._timeouts.has(run):  # it has ended just now
                self._forget_stuck(run.key)
        self._inbox.put(run)

    def _forget_stuck(self, key: _Key) -> None:
        with self._stuck_lock:
            if self._stuck_runs.pop(key, None) is not None:
                self._must_end_by(min(self._stuck_runs.values(), default=math.inf))


def _given_up(claimed: ClaimedJob) -> Outcome:
    error = JobCrashed(
        f"{claimed.reclaims} workers died while they had the job, and it is not run again. No child process can run it,"
        " so it would take the next worker along."
    )
    return unrun(claimed, Verb.FAIL, exception=error)
