"""A seeded world: simulated workers with the product's own decisions, on a memory store, under a virtual clock.

One seed gives one history, exactly. It picks the order of things that happen at once, who is hurt and how, and how
long a call takes; the checker of the real faults judges what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf

from faults.checker import complaints
from faults.history import Fault, Final, History, Pushed
from protojobs.errors import StoreUnavailable
from protojobs.port.records import CancelAnswer, Heartbeat, NewJob, Reclaimed, WorkerInfo
from protojobs.worker.handover import HANDOVER_WAIT_S
from protojobs_memory import MemoryDriver

from .network import Network
from .scheduler import Call, Party, Steps
from .simulated_worker import LEASE_S, SHORT, SimulatedWorker

__all__ = ["EVERYTHING", "QUEUES", "Plan", "World", "judged"]

MAX_RETRIES = 3
QUEUES = ("high", "low")
EVERYTHING = ("kill", "freeze", "cut off", "starve", "lose answers", "stop", "limit", "fork", "slow", "outage")
PUSH_PATIENCE_S = 2.0
SHORT_S = 0.0005  # what a job takes that may lie ready before a slot is free
REST_EVERY_S = 0.5
SETTLES_WITHIN_S = 10.0  # two calls that get no answer, and the pauses after them
RECLAIM_ROUND = 1  # jobs taken back in one step: the rest are orphans for a while, for longer if the taker dies


def judged(history: History) -> list[str]:
    """The checker's word, in the bounds of this world."""
    return complaints(history, lease_s=LEASE_S, settles_within_s=SETTLES_WITHIN_S, max_retries=MAX_RETRIES)


@dataclass(frozen=True)
class Plan:
    """What one job is to do."""

    takes_s: float
    fails: int = 0  # its first attempts; more than it has: it is to fail for good
    snoozes: bool = False  # the first time that it is lent
    is_deaf: bool = False  # cannot be ended from outside, but with its process
    cancel_after_s: float | None = None  # a person cancels it so long after the push was answered


