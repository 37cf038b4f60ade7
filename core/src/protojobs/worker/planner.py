"""What a worker claims, starts, settles and reclaims, and when. No thread, no clock, no I/O.

The worker tells what happened (`claimed`, `finished`, `settled`, `rang` ...) and when, and asks `plan` what to
do next. The simulator in the tests drives the very same object under a virtual clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from protojobs.port.lifecycle import SUSPECT_RECLAIMS
from protojobs.port.records import BATCH_JOBS_MAX, ClaimedJob, Settled
from protojobs.worker.lease.watch import LeaseWatch
from protojobs.worker.outcome import Outcome
from protojobs.worker.plan import PREFETCH_WAIT_S, TICK_S, Plan, WorkLimits, released
from protojobs.worker.prefetch import LEAD_WAIT_S, Prefetch
from protojobs.worker.shutdown import Shutdown

__all__ = ["Planner", "Plan", "WorkLimits"]

Key = tuple[str, int]  # (id, claim_seq): one run of one job

UNSETTLED_MAX = 2_000  # results that wait for a store that is away; beyond it nothing new is claimed
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 2.0  # between tries while the store is away
LINGER_S = 0.02  # a result waits so long for others while there is work in the line; the crash window grows by as much


class Planner:
    """What the claim loop asks, and tells of all that happens."""

    def __init__(
        self,
        limits: WorkLimits,
        watch: LeaseWatch,
        now: float,
        roll: Callable[[float], float],
        may_lead: Callable[[str], bool] = lambda _name: False,
        has_child: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        """`has_child(name)`: whether a child process can run jobs of that name. `may_lead`: see Prefetch."""
        self.limits = limits
        self.watch = watch
        self.runs = 0
        self.shutdown = Shutdown(limits)
        self._roll = roll  # seconds -> jittered seconds
        self._has_child = has_child
        self._waiting: deque[ClaimedJob] = deque()
        self._waiting_since = now
        self._running: dict[Key, ClaimedJob | None] = {}  # None: a `failed()` at work
        self._unsettled: dict[Key, Outcome] = {}
        self._unsettled_since = now
        self._calls = 0  # of those that run: `failed()` at work or waiting for a slot
        self._progress_at = now  # a run ended, or nothing lay ready
        self._prefetch = Prefetch(limits.concurrency, may_lead)
        self._claim_at = now
        self._found_nothing = False
        self.is_asked = False  # a call is on its way, and the loop goes on meanwhile
        self._in_flight = 0  # results that are in it
        self._asks = self._compared_in = 0  # how many of these calls there were, and before the last comparison
        self._is_rung = False  # since it left
        self._quiet_until = now  # the store is away: no call before this
        self._pause = PAUSE_FIRST_S
        self._began_at = now
        self._stays_until = now  # though there is nothing to do

    # ------------------------------------------------------------------------------------------------- what happened

    def asked(self, plan: Plan) -> None:
        """The plan's results and its claim are on their way, and the answer is not waited for."""
        self.is_asked, self._in_flight, self._is_rung = True, len(plan.settle), False
        self._asks += 1

    def answered(self) -> None:
        """They are no longer, whatever the answer."""
        self.is_asked, self._in_flight = False, 0

    def claimed(self, now: float, plan: Plan, jobs: Sequence[ClaimedJob]) -> None:
        """The answer to a claim that the plan asked for."""
        if not self._waiting:
            self._waiting_since = now
        line = {(job.id, job.claim_seq) for job in self._waiting}
        self._waiting.extend([job for job in jobs if (job.id, job.claim_seq) not in line and not self._has_claim(job)])
        self._found_nothing = not jobs and plan.slots > 0
        self._prefetch.claimed(now, plan.limit, len(jobs), plan.slots)
        if any([job.reclaims for job in jobs]):  # one may be a killer: the fewer we hold, the fewer it makes suspect
            self._prefetch.calm()
            self._keep_one_suspect()
        # Nothing is left: trust the doorbell and the next settle, look once in a while.
        if len(jobs) < plan.limit and not self._is_rung:
            self._claim_at = now + self._roll(self.limits.poll_s)
        self._is_rung = False

    def _has_claim(self, job: ClaimedJob) -> bool:
        """Whether this very claim runs here, or has its result on the way: a store after a failover lends it again."""
        key = (job.id, job.claim_seq)
        unsettled = self._unsettled.get(key)
        known = unsettled.claimed if unsettled else self._running.get(key)
        return known is not None and known.reserved_by == job.reserved_by

    def adopted(self, now: float, jobs: Sequence[ClaimedJob]) -> None:
        """What the store says this worker holds, after a claim whose answer was lost: take what is not known here."""
        self._waiting.extend(self._strangers(jobs).values())
        self._waiting_since = now
        self._keep_one_suspect()

    def _keep_one_suspect(self) -> None:
        """Of suspects that no child can run a worker holds one: if it dies, that speaks against this one alone."""
        suspects = [job for job in self._waiting if self._is_apart(job)]
        is_first = not any(job is not None and self._is_apart(job) for job in self._running.values())
        for job in suspects[is_first:]:
            self._waiting.remove(job)
            self._unsettled[job.id, job.claim_seq] = released(job, "suspect")

    def _is_apart(self, job: ClaimedJob) -> bool:
        """Whether it is a suspect that this process must run itself."""
        return job.reclaims >= SUSPECT_RECLAIMS and not self._has_child(job.job_name)

    def holds_another_suspect(self, key: Key) -> bool:
        """Whether this worker holds a second suspect that no child can run, or a result of one."""
        held = [*self._waiting, *self._running.values(), *[outcome.claimed for outcome in self._unsettled.values()]]
        return any(job is not None and (job.id, job.claim_seq) != key and self._is_apart(job) for job in held)

    def compared(self, now: float, jobs: Sequence[ClaimedJob]) -> None:
        """What the store says this worker holds, asked once in a while.

        A claim may have been executed long after it was given up. What is not known here in two rounds goes back
        unspent; once could be a matter of timing, and so could twice during one call.
        """
        if self.is_asked and self._asks == self._compared_in:
            return
        self._compared_in = self._asks
        strangers = self._strangers(jobs)
        for key in [key for key in strangers if key in self.watch.strangers]:
            job = strangers.pop(key)
            self._unsettled_since = self._unsettled_since if self._unsettled else now
            self._unsettled[key] = released(job, "not known to its worker")
        self.watch.strangers = set(strangers)

    def _strangers(self, jobs: Sequence[ClaimedJob]) -> dict[Key, ClaimedJob]:
        known = {(job.id, job.claim_seq) for job in self._waiting} | self._running.keys() | self._unsettled.keys()
        return {(job.id, job.claim_seq): job for job in jobs if (job.id, job.claim_seq) not in known}

    def finished(self, now: float, key: Key, outcome: Outcome | None, *, was_run: bool = True) -> bool:
        """A run has ended, or was lent and not run (`was_run` False). False: nobody waits for it any more."""
        if key not in self._running:
            return False  # reported before, when it counted as stuck
        if outcome is not None and key != (outcome.settlement.id, outcome.settlement.claim_seq):
            return False  # of another claim, as from a copy of a child: kept, it would be sent without end
        self._calls -= self._running.pop(key) is None
        self._prefetch.ended(key)
        self._progress_at = now
        self._found_nothing = False
        if self.limits.ends_when_empty:
            self._claim_at = min(self._claim_at, now)
        if not was_run:
            self.runs -= 1
        if outcome is not None:
            if len(self._unsettled) == self._in_flight:
                self._unsettled_since = now
            self._unsettled[key] = outcome
            if was_run:
                self._prefetch.ran(outcome.claimed.job_name, outcome.duration_s)
        return True

    def withdrawn(self, now: float, keys: Sequence[Key], holder: str) -> None:
        """These were handed over, and have not begun: they stand first in the line again.

        With all that is behind them they go on to the store, unless a slot is free. What was lent to another than
        `holder`, as whom we work now, is dropped: its lease was lost.
        """
        for key in reversed(keys):
            if (job := self._running.pop(key, None)) is not None:
                self._prefetch.ended(key)
                self.runs -= 1
                self._progress_at, self._waiting_since = now, float("-inf")
                if job.reserved_by == holder:
                    self._waiting.appendleft(job)

    def calling_failed(self, key: Key) -> None:
        """A `failed()` wants a slot; `finished` tells its end."""
        self._running[key] = None
        self._calls += 1

    @property
    def has_unsettled(self) -> bool:
        """Whether there are results that the store has not answered for."""
        return bool(self._unsettled)

    @property
    def running(self) -> int:
        """How many runs and `failed()` have a slot, or wait for one."""
        return len(self._running)

    def running_jobs(self) -> list[Key]:
        """The runs among them."""
        return [key for key, job in self._running.items() if job is not None]

    def settled(self, answers: Sequence[Settled], outcomes: Sequence[Outcome]) -> None:
        """The store has answered for these results, whatever the answer."""
        for _, outcome in zip(answers, outcomes, strict=True):
            self._unsettled.pop((outcome.settlement.id, outcome.settlement.claim_seq), None)

    def dropped(self, outcome: Outcome) -> None:
        """This result is not to be sent (again)."""
        self._unsettled.pop((outcome.settlement.id, outcome.settlement.claim_seq), None)

    def store_answered(self) -> None:
        """The store is (still) there."""
        self._pause = PAUSE_FIRST_S

    def store_failed(self, now: float) -> None:
        """No answer: pause, a little longer each time, and keep everything."""
        self._quiet_until = now + self._roll(self._pause)
        self._pause = min(2 * self._pause, PAUSE_MAX_S)

    def is_quiet(self, now: float) -> bool:
        """Whether the store failed a moment ago and is left alone."""
        return now < self._quiet_until

    def rang(self, now: float) -> None:
        """The doorbell: a job may be due."""
        self._claim_at = min(self._claim_at, now)
        self._is_rung = self.is_asked

    def stay(self, until: float) -> None:
        """Do not end of its own accord before then, nor before another claim has found nothing."""
        self._stays_until, self._found_nothing = until, False

    def lease_lost(self, now: float) -> None:
        """Others may have our jobs: forget what was not started. What runs, runs on, and its result is sent."""
        self._waiting.clear()
        self._claim_at = now

    def cancel_waiting(self, key: Key) -> ClaimedJob | None:
        """Take a job that was not started out of the line, if it is there."""
        for job in self._waiting:
            if (job.id, job.claim_seq) == key:
                self._waiting.remove(job)
                self._running[key] = job
                self.runs += 1
                return job
        return None

    # -------------------------------------------------------------------------------------------------- what to do now

    def plan(self, now: float) -> Plan:
        """What to do now. Call it again after doing that, or when something happened."""
        self._give_back(now)
        cut_all = self.shutdown.cuts(now)
        if ended := self._why_ended(now):  # with results unsettled only when its time is over: one last try
            last = tuple(self._unsettled.values())[self._in_flight :][:BATCH_JOBS_MAX]  # those in flight are the first
            return Plan(ended=ended, settle=last, call_s=self.shutdown.call_s(now))
        limits, withdraw = self.limits, self._is_lead_in_vain(now)
        start, short = ((), ()) if withdraw else self._startable(now)
        slots, limit, settle = 0, 0, tuple[Outcome, ...]()
        if now >= self._quiet_until and not self.is_asked:
            is_due = self._is_settling_due(now)
            slots, limit = self._appetite(now, travels=is_due)
            if is_due or limit:
                settle = tuple(self._unsettled.values())[:BATCH_JOBS_MAX]
        return Plan(
            settle=settle,
            slots=slots,
            limit=limit,
            start=start,
            short=frozenset(short),
            cut_all=cut_all,
            call_s=self.shutdown.call_s(now),
            goes_on=self._needs_the_loop() and not (limits.ends_when_empty or limits.is_sync or self.shutdown.level),
            is_idle=self._free() > 0 and self._may_claim(now),
            wait_s=0.0 if start or cut_all else self._wait_s(now),
            withdraw=withdraw,
            gather=self._gather(now),
        )

    def _startable(self, now: float) -> tuple[tuple[ClaimedJob, ...], set[str]]:
        """Take from the line what may start now, and short jobs that may lie ready for the next free slot; their names.

        A suspect that no child can run waits until the store has taken back all others of its kind.
        """
        if self.shutdown.level or self.watch.is_in_doubt(now):
            return (), set()
        chosen, short = list[ClaimedJob](), set[str]()
        if not self._led():
            self._progress_at = now
        while self._waiting:
            job = self._waiting[0]
            if (room := self._free() + (lead := self._lead(job))) <= 0:
                break
            if (
                job.reclaims
                and self._is_apart(job)
                and (self.is_asked or self.holds_another_suspect((job.id, job.claim_seq)))
            ):
                break
            chosen += self._start_alike(job, room)
            if lead:
                short.add(job.job_name)
        if chosen:
            self._waiting_since = now
        return tuple(chosen), short

    def _start_alike(self, first: ClaimedJob, room: int) -> list[ClaimedJob]:
        """Take from the line the first job, and those right behind it that are judged as it is."""
        alike: list[ClaimedJob] = []
        while len(alike) < room and self._waiting:
            job = self._waiting[0]
            if alike and (job.reclaims or first.reclaims or job.job_name != first.job_name):
                break
            self._running[job.id, job.claim_seq] = job
            alike.append(self._waiting.popleft())
        self._prefetch.begins(alike)
        self.runs += len(alike)
        return alike

    def _lead(self, job: ClaimedJob) -> int:
        """How many jobs like it are so short that they are handed over before a slot is free."""
        return 0 if job.reclaims or self._calls or self.limits.is_sync else self._prefetch.lead(job.job_name)

    def _needs_the_loop(self) -> bool:
        """Whether jobs wait in the line for a slot. Short ones lie ready at the threads, and need no loop."""
        return bool(self._waiting) and not self._lead(self._waiting[0])

    def _is_lead_in_vain(self, now: float) -> bool:
        """Whether what was handed over beyond the slots shall come back: their runs take longer than was thought."""
        is_late = now >= self._progress_at + LEAD_WAIT_S
        return self._led() > 0 and (is_late or self.shutdown.level > 0 or self.watch.is_in_doubt(now))

    def _gather(self, now: float) -> int:
        """How many runs may end before there is something to claim, or nothing left to go on with."""
        claims = now >= self._claim_at and not (self.shutdown.level or self.is_asked)
        enough = max(0, self._prefetch.ahead(now) // 2 - len(self._waiting)) if claims else 0
        return 1 if self._calls else max(1, self._led() - enough)

    def _is_settling_due(self, now: float) -> bool:
        """At once, unless there are jobs in the line to go on with: then results gather for a moment."""
        if not self._unsettled:
            return False
        first = self._waiting[0] if self._waiting else None
        goes_on = first and not (first.reclaims and self._is_apart(first)) and not self.watch.is_in_doubt(now)
        if not (goes_on or self._led()) or self.shutdown.level or self.limits.is_sync:
            return True
        return now >= self._unsettled_since + LINGER_S

    def _free(self) -> int:
        return self.limits.concurrency - len(self._running) - (len(self._unsettled) if self.limits.is_sync else 0)

    def _led(self) -> int:
        """How many runs lie ready beyond the slots. None does while a `failed()` has one."""
        return max(0, len(self._running) - self._calls - self.limits.concurrency)

    def _appetite(self, now: float, *, travels: bool) -> tuple[int, int]:
        """(free slots, jobs to claim) for a claim now; (0, 0) for none. `travels`: a settle goes anyway."""
        if not self._may_claim(now) or (not travels and now < self._claim_at):
            return 0, 0
        slots = max(0, self._free() - len(self._waiting))
        outstanding = len(self._waiting) - min(0, self._free())
        limit = slots + (0 if self.limits.is_sync else self._prefetch.batch(now, outstanding))
        if self.limits.max_jobs is not None:
            left = self.limits.max_jobs - self.runs - len(self._waiting)
            slots, limit = min(slots, left), min(limit, left)
        return (slots, limit) if slots > 0 or limit >= self.limits.concurrency else (0, 0)

    def _may_claim(self, now: float) -> bool:
        is_held_up = self.is_asked or self.shutdown.level or self.watch.is_in_doubt(now)
        return not is_held_up and len(self._unsettled) < UNSETTLED_MAX

    def _give_back(self, now: float) -> None:
        """Return what waits in vain: everything at a stop, and what has waited too long."""
        if not self._waiting:
            return
        if self.shutdown.level:
            self._release_waiting("shutdown", keep=0)
        elif now >= self._waiting_since + PREFETCH_WAIT_S:
            if self._free() <= 0 or self.watch.is_in_doubt(now):
                self._prefetch.calm()
                self._release_waiting("prefetch", keep=0)
            self._waiting_since = now
        elif self._free() <= 0 and len(self._waiting) > 2 * (
            bearable := self._prefetch.bearable
        ):  # they were short once
            self._release_waiting("prefetch", keep=bearable)

    def _release_waiting(self, reason: str, *, keep: int) -> None:
        while len(self._waiting) > keep:
            job = self._waiting.pop()
            self._unsettled[job.id, job.claim_seq] = released(job, reason)
            self._found_nothing = False

    def _why_ended(self, now: float) -> str | None:
        limits = self.limits
        if not self.shutdown.level and limits.max_time_s is not None and now - self._began_at >= limits.max_time_s:
            self.shutdown.drain("max_time")
        if self.shutdown.is_over(now):
            return self.shutdown.reason
        if self._running or self._waiting or self._unsettled or self.is_asked:
            return None
        if self.shutdown.level and not self.shutdown.has_time:
            return self.shutdown.reason
        if now < self._stays_until:
            return None
        if self.shutdown.level:
            return self.shutdown.reason
        if limits.max_jobs is not None and self.runs >= limits.max_jobs:
            return "max_jobs"
        return "empty" if limits.ends_when_empty and self._found_nothing else None

    def _wait_s(self, now: float) -> float:
        times = [now + (LINGER_S if self._led() else TICK_S), self.shutdown.next_at]
        if self._quiet_until > now:
            times.append(self._quiet_until)
        elif self._claim_at > now and self._free() > 0 and not self.shutdown.level:
            times.append(self._claim_at)  # one that has come, with nothing claimed, waits for something else to happen
        if self.watch.reclaim_at > now:
            times.append(self.watch.reclaim_at)
        if self._waiting:
            times.append(self._waiting_since + PREFETCH_WAIT_S)
            if self._unsettled and self._quiet_until <= now and not self.is_asked:
                times.append(self._unsettled_since + LINGER_S)
        return max(0.0, min(times) - now)
