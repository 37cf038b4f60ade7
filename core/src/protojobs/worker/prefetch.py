"""How far a worker works ahead: jobs fetched before a slot is free, and jobs handed over before a thread is.

Both only for jobs that are known to be short: what waits here runs nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protojobs.port.records import ClaimedJob

__all__ = ["LEAD_WAIT_S", "Prefetch"]

BATCH_MAX = 200  # jobs fetched ahead by one claim: the knee of the measured sizes; docs/decisions/0003
PREFETCH_MAX = 2 * BATCH_MAX  # while the store has one batch in hand, the threads have the other
PREFETCH_RUN_S = 0.1  # jobs that take longer gain nothing from being fetched ahead
LAST_TRY_S = 0.5  # a job on its last attempt is lent to a free slot only, so one must be free as often as this
LEAD_RUN_S = 0.001  # to wait for the claim loop after each run costs a thread 50 us: much for shorter ones only
LEAD_S = 0.01  # so much work of such jobs lies ready in front of the threads
LEAD_WAIT_S = 0.25  # one that no thread has begun after so long is taken back


class Prefetch:
    """What runs and claims have told of the work. `may_lead(name)`: whether jobs of that name run in threads."""

    def __init__(self, concurrency: int, may_lead: Callable[[str], bool]) -> None:
        self._concurrency = concurrency
        self._may_lead = may_lead
        self._prefetch = 0
        self._had_slots_at = float("-inf")
        self._mean_s: float | None = None
        self._mean_of: dict[str, float] = {}
        self._in_threads: set[str] = set()  # names of which that is known: it is asked for each job
        self._elsewhere: set[tuple[str, int]] = set()  # runs that may have a slot and no thread

    def ran(self, name: str, duration_s: float) -> None:
        """A run has ended."""
        if self._mean_s is None:
            self._mean_s = duration_s
        self._mean_s += (duration_s - self._mean_s) / 5
        mean_s = self._mean_of.get(name, duration_s)
        # A thread that waits for the interpreter's lock in the middle of its job says nothing of the job.
        self._mean_of[name] = mean_s + (min(duration_s, 4 * mean_s + LEAD_RUN_S / 4) - mean_s) / 8

    def claimed(self, now: float, wanted: int, got: int, slots: int) -> None:
        """A claim for so many jobs, some for free slots, has lent so many: fetch more ahead while there are, fewer when
        they get scarce.
        """
        if slots:
            self._had_slots_at = now
        if got >= wanted:
            self._prefetch = min(PREFETCH_MAX, max(2 * self._prefetch, self._concurrency))
        elif got < wanted // 4:
            self._prefetch //= 2

    def calm(self) -> None:
        """Fetch nothing ahead for now."""
        self._prefetch = 0

    def ahead(self, now: float) -> int:
        """How many jobs to fetch ahead of free slots: none of long ones, and as many as are run within 0.1 s at most.

        They are fetched when half of them are left, so for a moment there may be half as many again. And none for a
        moment, now and then, so that slots get free: else jobs on their last attempt would wait behind short ones for
        ever.
        """
        if self._mean_s is None or self._mean_s > PREFETCH_RUN_S or now >= self._had_slots_at + LAST_TRY_S:
            return 0
        return min(self._prefetch, self.bearable)

    @property
    def bearable(self) -> int:
        """How many jobs are run within 0.1 s."""
        return int(PREFETCH_RUN_S * self._concurrency / max(self._mean_s or 0.0, 1e-6))

    def batch(self, now: float, outstanding: int) -> int:
        """How many jobs to claim ahead when so many that were fetched ahead have not begun."""
        ahead = self.ahead(now)
        return min(ahead, BATCH_MAX) if outstanding <= ahead // 2 else 0

    def lead(self, name: str) -> int:
        """How many jobs may be handed to the threads beyond those that they can run at once, if this is the next."""
        mean_s = self._mean_of.get(name, LEAD_RUN_S)
        if mean_s >= LEAD_RUN_S or self._elsewhere or not self._runs_in_thread(name):
            return 0
        return int(min(BATCH_MAX, LEAD_S * self._concurrency / max(mean_s, 1e-6)))

    def begins(self, jobs: Sequence[ClaimedJob]) -> None:
        """These, all alike, are handed over. With one that needs no thread a thread is idle: it would begin at once
        what leads.
        """
        if jobs[0].reclaims or not self._runs_in_thread(jobs[0].job_name):
            self._elsewhere.update([(job.id, job.claim_seq) for job in jobs])

    def ended(self, key: tuple[str, int]) -> None:
        """It has a slot no more."""
        if self._elsewhere:
            self._elsewhere.discard(key)

    def _runs_in_thread(self, name: str) -> bool:
        if name not in self._in_threads and self._may_lead(name):  # else not remembered: anybody may push any
            self._in_threads.add(name)
        return name in self._in_threads
