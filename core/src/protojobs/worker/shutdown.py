"""How a worker ends that is told to: with grace for what runs, and in bounded time."""

from __future__ import annotations

import math

from protojobs.worker.plan import WorkLimits

__all__ = ["LAST_CALL_S", "LAST_WORDS_S", "Shutdown"]

LAST_CALL_S = 1.0  # for the last word to the store, when a stop should be over
LAST_WORDS_S = 0.2  # ... and where the process must be gone


class Shutdown:
    """From the first word of a stop to its bound."""

    def __init__(self, limits: WorkLimits) -> None:
        self.level = 0  # 1: claim no more, and end once what runs is done; 2: runs are cut now
        self.reason = "stopped"
        self._limits = limits
        self._grace_ends = self._ends_by = self._gone_by = math.inf
        self._is_cut = False

    def drain(self, reason: str) -> None:
        """Claim no more, and end once the runs are done, which takes as long as their timeouts allow.

        A limit of the worker's own is no reason to cut a run: the very job that makes it grow would be cut in every
        worker. A stop that comes meanwhile bounds it.
        """
        if self.level == 0:
            self.level, self.reason = 1, reason

    def stop(self, now: float, level: int, reason: str) -> None:
        """Stop; said again with level 2, end sooner."""
        if self.level == 0:
            self.reason = reason
        self.level = max(self.level, level)
        self._grace_ends = min(self._grace_ends, now + self._limits.grace_s)
        self._ends_by = min(self._ends_by, self._grace_ends + self._limits.exit_bound_s)
        if level >= 2:
            self._grace_ends = min(self._grace_ends, now)
            self._ends_by = min(self._ends_by, now + self._limits.exit_bound_s)

    def stuck(self, now: float, gone_by: float) -> None:
        """A run cannot be ended: this process must, by that moment, when others may have its job.

        Its neighbours have half of the time, the worker three quarters, and what follows it in this process the rest.
        """
        left_s = max(0.0, gone_by - now)
        self.stop(now, 1, "stuck")
        self.reason = "stuck"
        self._gone_by = min(self._gone_by, gone_by)
        self._grace_ends = min(self._grace_ends, now + left_s / 2)
        self._ends_by = min(self._ends_by, now + left_s * 3 / 4)

    def left_s(self, now: float) -> float:
        """How long this process may take for whatever is to be done beside its runs; infinite unless it is stuck."""
        return max(0.0, self._gone_by - now)

    def is_over(self, now: float) -> bool:
        """Whether its time is over: what is unsettled by now, others will find by its lease."""
        return now >= self._ends_by

    def cuts(self, now: float) -> bool:
        """Whether the runs are to be cut: True once, when the grace is over."""
        if self._is_cut or now < self._grace_ends:
            return False
        self._is_cut = True
        return True

    @property
    def has_time(self) -> bool:
        """Whether nobody waits for this worker's end."""
        return math.isinf(self._ends_by)

    @property
    def next_at(self) -> float:
        """When it goes on by itself; infinite where no time is set."""
        return self._ends_by if self._is_cut else self._grace_ends

    def call_s(self, now: float) -> float:
        """How long a call to the store may take, also when a stop should be over."""
        return max(self._ends_by - now, min(LAST_CALL_S, max(self.left_s(now) / 2, LAST_WORDS_S)))
