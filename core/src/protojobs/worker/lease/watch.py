"""Whether a worker may start jobs, and whether it may reclaim those of others: judged by its heartbeats."""

from __future__ import annotations

from datetime import datetime, timedelta

from protojobs.port.records import Heartbeat

__all__ = ["LeaseWatch"]

_SLACK_S = 0.001  # of the time between two beats: sums of floats
GOOD_BEATS = 3  # before a worker may reclaim: after an outage the others get their chance to renew first


class LeaseWatch:
    """What a worker's heartbeats have told it: may it start jobs, may it reclaim those of others, and when."""

    def __init__(self, lease_s: float) -> None:
        self.in_doubt = False
        self.next_beat_at = 0.0
        self.last_good_at = 0.0
        self._lease_s = lease_s
        self._good = 0  # a sixth of the lease apart: those between are for news, and tell nothing more of the store
        self._counted_at = 0.0
        self._first_good_at = 0.0
        self._misses = 0
        self.reclaim_at = 0.0
        self._beat_at: datetime | None = None  # the last good one, in store time
        self.strangers: set[tuple[str, int]] = set()  # claims that the store said once are ours, and we do not know

    def begin(self, now: float) -> None:
        """A new registration, sent at that time. The lease stands from then on; the good beats are still to come."""
        self.in_doubt, self._good, self._misses = False, 0, 0
        self.strangers = set()
        self.reclaim_at = now + self._lease_s
        self.last_good_at = self._counted_at = now
        self.next_beat_at = now + self._lease_s / 6

    def is_beat_due(self, now: float) -> bool:
        """Whether the last good beat is a sixth of the lease ago."""
        return now >= self.next_beat_at

    def good_beat(self, now: float, sent_at: float, reply: Heartbeat, jitter: float = 0.0) -> None:
        """The store answered. The lease counts from before the call was sent: a slow success extends nothing.

        That the store stands is known from `now` on: the call may have waited for the end of an outage. Where store
        time has leapt (a clock was set, the machine slept) other leases seem to be over: they too get time to renew.
        """
        if self._good == 0 or sent_at - self.last_good_at > self._lease_s / 2 or self._has_leapt(now, reply.at):
            self._good, self._first_good_at = 0, now
        if sent_at - self._counted_at >= self._lease_s / 6 - _SLACK_S:
            self._good += 1
            self._counted_at = sent_at
        self._misses = 0
        self.in_doubt = False
        self.last_good_at = sent_at
        self._beat_at = reply.at
        self.next_beat_at = sent_at + self._lease_s / 6
        self.plan_reclaim(sent_at, reply.others_end_in, jitter)

    def _has_leapt(self, now: float, store_at: datetime | None) -> bool:
        """Whether more time has passed in the store than here, by more than leases can bear."""
        if self._beat_at is None or store_at is None:
            return False
        passed_s = (store_at - self._beat_at).total_seconds()
        return passed_s - (now - self.last_good_at) > self._lease_s / 6

    def store_now(self, now: float) -> datetime | None:
        """The store's time, as the last good beat told it; None before any."""
        return None if self._beat_at is None else self._beat_at + timedelta(seconds=now - self.last_good_at)

    def missed_beat(self) -> None:
        """The store did not answer. Two in a row: in doubt, start nothing new."""
        self._good = 0
        self._misses += 1
        self.in_doubt = self._misses >= 2

    def is_in_doubt(self, now: float) -> bool:
        """Whether the lease may be about to end: two beats in a row were missed, or none was made for as long as that.

        A process that was frozen finds on waking that time has passed, before its first beat tells it what it lost.
        """
        return self.in_doubt or now - self.last_good_at > self._lease_s / 2

    def plan_reclaim(self, now: float, others_end_in: float | None, jitter: float) -> None:
        """Reclaim when the earliest other lease ends; for orphans look once a lease in any case."""
        if others_end_in is not None:  # a time that has come stays: a beat must not put the reclaim off
            self.reclaim_at = min(self.reclaim_at, now + max(others_end_in, 0.0) + jitter)

    def may_reclaim(self, now: float) -> bool:
        """Whether it is time, and this worker has seen the store stand long enough."""
        is_fresh = now - self.last_good_at <= self._lease_s / 2  # this loop may have been held up for as long as that
        return not self.is_young and is_fresh and now >= self.reclaim_at

    @property
    def reclaim_until(self) -> datetime | None:
        """The store time after which a reclaim does nothing, since it was held up on its way.

        The store may have been away meanwhile. No outage of less than five sixths of a lease can end that of a worker
        which beats every sixth, so half a lease is soon enough.
        """
        return None if self._beat_at is None else self._beat_at + timedelta(seconds=self._lease_s / 2)

    @property
    def is_young(self) -> bool:
        """Whether this worker cannot know yet that the others had their chance to renew. It can after half a lease."""
        return self._good < GOOD_BEATS or self.last_good_at - self._first_good_at < self._lease_s / 3

    def reclaimed(self, now: float, others_end_in: float | None, has_more: bool, jitter: float) -> None:
        """A round is done."""
        self.reclaim_at = now if has_more else now + self._lease_s
        self.plan_reclaim(now, others_end_in, jitter)
