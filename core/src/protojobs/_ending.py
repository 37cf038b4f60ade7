"""How a worker ends that is told to: with grace for what runs, and in bounded time."""

from __future__ import annotations

import math

from protojobs._plan import WorkLimits

__all__ = ["LAST_CALL_S", "Ending"]

LAST_CALL_S = 1.0  # even when a stop should be over


class Ending:
    """From the first word of a stop to its bound."""

    def __init__(self, limits: WorkLimits) -> None:
        self.level = 0  # 1: claim no more, and end once what runs is done; 2: runs are cut now
        self.reason = "stopped"
        self._limits = limits
        self._grace_ends = self._ends_by = math.inf
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

    def stuck(self, now: float, within_s: float = math.inf) -> None:
        """A run cannot be ended: this process must, in `exit_bound`, or sooner if `within_s` is less."""
        left_s = min(self._limits.exit_bound_s, within_s)
        self.stop(now, 1, "stuck")
        self.reason = "stuck"
        # Its retry may be due in exit_bound from now. By then this process must be gone, so its neighbours have half.
        self._grace_ends = min(self._grace_ends, now + left_s / 2)
        self._ends_by = min(self._ends_by, now + left_s)

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
        """How long a call to the store may take."""
        return max(LAST_CALL_S, self._ends_by - now)
