"""Until when the claims of a worker certainly hold, by the monotonic clock: what exclusive runs are cut by."""

from __future__ import annotations

import threading

__all__ = ["LeaseValidity"]

IDENTITIES_MAX = 100  # a worker becomes a new one when it has lost its lease, and tells late results by the old ones
GONE_BEFORE_S = 1.0  # a process must be gone so long before its lease ends, but of a short lease a twentieth
NEVER = float("-inf")


class LeaseValidity:
    """Until when this worker's claims certainly stand, by the monotonic clock, for each identity that it has had.

    A lease counts from the start of the last good heartbeat: the store got it then or later, so the true end of the
    lease is not before the one told here. The heartbeat thread itself writes here: a claim loop that is held up in a
    call to the store hides neither good news nor bad.
    """

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self._lock = threading.Lock()
        self._good_at: dict[str, float] = {}  # identity -> start of its last good beat
        self._lost: set[str] = set()

    def good_beat(self, worker: str, sent_at: float) -> None:
        """The store has answered a heartbeat, or the registration, of this identity; it was sent at that time."""
        with self._lock:
            self._good_at[worker] = max(sent_at, self._good_at.get(worker, sent_at))

    def lost(self, worker: str) -> None:
        """Its row is gone: others may have what was lent to it, whatever is answered later."""
        with self._lock:
            if worker in self._good_at:
                self._lost.add(worker)
            while len(self._lost) > IDENTITIES_MAX:
                oldest = next(iter(self._good_at))
                del self._good_at[oldest]
                self._lost.discard(oldest)

    def ends_at(self, worker: str) -> float:
        """Before this moment no other worker can have its jobs; minus infinity once its lease is lost."""
        with self._lock:
            return NEVER if worker in self._lost else self._good_at.get(worker, NEVER) + self.lease_s

    def safe_until(self, worker: str) -> float:
        """Until when a run that may not overlap with another of its job may go on: for two thirds of the lease.

        By then three heartbeats in a row got no answer: no hiccup, but an outage. The last third is for the run to end.
        A child process is killed after a second; a thread counts as stuck after two, and then its process ends within
        `exit_bound` (10 s), and before its lease can.
        """
        return self.ends_at(worker) - self.lease_s / 3

    def gone_by(self, worker: str) -> float:
        """When a process must be gone in which a run does not end that may overlap with no other of its job."""
        return self.ends_at(worker) - min(GONE_BEFORE_S, self.lease_s / 20)

    def sure_at(self, worker: str) -> float:
        """The last moment at which it certainly held its claims: the start of its last good heartbeat.

        For an identity that is long forgotten the answer is that of the oldest one known.
        """
        with self._lock:
            return self._good_at[worker if worker in self._good_at else next(iter(self._good_at))]
