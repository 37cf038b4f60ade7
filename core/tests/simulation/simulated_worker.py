"""What worker.py does with threads, done step by step: the claim loop, the heartbeats, the runs, the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from faults.history import End, Fault
from faults.history import Run as Seen
from protojobs.errors import LeaseLost, StoreUnavailable
from protojobs.hooks import Hooks
from protojobs.jobs.definition import JobDefinition, Registry
from protojobs.jobs.options import JobOptions
from protojobs.jobs.returns import Snooze
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, ClaimReply, Fence, Heartbeat, Reclaimed, WorkerInfo
from protojobs.worker.handover import HANDOVER_WAIT_S
from protojobs.worker.lease.lease import BEATS_PER_LEASE, HeartbeatResult
from protojobs.worker.lease.watch import LeaseWatch
from protojobs.worker.outcome import Outcome
from protojobs.worker.planner import Plan as Turn
from protojobs.worker.planner import Planner, WorkLimits
from protojobs.worker.round_trip import RoundTrip
from protojobs.worker.runs.executor import NOT_BEGUN, NotBegun
from protojobs.worker.runs.run import Run, prepare, unrun
from protojobs.worker.runs.timeouts import END_S

from .scheduler import Call, Party, Steps

if TYPE_CHECKING:
    from .world import World

__all__ = ["LEASE_S", "SHORT", "Active", "SimulatedWorker"]

LEASE_S = 6.0
BEAT_S = LEASE_S / BEATS_PER_LEASE
PATIENCE_S = 4.0  # of the claim loop with the store
GRACE_S, EXIT_BOUND_S = 4.0, 5.0
COMPARE_S = 5.0  # between two comparisons of what this worker holds
SNOOZE_S = 1.0
HOOKS = Hooks()
REGISTRY = Registry()
SHORT = "short"  # jobs of this name may lead
for _name in ("sim", SHORT):
    REGISTRY.add(JobDefinition(_name, lambda: None, JobOptions()))

_Key = tuple[str, int]


@dataclass
class Active:
    """A run that has begun."""

    run: Run
    seen: Seen
    is_given_up: bool = False  # counts as stuck: nobody waits for its end
    is_forked: bool = False  # a copy of its process answers too, some time after it has ended


class SimulatedWorker(Party):
    """One worker process."""

    planner_class = Planner

    def __init__(self, world: World, name: str, queues: Sequence[str]) -> None:
        super().__init__()
        self.world = world
        self.name = name
        self.queues = queues
        self.generation = 0
        self.stopping_since: float | None = None
        self.draining_since: float | None = None
        self.starved_until = 0.0  # its heartbeats wait for something within its process
        self._stopped_as = 0  # the generation that was told to
        self.active: dict[_Key, Active] = {}
        self.ready: dict[_Key, Run] = {}  # handed over before a slot is free
        self._inbox: deque[object] = deque()

    @property
    def id(self) -> str:
        return f"{self.name}.{self.generation}"

    @property
    def is_stopping(self) -> bool:
        return self.stopping_since is not None or self.draining_since is not None

    @property
    def is_at_work(self) -> bool:
        return self.generation > 0 and not self.is_dead

    def begin(self) -> None:
        world = self.world
        self.watch = self.make_watch()
        limits = WorkLimits(
            concurrency=world.dice.choice((1, 2, 3)),
            poll_s=1.0,
            grace_s=GRACE_S,
            exit_bound_s=EXIT_BOUND_S,
            trips_max=world.dice.choice((1, 2)),
        )
        self.planner = self.planner_class(
            limits,
            self.watch,
            world.now,
            lambda s: s * world.dice.uniform(0.8, 1.2),
            line_of=lambda name: "threads" if name == SHORT else None,
            has_child=lambda name: False,
        )
        self._compare_at = world.now + COMPARE_S
        self._main = world.spawn(self, self._start())

    def make_watch(self) -> LeaseWatch:
        return LeaseWatch(LEASE_S)

    # ------------------------------------------------------------------------------------------------ done from outside

    def ring(self) -> None:
        """The doorbell."""
        if self.is_at_work:
            self.put(None)

    def stop(self) -> None:
        """Ask for a planned stop; half the time a second one follows, for a quick end."""
        self.stopping_since, self._stopped_as = self.world.now, self.generation
        self.world.hire()
        self.world.at(self.world.now, lambda: self.put(1), self)
        if self.world.dice.random() < 0.5:
            self.world.at(self.world.now + self.world.dice.uniform(0.1, GRACE_S), lambda: self.put(2), self)

    def drain(self) -> None:
        """A limit of its own is passed: it ends once its runs are done."""
        self.draining_since = self.world.now
        self.world.hire()
        self.planner.shutdown.drain("memory")

    def fork(self) -> None:
        """A job that runs here forks, and its copy goes on."""
        if self.active:
            self.world.dice.choice(list(self.active.values())).is_forked = True

    def die(self, how: str, *, since: float) -> None:
        """The process ends, and whatever runs in it."""
        self.is_dead = True
        faults = self.world.history.faults
        faults.append(Fault(how, since, self.world.now, self.id))
        if self.stopping_since is not None:  # what it was before it lost a lease meanwhile has stopped too
            since_then = range(self._stopped_as, self.generation + (how == "kill"))
            faults += [Fault("stop", self.stopping_since, self.world.now, f"{self.name}.{each}") for each in since_then]
        for active in self.active.values():
            active.seen.ended, active.seen.end = self.world.now, End.CUT
        self.active.clear()
        self.ready.clear()

    def put(self, message: object) -> None:
        """Into the inbox, and wake the claim loop."""
        self._inbox.append(message)
        self._main.wake()

    # --------------------------------------------------------------------------------------------------- the claim loop

    def _start(self) -> Steps:
        while self.generation == 0 or not self._is_registered:
            yield from self._renew_identity()
        self.world.spawn(self, self._beat())
        while (turn := self.planner.plan(self.world.now)).ended is None:
            talks = bool(turn.settle or turn.limit)
            goes_on = talks and turn.goes_on and not self.planner.trips.is_unsure
            if goes_on:
                self.planner.trips.sent(turn)
                self.world.spawn(self, self._send_trip(RoundTrip(turn, self.id, self.queues)))
            self._hand_out(turn)
            if talks and not goes_on:
                yield from self._make_trip(turn)
            if not self.world.now < self.planner.quiet_until:
                yield from self._maintain()
            yield from self._wait(0.0 if talks else turn.wait_s)
        if turn.settle:
            yield from self._make_trip(turn)
        yield from self._leave()

    def _hand_out(self, turn: Turn) -> None:
        for claimed in turn.start:
            self.hand_over(claimed, leads=claimed.job_name in turn.short and not claimed.reclaims)
        if turn.cut_all:
            for run in self.ready.values():
                run.cut_by = run.cut_by or "shutdown"
            for active in self.active.values():
                self._interrupt(active, "shutdown")
        if turn.withdraw:
            self.withdraw(list(self.ready))

    def _make_trip(self, turn: Turn) -> Steps:
        trip = RoundTrip(turn, self.id, self.queues, asks_held=self.planner.trips.is_unsure)
        yield from self._make(trip)
        yield from self._apply_reply(trip)

    def _send_trip(self, trip: RoundTrip) -> Steps:
        yield from self._make(trip)
        self.put(trip)

    def _make(self, trip: RoundTrip) -> Steps:
        store, worker, turn = self.world.store, trip.worker, trip.plan
        sent = [outcome.settlement for outcome in turn.settle]
        try:
            if trip.asks_held:
                trip.held = cast("list[ClaimedJob]", (yield Call(lambda: store.held(worker), PATIENCE_S)))
            answer = yield Call(
                lambda: store.settle_and_claim(worker, sent, trip.queues, slots=turn.slots, limit=turn.limit),
                PATIENCE_S,
            )
            trip.reply = cast("ClaimReply", answer)
        except StoreUnavailable as error:
            trip.error = error

    def _apply_reply(self, trip: RoundTrip) -> Steps:
        world, turn, reply = self.world, trip.plan, trip.reply
        if trip.held is not None:
            self.planner.adopted(world.now, trip.held)
            self.planner.trips.is_unsure = False
        if trip.error is not None:
            self.planner.trips.is_unsure = True
            self.planner.store_failed(world.now)
            return
        self.planner.settled(turn.settle)
        if trip.worker != self.id:
            return
        if reply.lease_lost:
            yield from self._become_new_worker()
        elif turn.limit:
            self.planner.claimed(world.now, turn, reply.claimed)

    def _wait(self, wait_s: float) -> Steps:
        if not self._inbox:
            yield max(wait_s, 0.001)  # a real loop cannot turn in no time
        stuck: list[Active] = []
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, Active):
                stuck.append(message)  # later: the news that it has ended after all may be in here too
            else:
                yield from self._apply_message(message)
        for active in stuck:
            self._stuck(active)

    def _apply_message(self, message: object) -> Steps:
        now = self.world.now
        match message:
            case None:
                self.planner.wake(now)
            case int():
                self.planner.shutdown.stop(now, message, "stopped")
            case HeartbeatResult():
                yield from self._heard(message)
            case RoundTrip():
                self.planner.trips.returned(message.plan)
                yield from self._apply_reply(message)
            case (key, NotBegun()):
                self.planner.withdrawn(now, [cast("_Key", key)], self.id)
            case (key, outcome):
                self.planner.finished(now, cast("_Key", key), cast("Outcome", outcome))

    def _heard(self, beat: HeartbeatResult) -> Steps:
        if beat.is_lost:
            if beat.worker == self.id:
                yield from self._become_new_worker()
        elif beat.reply is None:
            self.watch.missed_beat()
        else:
            self.watch.good_beat(self.world.now, beat.sent_at, beat.reply, self._jitter())
            for fence in beat.reply.cancels:
                self._cancel(fence)

    def _maintain(self) -> Steps:
        world, worker = self.world, self.id
        try:
            if self.planner.shutdown.has_time and self.watch.may_reclaim(world.now):
                until = self.watch.reclaim_until
                taken = cast("Reclaimed", (yield Call(lambda: world.reclaim(until), PATIENCE_S)))
                self.watch.reclaimed(world.now, taken.others_end_in, taken.has_more, self._jitter())
            if world.now >= self._compare_at:
                self._compare_at = world.now + COMPARE_S
                held = yield Call(lambda: world.store.held(worker), PATIENCE_S)
                self.planner.compared(world.now, cast("list[ClaimedJob]", held))
        except StoreUnavailable:
            self.planner.store_failed(world.now)

    def _leave(self) -> Steps:
        worker = self.id
        try:
            yield Call(lambda: self.world.store.leave(worker), PATIENCE_S)
        except StoreUnavailable:
            pass  # the row lapses by itself
        self.world.history.exits[worker] = 0
        if self.stopping_since is None:
            self.die("drain", since=cast("float", self.draining_since))
        else:
            self.die("stop", since=self.stopping_since)

    # -------------------------------------------------------------------------------------------------------- the lease

    def _renew_identity(self) -> Steps:
        self.generation += 1
        self._is_registered = False
        info = WorkerInfo(
            id=self.id,
            host="sim",
            pid=1,
            queues=tuple(self.queues),
            concurrency=self.planner.limits.concurrency,
            lease_s=LEASE_S,
        )
        sent_at = self.world.now
        try:
            yield Call(lambda: self.world.register(info), PATIENCE_S)
        except StoreUnavailable:
            self.planner.store_failed(self.world.now)
            return
        self._is_registered = True
        self.watch.begin(sent_at)
        if self.world.now < self.starved_until:
            self.world.history.faults.append(Fault("starved", sent_at, self.starved_until, self.id))

    def _become_new_worker(self) -> Steps:
        self.withdraw(list(self.ready))
        self.planner.lease_lost(self.world.now)
        yield from self._renew_identity()

    def _beat(self) -> Steps:
        world = self.world
        while True:
            yield max(0.0, self.watch.next_beat_at - world.now)
            worker, sent_at = self.id, world.now
            while world.now < self.starved_until:
                yield self.starved_until - world.now
            try:
                reply = yield Call(lambda worker=worker: world.heartbeat(worker), BEAT_S)
                beat = HeartbeatResult(sent_at, cast("Heartbeat", reply))
            except LeaseLost:
                beat = HeartbeatResult(sent_at, is_lost=True, worker=worker)
            except StoreUnavailable:
                beat = HeartbeatResult(sent_at)
            self.watch.next_beat_at = max(sent_at + BEAT_S, world.now)
            self.put(beat)

    def _jitter(self) -> float:
        return self.world.dice.uniform(0, 0.5)

    # --------------------------------------------------------------------------------------------------------- the runs

    def hand_over(self, claimed: ClaimedJob, *, leads: bool) -> None:
        """To a thread; where there is none for it yet, it lies ready until one is free."""
        world = self.world
        run = prepare(claimed, REGISTRY, HOOKS, world.clock, lambda fence, share: None)
        if isinstance(run, Outcome):  # cancelled, lent too often, or a killer of workers: settled unrun
            self.planner.finished(world.now, (claimed.id, claimed.claim_seq), run, was_run=False)
            return
        if leads:
            run.begins_by = world.now + HANDOVER_WAIT_S
        if len(self.active) < self.planner.limits.concurrency:
            self.begin_run(run)
        else:
            self.ready[run.key] = run

    def withdraw(self, keys: list[_Key]) -> None:
        """Take back those of them that have not begun."""
        found = [key for key in keys if self.ready.pop(key, None) is not None]
        self.planner.withdrawn(self.world.now, found, self.id)

    def begin_run(self, run: Run) -> None:
        world, claimed = self.world, run.claimed
        run.began_at = world.now
        seen = Seen(claimed.id, claimed.claim_seq, claimed.attempts, claimed.reserved_by, world.now)
        world.history.runs.append(seen)
        active = self.active[run.key] = Active(run, seen)
        world.at(world.now + world.plans[claimed.id].takes_s, lambda: self._end(active), self)

    def _slot_is_free(self) -> None:
        """Its thread takes what lies ready: begins it, or hands it back."""
        while self.ready and len(self.active) < self.planner.limits.concurrency:
            run = self.ready.pop(next(iter(self.ready)))
            if self.world.now > run.begins_by:
                self.put((run.key, NOT_BEGUN))
            elif run.cut_by:
                self.put((run.key, run.cut()))
            else:
                self.begin_run(run)

    def _end(self, active: Active, *, is_cut: bool = False) -> None:
        if self.active.pop(active.run.key, None) is None:
            return  # it was ended from outside
        plan, run, claimed = self.world.plans[active.run.claimed.id], active.run, active.run.claimed
        if is_cut or active.is_given_up:
            end, outcome = End.CUT, run.ended_outside()
        elif plan.snoozes and claimed.claim_seq == 1:
            end, outcome = End.SNOOZED, run.returned(Snooze(SNOOZE_S))
        elif claimed.attempts <= plan.fails:
            end, outcome = End.FAILED, run.raised(RuntimeError("as planned"))
        else:
            end, outcome = End.OK, run.returned(None)
        seen = active.seen
        seen.ended, seen.end, seen.again_in = self.world.now, end, outcome.settlement.delay
        if not active.is_given_up:
            self.put((run.key, outcome))
        if active.is_forked:
            self.world.at(
                self.world.now + self.world.dice.uniform(0, 2), lambda: self._answer_again(run.key, outcome), self
            )
        self._slot_is_free()

    def _answer_again(self, key: _Key, outcome: Outcome) -> None:
        """What the copy says arrives as the answer of the run that has the place of the first."""
        self.put((next(iter(self.active), key), outcome))

    def _interrupt(self, active: Active, why: str) -> None:
        """End it from outside, soon; one that does not listen counts as stuck after a while."""
        active.run.cut_by = active.run.cut_by or why
        if self.world.plans[active.run.claimed.id].is_deaf:
            self.world.at(self.world.now + END_S, lambda: self._give_up(active), self)
        else:
            ends_at = self.world.now + self.world.dice.uniform(0, END_S)
            self.world.at(ends_at, lambda: self._end(active, is_cut=True), self)

    def _stuck(self, active: Active) -> None:
        outcome = active.run.ended_outside(ended=False, exit_bound=EXIT_BOUND_S)
        if self.planner.finished(self.world.now, active.run.key, outcome):
            active.is_given_up = True
            self.planner.shutdown.stuck(self.world.now, self.world.now + EXIT_BOUND_S)

    def _give_up(self, active: Active) -> None:
        if active.run.key in self.active:
            self.put(active)

    def _cancel(self, fence: Fence) -> None:
        """A person wants it to end."""
        key = (fence.id, fence.claim_seq)
        self.withdraw([key])
        if (waiting := self.planner.cancel_waiting(key)) is not None:
            outcome = unrun(waiting, Verb.CANCEL, reason="cancelled before it ran")
            self.planner.finished(self.world.now, key, outcome, was_run=False)
        elif (active := self.active.get(key)) is not None and not active.run.cut_by:
            if not self.world.plans[fence.id].is_deaf:  # a plain function is only told, and this one does not ask
                self._interrupt(active, "cancel")
