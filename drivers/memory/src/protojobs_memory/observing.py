"""Keeping notes beside the jobs of a memory store: what charts, error pages and the audit log are made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from heapq import nlargest
from itertools import islice
from typing import Literal

from protojobs.port.observing import (
    ATTEMPTS_MAX,
    ActionNote,
    ActionPage,
    AttemptNote,
    DepthSample,
    FailureGroup,
    Rollup,
    RollupTotal,
    check_notes,
    merged,
    totalled,
)
from protojobs.port.records import FailedPage
from protojobs.port.rules import check_cursor, shortened
from protojobs_memory.handle import Handle
from protojobs_memory.inspection import count, failed_page

__all__ = ["Observing"]

DEPTHS_MAX = 10_000  # samples in one answer
GROUPS_MAX = 1_000  # groups of failed jobs that one call looks at


class Observing(Handle):
    """The verbs of `protojobs.port.observing.Observes`; their promises are written there."""

    def record(self, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
        """See Observes.record."""
        check_notes(rollups, attempts)
        with self.state.lock:
            for rollup in rollups:
                self.state.notes.add_rollup(worker, rollup)
            for note in attempts:
                self.state.notes.add_attempt(note)

    def rollups(
        self, period_s: int, since: datetime, until: datetime, *, queue: str = "", job_name: str = ""
    ) -> list[Rollup]:
        """See Observes.rollups."""
        is_of_all = not queue and not job_name
        with self.state.lock:
            rows = self.state.notes.rollups_between(period_s, since, until)
            if is_of_all:
                return merged(row for row in rows if not row.queue)
            wanted = (row for row in rows if row.queue and queue in ("", row.queue) and job_name in ("", row.job_name))
            return merged(wanted, queue=queue, job_name=job_name)

    def totals(
        self, period_s: int, since: datetime, until: datetime, *, by: Literal["queue", "job_name"], limit: int = 100
    ) -> list[RollupTotal]:
        """See Observes.totals."""
        with self.state.lock:
            rows = self.state.notes.rollups_between(period_s, since, until)
            return totalled((row for row in rows if row.queue), by=by, limit=limit)

    def sample_depths(self, *, limit: int = 50, counted_max: int = 10_000) -> bool:
        """See Observes.sample_depths. Always exact."""
        with self.state.lock:
            now, notes = self.now(), self.state.notes
            at = now.replace(second=0, microsecond=0)
            if at in notes.depths:
                return False
            counts = {name: count([queue], now) for name, queue in self.state.queues.items()}
            live = {name: stats.pending + stats.processing for name, stats in counts.items()}
            notes.depths[at] = [
                DepthSample(
                    at=at,
                    queue=name,
                    ready=counts[name].pending - counts[name].scheduled,
                    scheduled=counts[name].scheduled,
                    processing=counts[name].processing,
                )
                for name in nlargest(limit, filter(live.get, live), key=live.__getitem__)
            ]
            notes.expire(now)
            return True

    def depths(self, since: datetime, until: datetime, *, queue: str | None = None) -> list[DepthSample]:
        """See Observes.depths."""
        with self.state.lock:
            moments = sorted((at for at in self.state.notes.depths if since <= at < until), reverse=True)
            samples = (each for at in moments for each in self.state.notes.depths[at] if queue in (None, each.queue))
            return list(islice(samples, DEPTHS_MAX))[::-1]

    def attempts(self, job_id: str) -> list[AttemptNote]:
        """See Observes.attempts."""
        with self.state.lock:
            runs = self.state.notes.attempts.get(job_id, {})
            return [runs[claim_seq] for claim_seq in sorted(runs)[-ATTEMPTS_MAX:]]

    def failure_groups(
        self, *, limit: int = 100, counted_max: int = 1_000, chars_max: int | None = None
    ) -> list[FailureGroup]:
        """See Observes.failure_groups."""
        with self.state.lock:
            last = {fingerprint: next(keys.downwards()) for fingerprint, keys in self.state.alike.items()}
            latest = sorted(last, key=last.__getitem__, reverse=True)[: min(limit, GROUPS_MAX)]
            return [self._group(fingerprint, last[fingerprint][1], counted_max, chars_max) for fingerprint in latest]

    def _group(self, fingerprint: str, last_id: str, counted_max: int, chars_max: int | None) -> FailureGroup:
        keys = self.state.alike[fingerprint]
        first = keys.first()
        assert first is not None
        return FailureGroup(
            fingerprint=fingerprint,
            count=min(len(keys), counted_max),
            first_failed_at=first[0],
            last=shortened(self.state.failed[last_id], chars_max),
            is_capped=len(keys) > counted_max,
        )

    def failed_alike(
        self, fingerprint: str, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> FailedPage:
        """See Observes.failed_alike."""
        with self.state.lock:
            keys = self.state.alike.get(fingerprint)
            return failed_page(self.state, keys, None, limit, cursor, chars_max)

    def note_action(self, action: ActionNote) -> None:
        """See Observes.note_action."""
        with self.state.lock:
            self.state.notes.add_action(action)

    def actions(self, *, limit: int = 50, cursor: str | None = None) -> ActionPage:
        """See Observes.actions. The cursor is the last id that was shown."""
        with self.state.lock:
            ids = list(islice(self.state.notes.action_ids.downwards(check_cursor(cursor)), limit + 1))
            found = tuple(self.state.notes.actions[action_id] for action_id in ids[:limit])
            return ActionPage(actions=found, cursor=ids[limit - 1] if len(ids) > limit else None)
