"""What a worker claims, starts, settles and gives back, and when. No thread, no clock, no I/O.

Theory of operation. The claim loop tells the planner what has happened and when (`claimed`, `finished`, `settled`,
`wake` ...), asks it what to do (`plan`), does that, and sleeps until something happens or the plan's `wait_s` is over.
The simulation in the tests drives the very same object by a virtual clock.

A job that this worker holds is in one of three places, each in the order of arrival:

    _waiting     claimed, not started. `plan` takes it from here when a slot is free.
    _running     started, by its key. A `failed()` at work is here too, without a job.
    _unsettled   its outcome, until the store has answered for it. What is given back unstarted goes here directly.

Claims and results share one round trip. A claim is due when the store has told of new jobs, when a run has ended, and
once in `poll_s`; while jobs still wait for slots, results gather for LINGER_S so that many share one trip. Of short
jobs more are claimed than there are free slots (prefetch), and started before a thread is free (handover).

Where there is something to go on with, the loop does not wait for the end of a round trip: `trips` knows which are on
their way, and which outcomes of `_unsettled` with them.

When the store does not answer, everything is kept, and asked again after a pause (`store_failed`). When the lease is in
doubt, nothing is claimed and nothing started. A stop has a plan of its own: `_plan_of_shutdown`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from protojobs.port.records import ClaimedJob
from protojobs.worker.handover import Handover, Line
from protojobs.worker.lease.watch import LeaseWatch
from protojobs.worker.outcome import Outcome
from protojobs.worker.plan import PREFETCH_WAIT_S, TICK_S, Plan, WorkLimits, released
from protojobs.worker.prefetch import Prefetch
from protojobs.worker.shutdown import Shutdown
from protojobs.worker.suspects import Suspects
from protojobs.worker.trips import Trips

__all__ = ["Planner"]

Key = tuple[str, int]  # (id, claim_seq): one run of one job

UNSETTLED_MAX = 2_000  # results that wait for a store that is away; beyond it nothing new is claimed
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 2.0  # between tries while the store is away
SETTLED_BESIDE = 100  # so many results are sent beside a claim that is on its way
LINGER_S = 0.02  # results gather so long while other jobs wait for slots; the crash window grows by as much


class Planner:
    """The claim loop tells it what has happened, and asks it what to do."""

    def __init__(
        self,
        limits: WorkLimits,
        watch: LeaseWatch,
        now: float,
        jittered: Callable[[float], float],
        line_of: Callable[[str], Line | None] = lambda _name: None,
        has_child: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        """`line_of(name)`: where jobs of that name may lie ready; `has_child(name)`: whether a child can run them."""
        self.limits = limits
        self.watch = watch
        self.runs = 0
        self.shutdown = Shutdown(limits)
        self.trips = Trips(limits.trips_max)
        self.quiet_until = now  # the store is away: no call before this
        self._jittered = jittered
        self._waiting: deque[ClaimedJob] = deque()
        self._waiting_since = now
        self._running: dict[Key, ClaimedJob | None] = {}
        self._unsettled: dict[Key, Outcome] = {}
        self._unsettled_since = now
        self._failed_calls = 0  # `failed()` at work or waiting for a slot, of those in _running
        self._prefetch = Prefetch(limits.concurrency)
        self._handover = Handover(limits.concurrency, line_of, now)
        self._suspects = Suspects(has_child)
        self._claim_at = now
        self._is_empty = False  # the last claim found nothing for a free slot
        self._compared_at_claim = 0
        self._pause = PAUSE_FIRST_S
        self._began_at = now
        self._stays_until = now  # though there is nothing to do

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """The store has answered, for these results too."""
        self._pause = PAUSE_FIRST_S
        for outcome in outcomes:
            self._unsettled.pop((outcome.settlement.id, outcome.settlement.claim_seq), None)

    def claimed(self, now: float, plan: Plan, jobs: Sequence[ClaimedJob]) -> None:
        """The reply to the plan's claim."""
        self._is_empty = not jobs and plan.slots > 0
        self._prefetch.claimed(now, plan.limit, len(jobs), plan.slots)
        if jobs:
            self._take_in(now, jobs)
        # Nothing is left: the store tells when there is more, and in any case look again once in a while.
        if len(jobs) < plan.limit and not self.trips.is_woken:
            self._claim_at = now + self._jittered(self.limits.poll_s)
        self.trips.is_woken = False

    def _take_in(self, now: float, jobs: Sequence[ClaimedJob]) -> None:
        if not self._waiting:
            self._waiting_since = now
        waiting = {(job.id, job.claim_seq) for job in self._waiting}
        for job in jobs:
            if (job.id, job.claim_seq) not in waiting and not self._has_claim(job):
                self._waiting.append(job)
        if any([job.reclaims for job in jobs]):  # one may be a killer: the fewer we hold, the fewer it makes suspect
            self._prefetch.pause()
            self._keep_one_suspect()

    def _has_claim(self, job: ClaimedJob) -> bool:
        """Whether this very claim runs here, or has its result on the way: a store after a failover lends it again."""
        key = (job.id, job.claim_seq)
        unsettled = self._unsettled.get(key)
        known = unsettled.claimed if unsettled else self._running.get(key)
        return known is not None and known.reserved_by == job.reserved_by

    def adopted(self, now: float, jobs: Sequence[ClaimedJob]) -> None:
        """What the store says this worker holds, after a claim whose reply was lost: take what is not known here."""
        self._waiting.extend(self._strangers(jobs).values())
        self._waiting_since = now
        self._keep_one_suspect()

    def compared(self, now: float, jobs: Sequence[ClaimedJob]) -> None:
        """What the store says this worker holds, asked once in a while.

        A claim may have been executed long after it was given up. What is not known here in two rounds goes back
        unspent; once could be a matter of timing, and so could twice during one claim.
        """
        if self.trips.is_claiming and self.trips.claims == self._compared_at_claim:
            return
        self._compared_at_claim = self.trips.claims
        strangers = self._strangers(jobs)
        for key in [key for key in strangers if key in self.watch.strangers]:
            job = strangers.pop(key)
            self._unsettled_since = self._unsettled_since if self._unsettled else now
            self._unsettled[key] = released(job, "not known to its worker")
        self.watch.strangers = set(strangers)

    def _strangers(self, jobs: Sequence[ClaimedJob]) -> dict[Key, ClaimedJob]:
        known = {(job.id, job.claim_seq) for job in self._waiting} | self._running.keys() | self._unsettled.keys()
        return {(job.id, job.claim_seq): job for job in jobs if (job.id, job.claim_seq) not in known}

    def _keep_one_suspect(self) -> None:
        for job in self._suspects.surplus(self._waiting, self._running.values()):
            self._waiting.remove(job)
            self._unsettled[job.id, job.claim_seq] = released(job, "suspect")

    def holds_another_suspect(self, key: Key) -> bool:
        """Whether this worker holds a second suspect that no child can run, or a result of one."""
        return self._suspects.is_beside_another(key, self._held())

    def _held(self) -> Iterator[ClaimedJob | None]:
        yield from self._waiting
        yield from self._running.values()
        yield from (outcome.claimed for outcome in self._unsettled.values())

    def finished(self, now: float, key: Key, outcome: Outcome | None, *, was_run: bool = True) -> bool:
        """A run has ended, or was lent and not run (`was_run` False). False: nobody waits for it any more."""
        if key not in self._running:
            return False  # reported before, when it counted as stuck
        if outcome is not None and key != (outcome.settlement.id, outcome.settlement.claim_seq):
            return False  # of another claim, as from a copy of a child: kept, it would be sent without end
        self._failed_calls -= self._running.pop(key) is None
        self._handover.end(now, key)
        self._is_empty = False
        if self.limits.ends_when_empty:
            self._claim_at = min(self._claim_at, now)
        if not was_run:
            self.runs -= 1
        if outcome is not None:
            if len(self._unsettled) == self.trips.results:
                self._unsettled_since = now
            self._unsettled[key] = outcome
            if was_run:
                self._prefetch.measure(outcome.duration_s)
                self._handover.measure(outcome.claimed.job_name, outcome.duration_s)
        return True

    def withdrawn(self, now: float, keys: Sequence[Key], worker: str) -> None:
        """These were handed over and have not begun: they wait again, before all others.

        With all that is behind them they go back to the store, unless a slot is free. What was lent to another identity
        than `worker`, as which we work now, is dropped: its lease was lost.
        """
        for key in reversed(keys):
            if (job := self._running.pop(key, None)) is not None:
                self._handover.end(now, key)
                self.runs -= 1
                self._waiting_since = float("-inf")
                if job.reserved_by == worker:
                    self._waiting.appendleft(job)

    def calling_failed(self, key: Key) -> None:
        """A `failed()` wants a slot; `finished` tells its end."""
        self._running[key] = None
        self._failed_calls += 1

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

    def dropped(self, outcome: Outcome) -> None:
        """This result is not to be sent (again)."""
        self._unsettled.pop((outcome.settlement.id, outcome.settlement.claim_seq), None)

    def store_failed(self, now: float) -> None:
        """No reply: pause, a little longer each time, and keep everything."""
        self.quiet_until = now + self._jittered(self._pause)
        self._pause = min(2 * self._pause, PAUSE_MAX_S)

    def wake(self, now: float) -> None:
        """The store says that a job may be due."""
        self._claim_at = min(self._claim_at, now)
        self.trips.is_woken = self.trips.is_claiming

    def stay(self, until: float) -> None:
        """Do not end of its own accord before then, nor before another claim has found nothing."""
        self._stays_until, self._is_empty = until, False

    def lease_lost(self, now: float) -> None:
        """Others may have our jobs: forget what was not started. What runs, runs on, and its result is sent."""
        self._waiting.clear()
        self._claim_at = now

    def cancel_waiting(self, key: Key) -> ClaimedJob | None:
        """Take a job that waits to be started, if it is there; `finished` tells what becomes of it."""
        for job in self._waiting:
            if (job.id, job.claim_seq) == key:
                self._waiting.remove(job)
                self._running[key] = job
                self.runs += 1
                return job
        return None

    def plan(self, now: float) -> Plan:
        """What to do now. Call it again after doing that, or when something happened."""
        limits, shutdown = self.limits, self.shutdown
        if limits.max_time_s is not None and now - self._began_at >= limits.max_time_s:
            shutdown.drain("max_time")
        if shutdown.level:
            return self._plan_of_shutdown(now)
        if self._waiting:
            self._give_back_stale(now)
        if not (self._running or self._waiting or self._unsettled) and (reason := self._end_of_work(now)):
            return Plan(ended=reason)
        is_in_doubt = self.watch.is_in_doubt(now)
        ahead = self._ahead()
        if not ahead:
            self._handover.progress_at = now
        withdraw = ahead > 0 and (is_in_doubt or self._handover.is_late(now))
        start, short = ((), frozenset[str]()) if is_in_doubt or withdraw else self._startable(now)
        may_claim = not (is_in_doubt or self.trips.is_claiming) and len(self._unsettled) < UNSETTLED_MAX
        slots, limit, settle = 0, 0, tuple[Outcome, ...]()
        if now >= self.quiet_until and self.trips.has_room:
            is_settling = self._is_settling(now)
            if may_claim and (is_settling or now >= self._claim_at):
                slots, limit = self._demand(now)
            if is_settling or limit:
                settle = self.trips.others(self._unsettled)
            if limit and len(settle) >= SETTLED_BESIDE and self._is_busy_beside():
                settle = ()  # by a trip of their own
        return Plan(
            settle=settle,
            slots=slots,
            limit=limit,
            start=start,
            short=short,
            goes_on=self._goes_on(),
            is_idle=may_claim and self._free() > 0,
            wait_s=0.0 if start else self._wait_s(now),
            withdraw=withdraw,
            gather=self._gather(now),
        )

    def _plan_of_shutdown(self, now: float) -> Plan:
        """Start and claim nothing; give back what waits, let end or cut what runs, and settle at once."""
        shutdown = self.shutdown
        self._give_back("shutdown", keep=0)
        cut_all = shutdown.cuts(now)
        call_s = shutdown.call_s(now)
        is_done = not (self._running or self._unsettled or self.trips.count)
        if shutdown.is_over(now) or (is_done and not (shutdown.has_time and now < self._stays_until)):
            # Unsettled results are left only when its time is over: one last try.
            return Plan(ended=shutdown.reason, settle=self.trips.others(self._unsettled), call_s=call_s)
        return Plan(
            settle=self.trips.others(self._unsettled) if not self.trips.count and now >= self.quiet_until else (),
            cut_all=cut_all,
            call_s=call_s,
            wait_s=0.0 if cut_all else min(self._wait_s(now), max(0.0, shutdown.next_at - now)),
            withdraw=self._ahead() > 0,
            gather=1 if self._failed_calls else max(1, self._ahead()),
        )

    def _end_of_work(self, now: float) -> str:
        """Why the worker is done, with nothing in hand; empty if it is not."""
        limits = self.limits
        if self.trips.count or now < self._stays_until:
            return ""
        if limits.max_jobs is not None and self.runs >= limits.max_jobs:
            return "max_jobs"
        return "empty" if limits.ends_when_empty and self._is_empty else ""

    def _startable(self, now: float) -> tuple[tuple[ClaimedJob, ...], frozenset[str]]:
        """Take what may start now from those that wait, and short jobs that are handed over ahead; their names too.

        A suspect that no child can run waits until the store has taken back all others of its kind.
        """
        chosen, short = list[ClaimedJob](), set[str]()
        while self._waiting:
            job = self._waiting[0]
            if (room := self._free() + (ahead := self._room_ahead(job))) <= 0:
                break
            if job.reclaims and self._must_wait_for_others(job):
                break
            chosen += self._start_alike(job, room)
            if ahead:
                short.add(job.job_name)
        if chosen:
            self._waiting_since = now
        return tuple(chosen), frozenset(short)

    def _start_alike(self, first: ClaimedJob, room: int) -> list[ClaimedJob]:
        """Take the first job, and those right behind it that are judged as it is."""
        alike: list[ClaimedJob] = []
        while len(alike) < room and self._waiting:
            job = self._waiting[0]
            if alike and (job.reclaims or first.reclaims or job.job_name != first.job_name):
                break
            self._running[job.id, job.claim_seq] = job
            alike.append(self._waiting.popleft())
        self._handover.begin(alike)
        self.runs += len(alike)
        return alike

    def _must_wait_for_others(self, job: ClaimedJob) -> bool:
        if not self._suspects.must_be_alone(job):
            return False
        return self.trips.is_claiming or self.holds_another_suspect((job.id, job.claim_seq))

    def _room_ahead(self, job: ClaimedJob) -> int:
        """How many jobs like it are so short that they are handed over before a slot is free."""
        is_plain = not (job.reclaims or self._failed_calls or self.limits.is_sync)
        return self._handover.room(job.job_name, len(self._running)) if is_plain else 0

    def _ahead(self) -> int:
        """How many runs lie ready beyond the slots. None does while a `failed()` has one."""
        return max(0, len(self._running) - self._failed_calls - self.limits.concurrency)

    def _free(self) -> int:
        """Slots that are free; below 0 with jobs handed over ahead."""
        return self.limits.concurrency - len(self._running) - (len(self._unsettled) if self.limits.is_sync else 0)

    def _has_more(self, now: float) -> bool:
        """Whether other jobs go on meanwhile: then results gather for a moment."""
        if self.limits.is_sync:
            return False
        first = self._waiting[0] if self._waiting else None
        goes_on = first and not (first.reclaims and self._suspects.must_be_alone(first))
        return bool((goes_on and not self.watch.is_in_doubt(now)) or self._ahead())

    def _goes_on(self) -> bool:
        """Whether the loop does not wait for the reply: jobs wait for slots, or another trip may be sent meanwhile.

        Short jobs lie ready and need no loop: with one trip at a time the way to a thread and back would only cost.
        """
        if self.limits.ends_when_empty or self.limits.is_sync:
            return False
        is_busy = self.trips.count > 0 or self._is_busy_beside()
        return is_busy or (bool(self._waiting) and not self._room_ahead(self._waiting[0]))

    def _is_busy_beside(self) -> bool:
        """Whether two trips may be sent at once, and threads have enough to do meanwhile."""
        return self.trips.count_max > 1 and not self.trips.count and self._ahead() > 0

    def _is_settling(self, now: float) -> bool:
        """Whether results are to be sent now: they have gathered long enough, or are many, or nothing else goes on."""
        count = len(self._unsettled) - self.trips.results
        is_many = self.trips.is_claiming and count >= SETTLED_BESIDE
        has_gathered = now >= self._unsettled_since + LINGER_S or not self._has_more(now)
        return count > 0 and (is_many or has_gathered)

    def _demand(self, now: float) -> tuple[int, int]:
        """(free slots, jobs to claim); (0, 0) for none."""
        free, waiting = self._free(), len(self._waiting)
        slots = limit = max(0, free - waiting)
        if not self.limits.is_sync:
            limit += self._prefetch.batch(now, waiting - min(0, free))
        if self.limits.max_jobs is not None:
            left = self.limits.max_jobs - self.runs - waiting
            slots, limit = min(slots, left), min(limit, left)
        return (slots, limit) if slots > 0 or limit >= self.limits.concurrency else (0, 0)

    def _gather(self, now: float) -> int:
        """How many runs may end before there is something to claim, or nothing left to go on with."""
        ahead = self._ahead()
        if self._failed_calls or ahead <= 1:
            return 1
        if self.trips.is_claiming:
            beside = SETTLED_BESIDE - (len(self._unsettled) - self.trips.results)
            return max(1, min(ahead, beside) if self.trips.has_room else ahead)
        claims = now >= self._claim_at
        return max(1, ahead - (max(0, self._prefetch.ahead(now) // 2 - len(self._waiting)) if claims else 0))

    def _give_back_stale(self, now: float) -> None:
        """Give back what waits in vain: too long, or more than turn out to be short."""
        if now >= self._waiting_since + PREFETCH_WAIT_S:
            if self._free() <= 0 or self.watch.is_in_doubt(now):
                self._prefetch.pause()
                self._give_back("prefetch", keep=0)
            self._waiting_since = now
        elif self._free() <= 0 and len(self._waiting) > 2 * (bearable := self._prefetch.bearable):
            self._give_back("prefetch", keep=bearable)

    def _give_back(self, reason: str, *, keep: int) -> None:
        while len(self._waiting) > keep:
            job = self._waiting.pop()
            self._unsettled[job.id, job.claim_seq] = released(job, reason)
            self._is_empty = False

    def _wait_s(self, now: float) -> float:
        """How long nothing is to be done, if nothing happens."""
        until = now + (LINGER_S if self._ahead() else TICK_S)
        if self.quiet_until > now:
            until = min(until, self.quiet_until)
        elif self._claim_at > now and not self.shutdown.level and self._free() > 0:
            until = min(until, self._claim_at)  # one that has come, with nothing claimed, waits for something else
        if self.watch.reclaim_at > now:
            until = min(until, self.watch.reclaim_at)
        if self._waiting:
            until = min(until, self._waiting_since + PREFETCH_WAIT_S)
            if len(self._unsettled) > self.trips.results and self.quiet_until <= now and self.trips.has_room:
                until = min(until, self._unsettled_since + LINGER_S)
        return max(0.0, until - now)
