"""What a worker notes of its runs, for charts and timelines: counted as results are stored, sent every ten seconds.

Beside the work and never in its way: a note that cannot be sent is lost, and a store that does not take it degrades
nobody. Counts are those of store time, which each claim tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from protojobs.clock import Clock, within
from protojobs.entropy import jittered
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.observing import HOUR, MINUTE, NOTES_MAX, AttemptNote, Observes, Result, Rollup, count_into
from protojobs.port.records import ClaimReply, LostJob, Settled, SettleStatus
from protojobs.worker.outcome import Outcome

__all__ = ["Rollups"]

SEND_EVERY_S = 10.0
SEND_S = 2.0  # the claim loop waits for it
# Of the claim loop's time, also of a loop around `work("default", 1)`, which sends at the end of each.
SEND_SHARE = 0.05
LINGER_S = 5.0  # for which a row is kept beyond its period: store time is told by answers, and a slow one lags behind
SAMPLE_EVERY_S = 60.0
KEYS_MAX = 2_000  # rows in memory; what has no row is counted in the totals only
ATTEMPTS_AT_ONCE = 200  # in one sending: a fleet whose jobs do nothing but fail must not outrun what a store expires
ERROR_CHARS_MAX = 16 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESULTS: dict[JobState | None, Result] = {
    JobState.COMPLETED: Result.COMPLETED,
    JobState.FAILED: Result.FAILED,
    JobState.CANCELLED: Result.CANCELLED,
}
_NOTED = frozenset({Result.RETRIED, Result.FAILED})
_STALE, _COMPLETED = SettleStatus.STALE, Result.COMPLETED  # by names of our own, as in the drivers
_log = logging.getLogger("protojobs.worker")

_Name: TypeAlias = tuple[str, str, Result]  # queue, job name, result
_Key: TypeAlias = tuple[int, datetime, str, str, Result]  # period, its beginning, and the same


class _Row:
    """What was counted of one key. The lists are folded into the histograms, a batch at a time."""

    __slots__ = ("count", "run_list", "run_s", "runs", "wait_list", "wait_s", "waits")

    def __init__(self) -> None:
        self.count = 0
        self.wait_s = self.run_s = 0.0
        self.waits: dict[int, int] = {}
        self.runs: dict[int, int] = {}
        self.wait_list: list[float] = []
        self.run_list: list[float] = []

    def fold(self) -> None:
        self.count += len(self.wait_list)
        self.wait_s += max(0.0, sum(self.wait_list))  # a clock may have been set back
        self.run_s += sum(self.run_list)
        count_into(self.waits, self.wait_list)
        count_into(self.runs, self.run_list)
        self.wait_list, self.run_list = [], []

    def add(self, other: _Row) -> None:
        self.count += other.count
        self.wait_s += other.wait_s
        self.run_s += other.run_s
        for mine, theirs in ((self.waits, other.waits), (self.runs, other.runs)):
            for bucket, count in theirs.items():
                mine[bucket] = mine.get(bucket, 0) + count


class Rollups:
    """The notes of one worker, whatever identities it has had. Without an `observer` it does nothing."""

    def __init__(self, observer: Observes | None, worker: str, clock: Clock) -> None:
        self._observer = observer
        self.is_on = observer is not None
        self._worker = worker
        self._clock = clock
        self._store_at: tuple[float, datetime] | None = None  # by the monotonic clock, and by the store's
        self._minute = _EPOCH  # to which the fresh counts belong
        self._fresh: dict[_Name, _Row] = {}  # since they were last folded into the rows
        self._rows: dict[_Key, _Row] = {}  # of the periods that go on, and of those that are not sent
        self._unsent: set[_Key] = set()
        self._notes: list[AttemptNote] = []
        self._misses = 0
        now = clock.monotonic()
        self._send_at = now + jittered(SEND_EVERY_S)
        self._sample_at = now + jittered(SAMPLE_EVERY_S)
        self._free_at = now  # when it may send again without taking more than its share

    # ------------------------------------------------------------------------------------------------- what happened

    def took(self, now: float, reply: ClaimReply, outcomes: Sequence[Outcome]) -> None:
        """A round trip was answered: what it settled is counted."""
        if self._observer is None:
            return
        if reply.claimed:
            self._store_at = now, reply.claimed[-1].reserved_at
        if reply.settled:
            self._count(self._at(now, outcomes[0]), reply.settled, outcomes)

    def _count(self, at: datetime, answers: Sequence[Settled], outcomes: Sequence[Outcome]) -> None:
        """By name and result. One call for a batch, and none for each of its jobs: they are short."""
        fresh = self._of_minute(at)
        changed: dict[_Name, _Row] = {}
        for answer, outcome in zip(answers, outcomes, strict=True):
            claimed = outcome.claimed
            if answer.status is _STALE:
                continue
            result = _COMPLETED if answer.state is JobState.COMPLETED else _result_of(answer, outcome)
            if result is None:
                continue
            name = claimed.queue, claimed.job_name, result
            row = changed.get(name)
            if row is None:
                row = changed[name] = fresh.get(name) or self._new_row(name)
            row.wait_list.append((claimed.reserved_at - claimed.available_at).total_seconds())
            row.run_list.append(outcome.duration_s)
            if result is not _COMPLETED or claimed.attempts > 1:
                self._note(at, outcome, result)
        for row in changed.values():
            row.fold()

    def lost(self, now: float, at: datetime, jobs: Iterable[LostJob]) -> None:
        """These were taken back from workers that were gone. `at`: store time."""
        if self._observer is None:
            return
        self._store_at = now, at
        fresh = self._of_minute(at)
        for job in jobs:
            name = job.queue, job.job_name, Result.LOST
            (fresh.get(name) or self._new_row(name)).count += 1

    # ------------------------------------------------------------------------------------------------ what is sent

    def turn(self, now: float) -> None:
        """Send what is due. Raises nothing."""
        if self._observer is None:
            return
        if now >= max(self._send_at, self._free_at):
            self._send(self._observer, now)
        if now >= self._sample_at:
            self._sample_at = now + jittered(SAMPLE_EVERY_S)
            self._told(self._observer.sample_depths)

    def pause(self) -> None:
        """A `work()` ends, another may follow at once: send, unless that was done a moment ago."""
        if self._observer is not None and self._clock.monotonic() >= self._free_at:
            self._send(self._observer, self._clock.monotonic())

    def end(self) -> None:
        """Send what is left, before the worker leaves."""
        if self._observer is not None:
            self._send(self._observer, self._clock.monotonic())

    def _send(self, observer: Observes, now: float) -> None:
        began = self._clock.monotonic()
        self._send_at = now + jittered(SEND_EVERY_S)
        if self._store_at is None:  # nothing has happened yet
            return
        at = self._at(now, None)
        self._of_minute(at)
        self._fold()
        rollups = [_rollup(key, self._rows[key]) for key in self._unsent]
        is_sent = self._told(lambda: self._record(observer, rollups)) if rollups or self._notes else True
        self._misses = 0 if is_sent else self._misses + 1
        if is_sent:
            self._unsent.clear()
        if is_sent or self._misses > 1:  # a second time nobody tries
            self._notes.clear()
            over = [key for key in self._rows if key[1] + timedelta(seconds=key[0] + LINGER_S) <= at]
            for key in over:
                del self._rows[key]
            self._unsent.difference_update(over)
        ended = self._clock.monotonic()
        self._free_at = ended + (ended - began) * (1 / SEND_SHARE - 1)

    def _record(self, observer: Observes, rollups: Sequence[Rollup]) -> None:
        observer.record(self._worker, rollups[:NOTES_MAX], self._notes)
        for start in range(NOTES_MAX, len(rollups), NOTES_MAX):
            observer.record(self._worker, rollups[start : start + NOTES_MAX], ())

    def _told(self, call: Callable[[], object]) -> bool:
        """Whether the store took it."""
        try:
            with within(SEND_S):
                call()
        except Exception as error:  # noqa: BLE001  (also a driver's mistake: notes must not hurt the work)
            _log.info("notes for charts could not be stored: %s", error)
            return False
        return True

    # ------------------------------------------------------------------------------------------------- the rows

    def _at(self, now: float, outcome: Outcome | None) -> datetime:
        """The store's time: as the last claim told it, or before any that of a job which was adopted."""
        if self._store_at is None:
            assert outcome is not None
            self._store_at = now, outcome.claimed.reserved_at
        then, at = self._store_at
        return at + timedelta(seconds=now - then)

    def _of_minute(self, at: datetime) -> dict[_Name, _Row]:
        """The fresh counts of the minute that goes on; those of the one before become rows."""
        if not self._minute <= at < self._minute + timedelta(seconds=MINUTE):
            self._fold()
            self._minute = _beginning(at, MINUTE)
        return self._fresh

    def _new_row(self, name: _Name) -> _Row:
        if len(self._fresh) >= KEYS_MAX:
            name = "", "", name[2]
        return self._fresh.setdefault(name, _Row())

    def _fold(self) -> None:
        for (queue, job_name, result), row in self._fresh.items():
            for period_s in (MINUTE, HOUR):
                began_at = _beginning(self._minute, period_s)
                self._add((period_s, began_at, "", "", result), row)
                if job_name:
                    self._add((period_s, began_at, queue, job_name, result), row)
        self._fresh.clear()

    def _add(self, key: _Key, fresh: _Row) -> None:
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= KEYS_MAX and key[3]:
                return
            row = self._rows[key] = _Row()
        row.add(fresh)
        self._unsent.add(key)

    def _note(self, at: datetime, outcome: Outcome, result: Result) -> None:
        """A run that failed, and the one that ended a job which had failed before."""
        claimed, said = outcome.claimed, outcome.settlement
        is_end = result in (Result.COMPLETED, Result.CANCELLED) and (claimed.attempts > 1 or outcome.duration_s > 0)
        if not (result in _NOTED or is_end) or len(self._notes) >= ATTEMPTS_AT_ONCE:
            return
        self._notes.append(
            AttemptNote(
                job_id=claimed.id,
                attempt=claimed.attempts,
                claim_seq=claimed.claim_seq,
                worker=claimed.reserved_by,
                result=result,
                started_at=max(at - timedelta(seconds=outcome.duration_s), claimed.reserved_at),
                ended_at=at,
                error=said.error[-ERROR_CHARS_MAX:],
                fingerprint=said.fingerprint,
            )
        )


def _result_of(answer: Settled, outcome: Outcome) -> Result | None:
    if (found := _RESULTS.get(answer.state)) is not None:
        return found
    match outcome.settlement.verb:
        case Verb.RETRY:
            return Result.RETRIED
        case Verb.SNOOZE:
            return Result.SNOOZED
        case _:
            return None  # given back: no run has ended


def _beginning(at: datetime, period_s: int) -> datetime:
    return at - (at - _EPOCH) % timedelta(seconds=period_s)


def _rollup(key: _Key, row: _Row) -> Rollup:
    period_s, began_at, queue, job_name, result = key
    return Rollup(
        period_s=period_s,
        began_at=began_at,
        queue=queue,
        job_name=job_name,
        result=result,
        count=row.count,
        wait_s=row.wait_s,
        run_s=row.run_s,
        waits=dict(row.waits),
        runs=dict(row.runs),
    )
