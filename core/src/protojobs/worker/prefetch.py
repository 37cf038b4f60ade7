"""How many jobs a worker claims before a slot is free: only short ones, for what waits here runs nowhere else."""

from __future__ import annotations

__all__ = ["BATCH_MAX", "PREFETCH_RUN_S", "Prefetch"]

BATCH_MAX = 200  # jobs claimed ahead at once: the knee of the measured sizes; docs/decisions/0003
PREFETCH_MAX = 2 * BATCH_MAX  # while the store has one batch in hand, the threads have the other
PREFETCH_RUN_S = 0.1  # jobs that take longer gain nothing from being claimed ahead
LAST_TRY_S = 0.5  # a job on its last attempt is lent to a free slot only, so one must be free as often as this


class Prefetch:
    """Grows while every claim comes back full, and shrinks when jobs get scarce."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._size = 0
        self._had_slots_at = float("-inf")
        self._mean_s: float | None = None  # of all runs

    def measure(self, duration_s: float) -> None:
        """A run took so long."""
        if self._mean_s is None:
            self._mean_s = duration_s
        self._mean_s += (duration_s - self._mean_s) / 5

    def claimed(self, now: float, wanted: int, got: int, slots: int) -> None:
        """A claim for `wanted` jobs, `slots` of them for free slots, has brought `got`."""
        if slots:
            self._had_slots_at = now
        if got >= wanted:
            self._size = min(PREFETCH_MAX, max(2 * self._size, self._concurrency))
        elif got < wanted // 4:
            self._size //= 2

    def pause(self) -> None:
        """Claim nothing ahead for now."""
        self._size = 0

    def ahead(self, now: float) -> int:
        """How many jobs to claim ahead of free slots: none of long ones, and as many as are run within 0.1 s at most.

        They are claimed when half of them are left, so for a moment there may be half as many again. And none for a
        moment, now and then, so that slots get free: else jobs on their last attempt would wait behind short ones for
        ever.
        """
        if not self._size or self._mean_s is None or self._mean_s > PREFETCH_RUN_S:
            return 0
        return 0 if now >= self._had_slots_at + LAST_TRY_S else min(self._size, self.bearable)

    def batch(self, now: float, outstanding: int) -> int:
        """How many jobs to claim ahead when so many that were claimed ahead have not begun."""
        ahead = self.ahead(now)
        return min(ahead, BATCH_MAX) if outstanding <= ahead // 2 else 0

    @property
    def bearable(self) -> int:
        """How many jobs are run within 0.1 s."""
        return int(PREFETCH_RUN_S * self._concurrency / max(self._mean_s or 0.0, 1e-6))
