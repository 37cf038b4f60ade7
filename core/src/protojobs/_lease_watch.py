"""What a worker's heartbeats tell it: may it start jobs, may it take back those of others, and when. Pure."""

from __future__ import annotations

from protojobs.records import Heartbeat

__all__ = ["LeaseWatch"]

GOOD_BEATS = 3  # before a worker may reclaim: after an outage the others get their chance to renew first


class LeaseWatch:
    """What a worker's heartbeats have told it: may it start jobs, may it reclaim those of others, and when."""

    def __init__(self, lease_s: float) -> None:
        self.in_doubt = False
        self.next_beat_at = 0.0
        self.last_good_at = 0.0
        self._lease_s = lease_s
        self._good = 0
        self._first_good_at = 0.0
        self._misses = 0
        self.reclaim_at = 0.0

    def begin(self, now: float) -> None:
        """A new registration: it counts as a good beat of its own."""
        self.in_doubt, self._good, self._misses = False, 0, 0
        self.reclaim_at = now + self._lease_s
        self.good_beat(now, Heartbeat())

    def is_beat_due(self, now: float) -> bool:
        """Whether the last good beat is a sixth of the lease ago."""
        return now >= self.next_beat_at

    def good_beat(self, sent_at: float, reply: Heartbeat, jitter: float = 0.0) -> None:
        """The store answered. The lease counts from before the call was sent: a slow success extends nothing."""
        if self._good == 0 or sent_at - self.last_good_at > self._lease_s / 2:
            self._good, self._first_good_at = 0, sent_at
        self._good += 1
        self._misses = 0
        self.in_doubt = False
        self.last_good_at = sent_at
        self.next_beat_at = sent_at + self._lease_s / 6
        self.plan_reclaim(sent_at, reply.others_end_in, jitter)

    def missed_beat(self) -> None:
        """The store did not answer. Two in a row: in doubt, start nothing new."""
        self._good = 0
        self._misses += 1
        self.in_doubt = self._misses >= 2

    def plan_reclaim(self, now: float, others_end_in: float | None, jitter: float) -> None:
        """Reclaim when the earliest other lease ends; for orphans look once a lease in any case."""
        if others_end_in is not None:  # a time that has come stays: a beat must not put the reclaim off
            self.reclaim_at = min(self.reclaim_at, now + max(others_end_in, 0.0) + jitter)

    def may_reclaim(self, now: float) -> bool:
        """Whether it is time, and this worker has seen the store stand long enough."""
        seen_s = self.last_good_at - self._first_good_at
        return self._good >= GOOD_BEATS and seen_s >= self._lease_s / 3 and now >= self.reclaim_at

    def reclaimed(self, now: float, others_end_in: float | None, has_more: bool, jitter: float) -> None:
        """A round is done."""
        self.reclaim_at = now if has_more else now + self._lease_s
        self.plan_reclaim(now, others_end_in, jitter)
