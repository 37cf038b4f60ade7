"""A seeded world: simulated workers, with the product's own decisions, on a memory store under a virtual clock.

One seed gives one history, exactly. Workers are killed, frozen past their lease, cut off from the store before or after
a call took effect; all share one event queue, in which the seed also picks the order of things that happen at once.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from protojobs._decisions import Decisions, Plan, WorkLimits
from protojobs._execution import prepare
from protojobs._lease_watch import LeaseWatch
from protojobs.definitions import JobDefinition, Registry
from protojobs.errors import LeaseLost
from protojobs.hooks import Hooks
from protojobs.lifecycle import Verb
from protojobs.options import JobOptions
from protojobs.outcomes import Outcome, settlement
from protojobs.records import ClaimedJob, NewJob, Reclaimed, WorkerInfo
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver

LEASE_S = 6.0
QUEUES = ("high", "low")
HOOKS = Hooks()
REGISTRY = Registry()
REGISTRY.add(JobDefinition("sim", lambda: None, JobOptions()))


@dataclass
class RunNote:
    """One run, as the outside world saw it."""

    job: ClaimedJob
    worker: str
    started_at: float
    ended_at: float | None = None  # None: killed in the middle
    wish: Verb | None = None


@dataclass
class History:
    """What happened, for the checker."""

    pushed: dict[str, NewJob] = field(default_factory=dict)
    due_at: dict[str, float] = field(default_factory=dict)
    runs: list[RunNote] = field(default_factory=list)
    lost_leases: dict[str, float] = field(default_factory=dict)  # worker -> when the store ended its lease
    faults: int = 0


class World:
    """The event queue, the dice, the store."""

    def __init__(self, seed: int, *, jobs: int = 40, workers: int = 3) -> None:
        self.dice = random.Random(seed)
        self.clock = ManualClock()
        self.store = MemoryDriver(clock=self.clock)
        self.history = History()
        self.workers: list[SimulatedWorker] = []
        self.may_fail = True
        self._events: list[tuple[float, float, Callable[[], None]]] = []
        self._jobs = jobs
        for _ in range(workers):
            self.hire()

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def at(self, time: float, act: Callable[[], None]) -> None:
        """Do `act` at that time; the dice break ties."""
        heapq.heappush(self._events, (max(time, self.now), self.dice.random(), act))

    def hire(self) -> None:
        worker = SimulatedWorker(self, f"w{len(self.workers)}")
        self.workers.append(worker)
        self.at(self.now + self.dice.uniform(0, 1), worker.begin)

    def run(self, faults_until: float = 60.0, limit: float = 600.0) -> History:
        """Push and break things until `faults_until`, then let it come to rest."""
        for number in range(self._jobs):
            self.at(self.dice.uniform(0, faults_until), lambda number=number: self.push(number))
        self.at(self.dice.uniform(2, 8), self._fault)
        self.at(faults_until, self._calm)
        while self._events and self.now < limit:
            time, _, act = heapq.heappop(self._events)
            self.clock.advance(max(0.0, time - self.now))
            act()
            if self.now > faults_until and self._is_at_rest():
                break
        return self.history

    def _is_at_rest(self) -> bool:
        stats = self.store.stats()
        return len(self.history.pushed) >= self._jobs > 0 and stats.pending == stats.processing == 0

    def push(self, number: int, *, takes_s: float | None = None) -> None:
        """Push one job; `takes_s` None leaves its duration and its fate to the dice."""
        new = NewJob(
            id=f"job-{number:04}",
            queue=self.dice.choice(QUEUES),
            job_name="sim",
            job_class="sim",
            data="{}",
            priority=self.dice.choice((0, 0, 5)),
            max_retries=3,
            retry_delay=1.0,
            delay=0.0 if takes_s else self.dice.choice((0.0, 0.0, 3.0)),
            meta=None if takes_s is None else str(takes_s),
        )
        self.store.enqueue([new])
        self.history.pushed[new.id] = new
        self.history.due_at[new.id] = self.now + new.delay
        for worker in self.workers:
            worker.ring()

    def _fault(self) -> None:
        if not self.may_fail:
            return
        self.history.faults += 1
        worker = self.dice.choice([w for w in self.workers if not w.is_dead])
        match self.dice.choice(("kill", "freeze", "cut off", "lose answers")):
            case "kill":
                worker.is_dead = True
                self.hire()
            case "freeze":
                worker.frozen_until = self.now + self.dice.uniform(0.5, 3 * LEASE_S)
            case "cut off":
                worker.cut_off_until = self.now + self.dice.uniform(0.5, 2 * LEASE_S)
            case _:
                worker.answers_lost = self.dice.randint(1, 3)
        self.at(self.now + self.dice.uniform(2, 8), self._fault)

    def _calm(self) -> None:
        self.may_fail = False


class SimulatedWorker:
    """What worker.py does with threads, done step by step."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.generation = 0
        self.is_dead = False
        self.frozen_until = 0.0
        self.cut_off_until = 0.0
        self.answers_lost = 0
        self._unknown = False
        self._turn = 0

    @property
    def id(self) -> str:
        return f"{self.name}.{self.generation}"

    def begin(self) -> None:
        self.watch = LeaseWatch(LEASE_S)
        limits = WorkLimits(concurrency=2, poll_s=1.0, grace_s=5.0, exit_bound_s=5.0)
        self.decide = Decisions(limits, self.watch, self.world.now, lambda s: s * self.world.dice.uniform(0.8, 1.2))
        self._register()
        self._beat()
        self._step()

    def ring(self) -> None:
        if hasattr(self, "decide"):
            self._soon(lambda: self.decide.rang(self.world.now))

    def _soon(self, act: Callable[[], None], delay: float = 0.0) -> None:
        """Do it when awake, if still alive, and then think."""

        def awake() -> None:
            if self.is_dead:
                return
            if self.world.now < self.frozen_until:
                self.world.at(self.frozen_until + self.world.dice.uniform(0, 0.01), awake)
                return
            act()
            self._step()

        self.world.at(self.world.now + delay, awake)

    def _call(self, verb: Callable[[], object]) -> object:
        """A call to the store. It may not arrive, or its answer may be lost: both look the same from here."""
        if self.world.now < self.cut_off_until:
            raise ConnectionError
        answer = verb()
        if self.answers_lost:
            self.answers_lost -= 1
            raise ConnectionError
        return answer

    def _register(self) -> None:
        self.generation += 1
        info = WorkerInfo(id=self.id, host="sim", pid=1, queues=QUEUES, concurrency=2, lease_s=LEASE_S)
        self.world.store.register(info)
        self.watch.begin(self.world.now)

    def _beat(self) -> None:
        sent_at = self.world.now
        try:
            reply = self._call(lambda: self.world.store.heartbeat(self.id, {}))
            self.watch.good_beat(sent_at, reply, self.world.dice.uniform(0, 0.5))
        except ConnectionError:
            self.watch.missed_beat()
        except LeaseLost:
            self._lost_lease()
        self._soon(self._beat, LEASE_S / 6)

    def _lost_lease(self) -> None:
        self.decide.lease_lost(self.world.now)
        self._register()

    def _step(self) -> None:
        """One turn of the claim loop; the next one follows when the plan says so, unless something happens first."""
        self._turn += 1
        plan = self.decide.plan(self.world.now)
        for job in plan.start:
            self._start(job)
        if plan.settle or plan.limit:
            self._talk(plan)
        if self.watch.may_reclaim(self.world.now):
            self._reclaim()
        turn = self._turn
        wait_s = 0.001 if plan.settle or plan.limit else max(plan.wait_s, 0.001)
        self.world.at(self.world.now + wait_s, lambda: self._soon(lambda: None) if turn == self._turn else None)

    def _talk(self, plan: Plan) -> None:
        sent = [outcome.settlement for outcome in plan.settle]
        store = self.world.store
        try:
            if self._unknown:
                self.decide.adopted(self.world.now, self._call(lambda: store.held(self.id)))
                self._unknown = False
            reply = self._call(
                lambda: store.settle_and_claim(self.id, sent, QUEUES, slots=plan.slots, limit=plan.limit)
            )
        except ConnectionError:
            self._unknown = True
            self.decide.store_failed(self.world.now)
            return
        self.decide.store_answered()
        self.decide.settled(reply.settled, plan.settle)
        if reply.lease_lost:
            self._lost_lease()
        elif plan.limit:
            self.decide.claimed(self.world.now, plan, reply.claimed)

    def _start(self, job: ClaimedJob) -> None:
        prepared = prepare(job, REGISTRY, HOOKS, self.world.clock, lambda fence, share: None)
        if isinstance(prepared, Outcome):  # lent too often, or a killer of workers: settled unrun
            self.decide.finished(self.world.now, (job.id, job.claim_seq), prepared, was_run=False)
            return
        note = RunNote(job, self.id, self.world.now)
        self.world.history.runs.append(note)
        took = float(job.meta or self.world.dice.choice((0.01, 0.2, 1.0, 1.5 * LEASE_S)))

        def end() -> None:
            note.ended_at = self.world.now
            outcome = self._outcome(job, took)
            note.wish = outcome.settlement.verb
            self.decide.finished(self.world.now, (job.id, job.claim_seq), outcome)

        self._soon(end, took)

    def _outcome(self, job: ClaimedJob, took: float) -> Outcome:
        verb = self.world.dice.choice((Verb.COMPLETE, Verb.COMPLETE, Verb.COMPLETE, Verb.RETRY, Verb.SNOOZE))
        if verb is Verb.RETRY and job.attempts > job.max_retries:
            return Outcome(claimed=job, settlement=settlement(job, Verb.FAIL, error="sim"), duration_s=took)
        delay = {} if verb is Verb.COMPLETE else {"delay": 1.0}
        return Outcome(claimed=job, settlement=settlement(job, verb, **delay), duration_s=took)

    def _reclaim(self) -> None:
        def reclaim() -> Reclaimed:
            taken = self.world.store.reclaim(100)
            for worker in taken.workers:  # noted by the world, which sees what the store did even if we never learn it
                self.world.history.lost_leases[worker] = self.world.now
            return taken

        try:
            taken = self._call(reclaim)
        except ConnectionError:
            self.watch.reclaimed(self.world.now, 0.0, False, 1.0)
            return
        self.watch.reclaimed(self.world.now, taken.others_end_in, taken.has_more, self.world.dice.uniform(0, 0.5))
