"""Whether a worker with nothing to do stays for the jobs of a dead one. docs/decisions/0029.

A worker may take those back once it is half a lease old, for else an outage could cost the living their leases. A fleet
of workers that live shorter would never do it. So one stays that long, where there is such a job.
"""

from __future__ import annotations

import logging

from protojobs.errors import DriverError
from protojobs.worker.lease.maintenance import Maintenance
from protojobs.worker.lease.watch import LeaseWatch

__all__ = ["STAY_S", "Staying"]

STAY_S = 1.0  # between two looks at whether there still are such jobs
_REASONS = ("empty", "max_jobs", "max_time")  # that a worker ends for, with nothing running
_log = logging.getLogger("protojobs.worker")


class Staying:
    """Of one `work()`."""

    def __init__(self, maintenance: Maintenance, watch: LeaseWatch, lease_s: float) -> None:
        self._maintenance = maintenance
        self._watch = watch
        self._lease_s = lease_s
        self._at_most: float | None = None
        self._waits_for = ""  # the id of a dead worker

    def is_needed(self, now: float, reason: str, *, ends_when_empty: bool) -> bool:
        """Whether to stay for STAY_S and look again. `reason`: why it would end."""
        if reason not in _REASONS or (reason == "max_jobs" and ends_when_empty):
            return False
        if self._at_most is None:
            self._at_most = now + self._lease_s * 2 / 3 + STAY_S
        elif now >= self._at_most:
            return False
        if not self._watch.is_young:
            return self._watch.may_reclaim(now)
        if not self._left_behind():
            return False
        self._watch.plan_reclaim(now, 0.0, 0.0)
        return True

    def _left_behind(self) -> str:
        try:
            dead = self._maintenance.left_behind()
        except DriverError:
            return ""
        if dead and dead != self._waits_for:
            _log.info("worker %s died and holds jobs; staying until they may be taken back, about half a lease", dead)
        self._waits_for = dead
        return dead