class World(Network):
    """The store, who works and pushes, and the hand that hurts."""

    def __init__(
        self,
        seed: int,
        *,
        jobs: int = 24,
        workers: int = 3,
        hurts: tuple[str, ...] = EVERYTHING,
        hurt_s: float = 24.0,
        outage_max_s: float = 1.5 * LEASE_S,
        store: type[MemoryDriver] = MemoryDriver,
        worker: type[SimulatedWorker] = SimulatedWorker,
    ) -> None:
        super().__init__(seed)
        self.store = store(clock=self.clock)
        self.history = History()
        self.workers: list[SimulatedWorker] = []
        self.plans: dict[str, Plan] = {}
        self._lease_ends: dict[str, float] = {}  # as they are in truth, whatever the store says
        self._hurts, self._hurt_s = hurts, hurt_s
        self._outage_max_s = outage_max_s
        self._jobs, self._pushing = jobs, 0
        self._runs_quick_jobs = self.dice.random() < 0.3  # such are fetched ahead of free slots ...
        self._runs_short_jobs = self._runs_quick_jobs and self.dice.random() < 0.5  # ... and may lie ready before them
        self._worker_type = worker
        for _ in range(workers):
            self.hire()

    def run(self, limit: float = 300.0) -> History:
        """Push and hurt for a while, then let it come to rest."""
        left = self._jobs
        while left:
            batch = min(left, self.dice.choice((1, 1, 4, 12)))
            left -= batch
            self._pushing += 1
            self.at(self.dice.uniform(0, self._hurt_s), lambda batch=batch: self._push_some(batch))
        if self._hurts:
            self.at(self.dice.uniform(2, 5), self._hurt)
        self.at(self._hurt_s, lambda: self.hire(QUEUES))
        self.at(self._hurt_s, self._look)
        self.pass_time(limit)
        self._read_the_ends()
        return self.history

    def _look(self) -> None:
        """Is all over? Then nothing more happens."""
        stats = self.store.stats()
        is_stopping = any(worker.is_stopping and not worker.is_dead for worker in self.workers)
        if self._pushing or self.under_way or is_stopping or stats.pending or stats.processing:
            self.at(self.now + REST_EVERY_S, self._look)
        else:
            self.end()

    def _read_the_ends(self) -> None:
        failed = {row.job_id for row in self.store.failed(limit=1_000).jobs}
        for job in self.store.get(list(self.history.pushed)):
            self.history.finals[job.id] = Final(str(job.status), job.attempts, job.id in failed)
        for worker in self.workers:
            if worker.is_stopping and not worker.is_dead:
                self.history.exits[worker.id] = 1  # it was asked to end, and is still there

    # -------------------------------------------------------------------------- what the store does, seen from outside

    def register(self, worker: WorkerInfo) -> None:
        self.store.register(worker)
        self._lease_ends[worker.id] = self.now + LEASE_S

    def heartbeat(self, worker: str) -> Heartbeat:
        reply = self.store.heartbeat(worker, {})
        self._lease_ends[worker] = self.now + LEASE_S
        return reply

    def reclaim(self, until: datetime | None) -> Reclaimed:
        """A lease that is ended counts as lost from then on if it had in truth run out. Else the store is wrong."""
        taken = self.store.reclaim(RECLAIM_ROUND, until=until)
        for worker in taken.workers:
            if self.now >= self._lease_ends[worker]:
                self.history.faults.append(Fault("lost lease", self.now, inf, worker))
        return taken

    # ------------------------------------------------------------------------------------------------ what people do

    def hire(self, queues: Sequence[str] = ()) -> None:
        """A new worker, for these queues or for whichever the dice say."""
        queues = queues or self.dice.choice((QUEUES, QUEUES[::-1], QUEUES[:1], QUEUES[1:]))
        worker = self._worker_type(self, f"w{len(self.workers)}", queues)
        self.workers.append(worker)
        self.at(self.now + self.dice.uniform(0, 1), worker.begin, worker)

    def _push_some(self, count: int) -> None:
        first = len(self.history.pushed)
        self.push([self.new_job(f"job-{first + number:03}", self._plan()) for number in range(count)])

    def _plan(self) -> Plan:
        takes_s = 0.01 if self._runs_quick_jobs else self.dice.choice((0.01, 0.2, 1.0))
        if self._runs_short_jobs:
            takes_s = self.dice.choice((SHORT_S, SHORT_S, SHORT_S, 2 * HANDOVER_WAIT_S))
        return Plan(
            takes_s=1.25 * LEASE_S if self.dice.random() < 0.1 else takes_s,
            fails=self.dice.choice((0, 0, 0, 0, 0, 1, 2, MAX_RETRIES + 1)),
            snoozes=self.dice.random() < 0.1,
            is_deaf=self.dice.random() < 0.2,
            cancel_after_s=self.dice.uniform(0, 5) if self.dice.random() < 0.1 else None,
        )

    def new_job(self, name: str, plan: Plan) -> NewJob:
        self.plans[name] = plan
        return NewJob(
            id=name, queue=self.dice.choice(QUEUES), job_name=SHORT if self._runs_short_jobs else "sim",
            job_class="sim", data="{}",
            priority=self.dice.choice((0, 0, 5)), max_retries=MAX_RETRIES, retry_delay=1.0,
            delay=self.dice.choice((0.0, 0.0, 3.0)),
        )  # fmt: skip

    def push(self, jobs: list[NewJob]) -> None:
        """Send them until the store has answered, under the same ids."""
        sender = Party()
        sender.answers_lost = self.dice.choice((0, 0, 1))
        for job in jobs:
            may_fail = self.plans[job.id].fails > MAX_RETRIES
            self.history.pushed[job.id] = Pushed(self.now, job.delay, may_fail=may_fail)

        def steps() -> Steps:
            while True:
                try:
                    yield Call(lambda: self._enqueue(jobs), PUSH_PATIENCE_S)
                    break
                except StoreUnavailable:
                    yield self.dice.uniform(0.1, 2.0)
            self._pushing -= 1
            for job in jobs:
                self.history.pushed[job.id].is_acknowledged = True
                if (after_s := self.plans[job.id].cancel_after_s) is not None:
                    self.at(self.now + after_s, lambda job=job: self._cancel(job.id))

        self.spawn(sender, steps())

    def _enqueue(self, jobs: list[NewJob]) -> None:
        self.store.enqueue(jobs)
        for worker in self.workers:
            if self.dice.random() < 0.8:  # a hint may be lost
                worker.ring()

    def _cancel(self, job: str) -> None:
        (answer,) = self.store.cancel([job])
        if answer is not CancelAnswer.FINISHED:
            self.history.pushed[job].may_be_cancelled = True

    # ------------------------------------------------------------------------------------------------ what goes wrong

    def _hurt(self) -> None:
        if self.now > self._hurt_s:
            return
        self.at(self.now + self.dice.uniform(1, 4), self._hurt)
        how = self.dice.choice(self._hurts)
        if how == "outage":
            self.outage_until = max(self.outage_until, self._in(0.1, self._outage_max_s))
            self.history.faults.append(Fault("outage", self.now, self.outage_until))
        elif how == "slow":
            self.slow_until = max(self.slow_until, self._in(0.5, 5.0))
            self.history.faults.append(Fault("slow", self.now, self.slow_until))
        elif able := [worker for worker in self.workers if worker.is_at_work]:
            self._hurt_one(how, self.dice.choice(able))

    def _hurt_one(self, how: str, worker: SimulatedWorker) -> None:
        now = self.now
        if how == "kill":
            worker.die("kill", since=now)
            self.hire()
        elif how == "freeze":
            worker.frozen_until = max(worker.frozen_until, self._in(0.5, 3 * LEASE_S))
            self.history.faults.append(Fault("freeze", now, worker.frozen_until, worker.id))
        elif how == "cut off":
            worker.cut_off_until = max(worker.cut_off_until, self._in(0.5, 2 * LEASE_S))
            self.history.faults.append(Fault("cut off", now, worker.cut_off_until, worker.id))
        elif how == "starve":
            worker.starved_until = max(worker.starved_until, self._in(0.5, 2 * LEASE_S))
            self.history.faults.append(Fault("starved", now, worker.starved_until, worker.id))
        elif how == "fork":
            worker.fork()
        elif how == "limit":
            if not worker.is_stopping:
                worker.drain()
        elif how == "lose answers":
            worker.answers_lost = self.dice.randint(1, 3)
        elif worker.stopping_since is None:
            worker.stop()

    def _in(self, least_s: float, most_s: float) -> float:
        """A moment to come; in whole microseconds, as all that happens here."""
        return round(self.now + self.dice.uniform(least_s, most_s), 6)
