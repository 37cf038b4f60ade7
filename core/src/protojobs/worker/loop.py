"""The claim loop of one worker: round trip, apply the reply, plan, start runs, wait; and from the beginning again.

It alone decides, by its planner. The threads around it carry round trips, run jobs, keep the lease and time runs; what
happens there arrives in one inbox.

While it waits there, the thread that hears of a job takes a turn in its place, so that the job changes threads once.
`_in_turn` is held by whoever is at a turn.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from protojobs import events
from protojobs.clock import within
from protojobs.entropy import jittered
from protojobs.errors import ContractBroken, DriverError, ProtojobsError
from protojobs.events import Event, JobProcessed, JobQueued, about
from protojobs.hooks.dispatcher import Dispatcher
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimReply, Settled, SettleStatus
from protojobs.runtime import Runtime
from protojobs.stopping import StopToken
from protojobs.worker.inbox import Inbox, Message
from protojobs.worker.lease.lease import HeartbeatResult, WorkerLease
from protojobs.worker.lease.maintenance import Maintenance
from protojobs.worker.lease.stay_to_reclaim import STAY_S, Staying
from protojobs.worker.lease.validity import LeaseValidity
from protojobs.worker.outcome import Outcome, WorkReport
from protojobs.worker.plan import Plan, WorkLimits
from protojobs.worker.planner import Planner
from protojobs.worker.queue_order import QueueOrder
from protojobs.worker.reports.announcements import announcement
from protojobs.worker.reports.health import Outages
from protojobs.worker.reports.joblog import is_told, log_event
from protojobs.worker.round_trip import RoundTrip, RoundTripThreads, settled_singly
from protojobs.worker.runs.executor import NotBegun, Runnable, Unplaced
from protojobs.worker.runs.placing import Executors
from protojobs.worker.runs.run import unrun
from protojobs.worker.runs.starting import RunStarter
from protojobs.worker.runs.stuck import StuckRuns
from protojobs.worker.runs.timeouts import END_S, Timeouts
from protojobs.worker.shutdown import LAST_CALL_S
from protojobs.worker.wakeup import WakeupThread

if TYPE_CHECKING:
    from protojobs.worker.kept_resources import Opened

__all__ = ["Worker"]

OBSERVERS_END_S = 5.0  # how long `work()` waits for observers before it returns
_log = logging.getLogger("protojobs.worker")

_Key: TypeAlias = tuple[str, int]


class Worker:
    """One `work()`: claims, runs and settles until its limits say that it is done."""

    def __init__(
        self,
        runtime: Runtime,
        order: QueueOrder,
        limits: WorkLimits,
        lease: WorkerLease,
        must_end_by: Callable[[float], None] = lambda _at: None,
        opened: Opened | None = None,
    ) -> None:
        """`must_end_by(moment)` is told by when this process must be gone: infinite once it need not any more.

        `opened`: the resources of its jobs.
        """
        self._driver, self._clock, self._hooks = runtime.driver, runtime.clock, runtime.hooks
        self._lease = lease
        self._order = order
        self._inbox = Inbox()
        self._validity = LeaseValidity(lease.info.lease_s)
        self._stuck = StuckRuns(self._validity, limits.exit_bound_s, must_end_by)
        self._timeouts = Timeouts(self._clock, self._validity, self._is_stuck)
        lease.run_bound.look_at(self._timeouts.left_s)
        lease.look_at(self._timeouts.keys)
        self._sender = RoundTripThreads(self._driver, self._inbox.put, limits.trips_max)
        self._wakeup = WakeupThread(self._driver, order, self._woken)
        self._in_turn = threading.Lock()  # of the loop, but while it waits: planner, starter and timeouts are its own
        self._dispatcher = Dispatcher(self._hooks)
        self._executors = Executors(runtime, limits.concurrency, opened, report=self._report, give_back=self._inbox.put)
        line_of, has_child = self._executors.line_of, self._executors.has_child
        self._planner = Planner(limits, lease.watch, self._clock.monotonic(), jittered, line_of, has_child)
        self._starter = RunStarter(
            runtime, lease, self._planner, self._executors, self._timeouts, self._report, self._send
        )
        self._maintenance = Maintenance(runtime, lease, order, self._send, self._planner.compared)
        self._staying = Staying(self._maintenance, lease.watch, lease.info.lease_s)
        self._outages = Outages(self._send)
        self._broken: BaseException | None = None  # by a turn of another thread
        self._done = self._failed = self._late = 0
        self._answered_at = 0.0
        self._unsure: set[_Key] = set()  # results whose settling got no reply

    def run(self, stop: StopToken) -> WorkReport:
        """Work until the end. Raises only what `DriverError`s at the start raise."""
        self._lease.resume()
        worker, slots = self._lease.info.id, self._planner.limits.concurrency
        self._validity.good_beat(worker, self._lease.watch.last_good_at)
        self._send(events.WorkerStarting(worker=worker, queues=self._order.told, concurrency=slots))
        unsubscribe = stop.subscribe(self._inbox.put)
        self._lease.start(self._on_heartbeat)
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

    def _loop(self) -> str:
        self._in_turn.acquire()  # for good: after the end nobody takes a turn
        self._look_at_memory(self._clock.monotonic())  # before the first claim: it may be too much without any job
        while self._broken is None:
            now = self._clock.monotonic()
            self._lease.health.turns(now, self._planner.running, self._answered_at)
            plan = self._planner.plan(now)
            if plan.ended is not None:
                if self._stays(now, plan.ended):
                    continue
                self._make_last_trip(plan)
                return plan.ended
            has_trip = self._carry_out(plan)
            self._maintain()
            # Last, so that the next plan knows of what happened meanwhile.
            self._wait(0.0 if has_trip else plan.wait_s, plan.gather)
        raise self._broken

    def _carry_out(self, plan: Plan) -> bool:
        """Do what the plan says. Whether it had a round trip: then there may be more to do at once."""
        has_trip = bool(plan.settle or plan.limit)
        goes_on = has_trip and plan.goes_on and not self._planner.trips.is_unsure
        if goes_on:
            trip = RoundTrip(plan, self._lease.info.id, self._order.next())
            self._sender.send(trip, beside=self._planner.trips.count)
            self._planner.trips.sent(plan)
        if plan.start:
            self._starter.start(plan)
        self._starter.start_failed_calls()
        if plan.cut_all or plan.withdraw:
            self._end_runs(plan)
        if has_trip and not goes_on:
            self._make_trip(plan)
        elif plan.is_idle and not (has_trip or self._planner.limits.ends_when_empty):
            self._wakeup.listen()
        return has_trip

    def _woken(self) -> None:
        """Called by the thread that waits for jobs: one may be due. While the loop waits, this thread claims it."""
        if not self._in_turn.acquire(blocking=False):
            self._inbox.put(None)
            return
        try:
            self._planner.wake(self._clock.monotonic())
            for _ in ("claim", "start"):
                plan = self._planner.plan(self._clock.monotonic())
                if plan.ended is not None or not self._carry_out(plan):
                    return
        except BaseException as error:  # noqa: BLE001  (raised again by the claim loop)
            self._broken = error
        finally:
            self._in_turn.release()
        self._inbox.look()  # there is more to do

    def _end_runs(self, plan: Plan) -> None:
        if plan.cut_all:
            self._timeouts.cut(None, "shutdown")
        if plan.withdraw:
            self._starter.withdraw(self._planner.running_jobs())

    @property
    def signs_off(self) -> bool:
        """Not where a run that goes on needs the lease, nor where the last round trip got no reply."""
        return not (self._planner.trips.is_unsure or (self.is_busy and self._planner.has_unsettled))

    @property
    def closing_s(self) -> float:
        """How long the resources of its jobs may take to close: no longer than the grace, nor than a stop may take."""
        grace_s = max(self._planner.limits.grace_s, LAST_CALL_S)
        return min(grace_s, self._planner.shutdown.call_s(self._clock.monotonic()))

    @property
    def is_busy(self) -> bool:
        """Whether a run of it goes on, though it has ended."""
        return bool(self._planner.running or self._stuck.runs)

    def _left_s(self) -> float:
        """How long whatever follows the loop may take: a process that must be gone waits for nobody beyond that."""
        return self._planner.shutdown.left_s(self._clock.monotonic())

    def _stays(self, now: float, reason: str) -> bool:
        if not self._staying.is_needed(now, reason, ends_when_empty=self._planner.limits.ends_when_empty):
            return False
        self._planner.stay(now + STAY_S)
        return True

    def _cut_short(self) -> None:
        """This call is left by an exception: its runs must not outlive it, with nobody to end them or to tell how.

        They are cut as at the end of a grace, and what they came to is sent once. Raises no Exception.
        """
        began = self._clock.monotonic()
        self._planner.shutdown.stop(began, 2, "stopped")
        self._timeouts.cut(None, "shutdown")
        try:
            while self._planner.running and (left_s := began + END_S - self._clock.monotonic()) > 0:
                self._wait(left_s, 1)
            self._starter.withdraw(self._planner.running_jobs())
            if (plan := self._planner.plan(self._clock.monotonic())).settle and not self._planner.trips.count:
                with within(LAST_CALL_S):
                    self._make_trip(plan)
        except Exception:  # noqa: BLE001  (most likely what has ended the loop; that one is raised)
            _log.exception("what runs were cut to could not be told; their jobs go back when the lease has ended")

    def _make_last_trip(self, plan: Plan) -> None:
        if plan.settle:
            self._make_trip(plan)
        self._planner.trips.is_unsure |= self._planner.trips.count > 0  # one that takes too long may have brought jobs

    def _make_trip(self, plan: Plan) -> None:
        """Settle and claim in one round trip, and wait for the reply."""
        is_unsure = self._planner.trips.is_unsure
        trip = RoundTrip(plan, self._lease.info.id, self._order.next(), asks_held=is_unsure)
        trip.make(self._driver)
        self._apply_reply(trip)

    def _apply_reply(self, trip: RoundTrip) -> None:
        now, plan, reply = self._clock.monotonic(), trip.plan, trip.reply
        if trip.held is not None:
            self._planner.adopted(now, trip.held)
            self._planner.trips.is_unsure = False
        if trip.error is not None:
            self._apply_error(plan, trip.error)
            return
        self._apply_settled(now, plan, reply)
        if trip.worker != self._lease.info.id:
            return  # what was lent to a lost lease is others' by now
        if reply.lease_lost:
            self._become_new_worker(now)
        elif plan.limit:
            self._planner.claimed(now, plan, reply.claimed)
            if self._order.takes_turns:
                self._order.lent(reply.claimed)

    def _apply_error(self, plan: Plan, error: BaseException) -> None:
        if isinstance(error, ContractBroken) and plan.settle:  # refused whole: nothing was settled, and nothing lent
            _log.error("the store refuses a result, sending them one by one: %s", error)
            self._settle_singly(plan)
        elif isinstance(error, ProtojobsError):  # also a password that was changed: what runs here is not lost for that
            self._planner.trips.is_unsure = True  # it may have been done all the same
            self._no_reply(plan.settle, error)
        else:
            raise error

    def _apply_settled(self, now: float, plan: Plan, reply: ClaimReply) -> None:
        """The store has the results."""
        self._answered_at = now
        if self._outages.is_away:
            self._outages.over()
        self._planner.settled(plan.settle)
        if self._lease.rollups.is_on:
            self._lease.rollups.took(now, reply, plan.settle)
        if plan.settle:
            tells_all = self._unsure or is_told(self._hooks, JobProcessed)
            for answer, outcome in zip(reply.settled, plan.settle, strict=True):
                is_done = answer.state is JobState.COMPLETED and answer.status is not SettleStatus.STALE
                if tells_all or not is_done or outcome.settlement.then:
                    self._tell_result(answer, outcome)
                else:
                    self._done += 1

    def _settle_singly(self, plan: Plan) -> None:
        """Settle each result by itself, so that one which the store cannot take does not hold up the others."""
        for outcome in plan.settle:
            try:
                settled = settled_singly(self._driver, outcome)
            except ProtojobsError as error:
                self._no_reply([outcome], error)
                return
            if settled is not None:
                attempt, answer = settled
                self._lease.rollups.took(self._clock.monotonic(), ClaimReply(settled=(answer,)), [attempt])
                self._tell_result(answer, attempt)
            self._planner.dropped(outcome)

    def _no_reply(self, sent: Sequence[Outcome], error: ProtojobsError) -> None:
        """These may be settled, or not."""
        self._unsure.update((outcome.settlement.id, outcome.settlement.claim_seq) for outcome in sent)
        # A claim that breaks the contract counts too: a corrupt row must not end the worker.
        self._outages.missed(self._lease.info.id, error)
        self._planner.store_failed(self._clock.monotonic())

    def _tell_result(self, answer: Settled, outcome: Outcome) -> None:
        """The store has the result: tell observers, and the job itself if it has failed for good."""
        key = (outcome.claimed.id, outcome.claimed.claim_seq)
        is_unsure = key in self._unsure
        self._unsure.discard(key)
        late_s = 0.0
        if answer.status is SettleStatus.STALE:
            if is_unsure:
                return  # the call that got no reply had stored it, and the job has moved on since
            self._late += outcome.settlement.verb is not Verb.RELEASE
            late_s = self._clock.monotonic() - self._validity.sure_at(outcome.claimed.reserved_by)
        elif answer.state is JobState.COMPLETED:
            self._done += 1
        elif answer.state is JobState.FAILED:
            self._failed += 1
            self._starter.call_failed(outcome)
        event = announcement(outcome, answer, late_s=late_s)
        log_event(event)
        self._send(event)
        if outcome.settlement.then and event.event_name == JobProcessed.event_name:
            for job in outcome.settlement.then:
                self._send(about(JobQueued, job))

    def _wait(self, wait_s: float, gather: int) -> None:
        """Take in all that has happened; with nothing wait up to `wait_s`, or for so many ends of runs."""
        stuck = list[Runnable]()
        for message in self._inbox.messages(wait_s, gather, self._in_turn):
            if message is None:
                self._planner.wake(self._clock.monotonic())
            elif (run := self._apply_message(message)) is not None:
                stuck.append(run)
        now, back = self._clock.monotonic(), list[_Key]()
        for key, outcome in self._inbox.ended():
            if isinstance(outcome, NotBegun):
                back.append(key)
            else:
                self._planner.finished(now, key, outcome, was_run=outcome is None or outcome.was_run)
        if back:
            self._planner.withdrawn(now, back, self._lease.info.id)
        for run in stuck:  # last: its end may have been right behind
            self._apply_stuck(run)

    def _apply_message(self, message: Message) -> Runnable | None:
        """Take in one thing that has happened. Returns a run that is said to be stuck."""
        now = self._clock.monotonic()
        match message:
            case None:
                self._planner.wake(now)
            case int():
                self._planner.shutdown.stop(now, message, "stopped")
                self._timeouts.tell_stopping()
            case HeartbeatResult():
                self._apply_heartbeat(now, message)
            case RoundTrip():
                self._planner.trips.returned(message.plan)
                self._apply_reply(message)
            case Unplaced():
                self._starter.start_unplaced(now, message.run)
            case _:
                return message
        return None

    def _apply_stuck(self, run: Runnable) -> None:
        now = self._clock.monotonic()
        if self._timeouts.has_another(run) or self._starter.withdraw([run.key]):
            return  # it lay ready, and this loop was held up
        outcome = run.cut(ended=False, exit_bound=self._planner.limits.exit_bound_s)
        if isinstance(outcome, NotBegun):  # its thread or its child has not come to it, and will say so
            return
        self._executors.give_up()
        if self._planner.finished(now, run.key, outcome):  # else it has ended just now, after all
            self._planner.shutdown.stuck(now, self._stuck.gone_by(now, run.key))

    def _apply_heartbeat(self, now: float, result: HeartbeatResult) -> None:
        watch = self._planner.watch
        if result.is_lost:
            if result.worker == self._lease.info.id:  # not heard of from a claim's reply before
                self._become_new_worker(now)
        elif result.reply is None:
            watch.missed_beat()
            if watch.in_doubt and result.sent_at > self._answered_at:  # else a reply has come since
                self._outages.missed(self._lease.info.id, None)
        else:
            watch.good_beat(now, result.sent_at, result.reply, self._maintenance.jitter())
            for fence in result.reply.cancels:
                self._cancel((fence.id, fence.claim_seq))

    def _cancel(self, key: _Key) -> None:
        """A person wants this run to end: stop it, or settle it if it has not begun. A plain function is only told."""
        self._starter.withdraw([key])
        if (waiting := self._planner.cancel_waiting(key)) is not None:
            outcome = unrun(waiting, Verb.CANCEL, reason="cancelled before it ran")
            self._planner.finished(self._clock.monotonic(), key, outcome, was_run=False)
        else:
            self._timeouts.cancel(key)

    def _become_new_worker(self, now: float) -> None:
        """The lease is lost, and others may have our jobs: drop what was not started. Results are sent all the same."""
        _log.error("worker %s: the lease is gone; its jobs run again elsewhere, starting afresh", self._lease.info.id)
        self._validity.lost(self._lease.info.id)
        self._starter.withdraw(self._planner.running_jobs())
        self._planner.lease_lost(now)
        try:
            self._lease.renew_identity()
            self._validity.good_beat(self._lease.info.id, self._lease.watch.last_good_at)
        except ProtojobsError as error:  # also a password that was changed
            self._no_reply((), error)

    def _maintain(self) -> None:
        """Reclaim and prune when it is time; stop when the memory limit is passed."""
        now, shutdown = self._clock.monotonic(), self._planner.shutdown
        try:
            if now >= self._planner.quiet_until:
                self._maintenance.turn(now, may_write=not shutdown.level or shutdown.has_time)
        except DriverError as error:
            self._no_reply((), error)
        if self._maintenance.max_memory:
            self._look_at_memory(now)

    def _look_at_memory(self, now: float) -> None:
        has_run = self._planner.runs > 0
        if self._planner.shutdown.level == 0 and self._maintenance.is_memory_exceeded(now, has_run=has_run):
            self._planner.shutdown.drain("memory")

    def _send(self, event: Event) -> None:
        if self._hooks.listens(event.event_name):
            self._dispatcher.send(event)

    def _on_heartbeat(self, result: HeartbeatResult) -> None:
        """Called by the heartbeat thread: what the claim loop hears when it waits, exclusive runs must hear now."""
        if result.is_lost:
            self._validity.lost(result.worker)
        elif result.reply is not None:
            self._validity.good_beat(result.worker, result.sent_at)
        self._inbox.put(result)

    def _report(self, key: _Key, outcome: Outcome | NotBegun | None) -> None:
        """Called by the executors' threads: that a run has ended is known whatever holds the claim loop up."""
        self._timeouts.remove(key)
        if self._stuck.runs:
            self._stuck.remove(key)
        self._inbox.put_ended(key, outcome)

    def _is_stuck(self, run: Runnable) -> None:
        """Called by the thread that times runs, for one that does not end. By when this process must be gone is told
        here: the claim loop may be held up in a call to a store that does not answer.
        """
        if run.began_at > float("-inf"):
            self._stuck.add(self._clock.monotonic(), run)
            if not self._timeouts.has(run):  # it has ended just now
                self._stuck.remove(run.key)
        self._inbox.put(run)
