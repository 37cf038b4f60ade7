"""Short jobs are handed to the threads before one is free: so many as are run within 10 ms. docs/decisions/0019.

A thread that waits for the claim loop after each run loses 50 us, much for a job of less than a millisecond. So such
jobs lie ready in front of the threads, which take the next one by themselves. What lies there too long comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protojobs.port.records import ClaimedJob

__all__ = ["HANDOVER_WAIT_S", "Handover"]

SHORT_RUN_S = 0.001  # jobs that take longer do not mind the claim loop's 50 us
AHEAD_S = 0.01  # so much work of short jobs lies ready in front of the threads
AHEAD_MAX = 200  # jobs
HANDOVER_WAIT_S = 0.25  # a job that no thread has begun after so long is taken back


class Handover:
    """Knows how long the jobs of each name run. `in_threads(name)`: whether jobs of that name run in threads."""

    def __init__(self, concurrency: int, in_threads: Callable[[str], bool], now: float) -> None:
        self.progress_at = now  # when a run ended, or nothing lay ready
        self._concurrency = concurrency
        self._in_threads = in_threads
        self._mean_s: dict[str, float] = {}  # by name
        self._names: set[str] = set()  # known to run in threads: it is asked for each job
        self._elsewhere: set[tuple[str, int]] = set()  # runs that may have a slot and no thread

    def room(self, name: str) -> int:
        """How many jobs may be handed over beyond those that the threads can run at once, if this is the next."""
        mean_s = self._mean_s.get(name, SHORT_RUN_S)
        if mean_s >= SHORT_RUN_S or self._elsewhere or not self._runs_in_thread(name):
            return 0
        return int(min(AHEAD_MAX, AHEAD_S * self._concurrency / max(mean_s, 1e-6)))

    def begin(self, jobs: Sequence[ClaimedJob]) -> None:
        """These, all alike, are started. Beside one that needs no thread a thread is idle, and would begin at once
        what is meant to lie ready.
        """
        if jobs[0].reclaims or not self._runs_in_thread(jobs[0].job_name):
            self._elsewhere.update([(job.id, job.claim_seq) for job in jobs])

    def end(self, now: float, key: tuple[str, int]) -> None:
        """It has a slot no more."""
        self.progress_at = now
        if self._elsewhere:
            self._elsewhere.discard(key)

    def measure(self, name: str, duration_s: float) -> None:
        """A run took so long. A thread that waits for the interpreter's lock in the middle says nothing of its job."""
        mean_s = self._mean_s.get(name, duration_s)
        self._mean_s[name] = mean_s + (min(duration_s, 4 * mean_s + SHORT_RUN_S / 4) - mean_s) / 8

    def is_late(self, now: float) -> bool:
        """Whether no run has ended for so long that what lies ready shall come back: others may be quicker."""
        return now >= self.progress_at + HANDOVER_WAIT_S

    def _runs_in_thread(self, name: str) -> bool:
        if name not in self._names and self._in_threads(name):  # else not remembered: anybody may push any name
            self._names.add(name)
        return name in self._names
