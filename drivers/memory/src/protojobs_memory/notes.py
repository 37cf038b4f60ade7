"""What a memory store keeps of workers' notes, beside its jobs. Whoever calls anything here holds `State.lock`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

from protojobs.port import observing
from protojobs.port.observing import (
    ACTIONS_KEPT_S,
    ATTEMPTS_KEPT_S,
    HOUR,
    MINUTE,
    ActionNote,
    AttemptNote,
    DepthSample,
    Result,
    Rollup,
    kept_since,
)
from protojobs_memory.sorted_keys import SortedKeys, TimeKey

__all__ = ["Notes"]

DROPPED_MAX = 10_000  # notes of one kind that one call of `expire` deletes
READ_MAX = 50_000  # rows of rollups that one call looks at

Key = tuple[str, str, str, Result]  # worker, queue, job name, result


class Notes:
    """Rollups by period and beginning, attempts by job, samples by minute, and the audit log by id."""

    def __init__(self) -> None:
        self.rollups: dict[int, dict[datetime, dict[Key, Rollup]]] = {MINUTE: {}, HOUR: {}}
        self.depths: dict[datetime, list[DepthSample]] = {}
        self.attempts: dict[str, dict[int, AttemptNote]] = {}  # of a job, by claim_seq
        self._ended: SortedKeys[TimeKey] = SortedKeys()  # the same as (ended_at, `job_id/claim_seq`)
        self.actions: dict[str, ActionNote] = {}
        self.action_ids: SortedKeys[str] = SortedKeys()
        self._acted: SortedKeys[TimeKey] = SortedKeys()  # the same by (at, id)

    def add_rollup(self, worker: str, rollup: Rollup) -> None:
        """Store a worker's count, in place of the one that it sent before."""
        rows = self.rollups[rollup.period_s].setdefault(rollup.began_at, {})
        rows[worker, rollup.queue, rollup.job_name, rollup.result] = rollup

    def rollups_between(self, period_s: int, since: datetime, until: datetime) -> Iterator[Rollup]:
        """The rows of all workers that began in the span, the latest first; as many as one call may read."""
        moments = sorted((at for at in self.rollups[period_s] if since <= at < until), reverse=True)
        return islice((row for at in moments for row in self.rollups[period_s][at].values()), READ_MAX)

    def add_attempt(self, note: AttemptNote) -> None:
        """Store it, unless it is there."""
        runs = self.attempts.setdefault(note.job_id, {})
        if note.claim_seq not in runs:
            runs[note.claim_seq] = note
            self._ended.add(_ended_key(note))
            while len(self._ended) > observing.ATTEMPTS_KEPT_MAX and (oldest := self._ended.first()):
                self._drop_attempt(oldest)

    def drop_attempts(self, job_id: str) -> None:
        """Delete what was noted of the job's runs."""
        for note in list(self.attempts.get(job_id, {}).values()):
            self._drop_attempt(_ended_key(note))

    def _drop_attempt(self, key: TimeKey) -> None:
        job_id, _, claim_seq = key[1].rpartition("/")
        del self.attempts[job_id][int(claim_seq)]
        if not self.attempts[job_id]:
            del self.attempts[job_id]
        self._ended.remove(key)

    def add_action(self, action: ActionNote) -> None:
        """Store it, unless it is there."""
        if action.id not in self.actions:
            self.actions[action.id] = action
            self.action_ids.add(action.id)
            self._acted.add((action.at, action.id))

    def expire(self, now: datetime) -> None:
        """Delete what has outlived its time."""
        for period_s, rows in self.rollups.items():
            _drop(rows, kept_since(period_s, now))
        _drop(self.depths, kept_since(MINUTE, now))
        for key in _outlived(self._ended, now, ATTEMPTS_KEPT_S):
            self._drop_attempt(key)
        for key in _outlived(self._acted, now, ACTIONS_KEPT_S):
            del self.actions[key[1]]
            self.action_ids.remove(key[1])
            self._acted.remove(key)


def _ended_key(note: AttemptNote) -> TimeKey:
    return note.ended_at, f"{note.job_id}/{note.claim_seq}"


def _outlived(keys: SortedKeys[TimeKey], now: datetime, kept_s: float) -> list[TimeKey]:
    return list(islice(keys.below((now - timedelta(seconds=kept_s), "")), DROPPED_MAX))


def _drop(moments: dict[datetime, dict[Key, Rollup]] | dict[datetime, list[DepthSample]], since: datetime) -> None:
    for at in [at for at in moments if at < since]:
        del moments[at]
