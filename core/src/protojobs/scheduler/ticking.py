"""Fires the schedules that are due: look, plan, fire, announce. Any number of tickers do so at once; none leads.

The store decides by compare-and-set who moves a schedule on, in the step that stores the job. So a ticker may be
killed, frozen or wrong about the time at any line here: another one goes on from what the store says.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from protojobs.clock import within
from protojobs.errors import NotSupported, ProtojobsError, SchemaOutdated, StoreUnavailable
from protojobs.events import Event, JobQueued, JobQueuing, ScheduleFired, ScheduleMissed, about
from protojobs.port.records import BATCH_BYTES_MAX, BATCH_JOBS_MAX, payload_bytes
from protojobs.port.schedules import DueCursor, DueSchedules, Fired, FireStatus, Firing, Schedule
from protojobs.scheduler.planning import Step, firing_id, job_of, plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from protojobs.queue.queue import JobQueue

__all__ = ["Ticker", "TickReport"]

ROUND = 100  # schedules that are looked at, and times of one schedule that are fired, at once
ROUNDS_MAX = 1_000  # in one tick
PLAN_S = 1.0  # then a round fires what it has planned: after a long outage one schedule may take half a second
CALL_S = 10.0  # a silent store is given up on after so long, at each call
HELD_BACK_S = 30.0  # a schedule that cannot be fired here is tried again so much later; elsewhere it may go well
LOCKED_S = 0.5  # one that another ticker has in hand is looked at again so much later ...
TOLD_AGAIN_S = 3_600.0  # what cannot be fired here is told once an hour ...
TOLD_MAX = 10  # ... and of more than so many at once the number only
STUCK_S = 60.0  # ... and that it does not move is told after so long: a store frees what a frozen ticker holds sooner
_log = logging.getLogger("protojobs.scheduler")


class TickReport(Struct, kw_only=True):
    """What one tick did: jobs stored, times passed over, and steps in which another ticker was faster."""

    fired: int = 0
    missed: int = 0
    overtaken: int = 0
    next_due_in: float | None = None
    """Seconds until something is due; None when nothing is in sight."""


class _Attempt(Struct, frozen=True):
    """A firing on its way, with what there is to tell when it has happened."""

    schedule: Schedule
    step: Step
    firing: Firing


class Ticker:
    """Fires due schedules through one JobQueue. `send` takes the events. For one thread at a time."""

    def __init__(self, queue: JobQueue, send: Callable[[Event], None]) -> None:
        self.send = send
        self._queue = queue
        self._driver = queue.driver
        self._held_back: dict[str, float] = {}  # until when, on the monotonic clock
        self._lost: dict[str, tuple[int, float]] = {}  # the version at which steps are lost, and since when
        self._told: dict[str, float] = {}  # when it was told that a schedule cannot be fired here
        self._told_now = 0  # in this tick

    def tick(self, is_over: Callable[[], bool] = lambda: False) -> TickReport:
        """Fire all that is due now, or what can be until `is_over`, which is asked after each round.

        Raises what the driver raises; what was fired by then stays fired, once.
        """
        report = TickReport(next_due_in=0.0)
        self._told_now = 0
        try:
            self._walk(report, is_over)
        finally:
            if self._told_now > TOLD_MAX:
                _log.error(
                    "%d more schedules cannot be fired here: protojobs schedules list", self._told_now - TOLD_MAX
                )
        return report

    def _walk(self, report: TickReport, is_over: Callable[[], bool]) -> None:
        """Page by page. What cannot be fired stays due, and is walked past."""
        until: datetime | None = None
        cursor: DueCursor | None = None
        has_more = False  # some schedule in front has another time that is due
        for _ in range(ROUNDS_MAX):
            self._let_go()
            with within(CALL_S):
                due = self._driver.due_schedules(min(ROUND + len(self._held_back), BATCH_JOBS_MAX), cursor=cursor)
            until = until or due.now  # what comes due meanwhile is the next tick's
            for one in due.unreadable:
                self._tell_once(one.id, f"cannot be read: {one.why}")
            ready = [one for one in due.schedules if one.id not in self._held_back and _is_due(one, until)]
            attempts, left = self._planned(ready, due.now)
            for batch in _batches(attempts):
                self._fire(batch, due.now, report)
            if is_over():
                return
            ends = (attempt.step.next_due for attempt in attempts if attempt.schedule.id not in self._held_back)
            has_more = has_more or any(end is not None and end <= until for end in ends)
            if left:
                continue  # they stand behind the same place
            if due.cursor is not None:
                cursor = due.cursor
            elif has_more:
                cursor, has_more = None, False
            elif not ready:
                report.next_due_in = _seconds_to(due, self._held_back)
                return

    def _planned(self, ready: Sequence[Schedule], now: datetime) -> tuple[list[_Attempt], int]:
        """The steps of the first of them, and how many are left for the next round: none, if it can be."""
        attempts: list[_Attempt] = []
        ends = self._queue.clock.monotonic() + PLAN_S
        for number, schedule in enumerate(ready, start=1):
            attempts += self._attempts(schedule, now)
            if number == ROUND or self._queue.clock.monotonic() >= ends:
                return attempts, len(ready) - number
        return attempts, 0

    def _fire(self, batch: Sequence[_Attempt], now: datetime, report: TickReport) -> None:
        """Fire all in one call. Where the store refuses it, one by one, so that it is held against one of them only."""
        try:
            with within(CALL_S):
                answers = self._driver.fire([attempt.firing for attempt in batch])
        except (StoreUnavailable, SchemaOutdated, NotSupported):
            raise
        except Exception as error:  # noqa: BLE001  (a job that a plugin has made too large, a rule of the database)
            if len(batch) == 1:
                self._hold_back(batch[0].schedule, f"cannot be fired here: {error}")
                return
            for attempt in batch:
                if attempt.schedule.id not in self._held_back:
                    self._fire([attempt], now, report)
            return
        self._take(batch, answers, now, report)

    def _attempts(self, schedule: Schedule, now: datetime) -> Iterable[_Attempt]:
        """The steps of one schedule. What cannot be fired here stays due, and is told."""
        try:
            steps = plan(schedule, now, ROUND)
            return [_Attempt(schedule, step, self._firing(schedule, step)) for step in steps]
        except (ProtojobsError, OverflowError, ValueError) as error:
            # A plugin refuses the job, this machine does not know the zone, a number in the row is beyond all reason.
            self._hold_back(schedule, f"cannot be fired here: {error}")
            return []

    def _firing(self, schedule: Schedule, step: Step) -> Firing:
        job = None
        if step.fires:
            job = self._queue.hooks.before_push(job_of(schedule, firing_id(schedule.id, step.due), step.due))
            if self._queue.hooks.listens("job.queuing"):
                self.send(about(JobQueuing, job))
        return Firing(id=schedule.id, expected_next=step.expected_next, due=step.due, next_due=step.next_due, job=job)

    def _take(self, batch: Sequence[_Attempt], answers: Sequence[Fired], now: datetime, report: TickReport) -> None:
        overtaken: dict[str, Schedule] = {}
        for attempt, answer in zip(batch, answers, strict=True):
            schedule, step = attempt.schedule, attempt.step
            if answer.status is FireStatus.LOST:
                overtaken[schedule.id] = schedule
                continue
            self._lost.pop(schedule.id, None)
            self._told.pop(schedule.id, None)
            if step.missed:
                report.missed += step.missed
                self._tell_missed(schedule, step, step.missed, "late")
            if answer.status is FireStatus.FIRED:
                report.fired += 1
                self._tell_fired(attempt, now)
            elif answer.status is FireStatus.SKIPPED and step.fires:
                report.missed += 1
                self._tell_missed(schedule, step, 1, "overlap")
        for schedule in overtaken.values():
            report.overtaken += 1
            self._lose(schedule)

    def _tell_fired(self, attempt: _Attempt, now: datetime) -> None:
        schedule, due, job = attempt.schedule, attempt.step.due, attempt.firing.job
        assert job is not None
        late_s = (now - due).total_seconds()
        extra = {"schedule": schedule.id, "job_id": job.id, "attempt": 0, "job_name": job.job_name, "queue": job.queue}
        _log.info("schedule %s: fired for %s", schedule.id, _shown(due), extra=extra)
        if self._queue.hooks.listens("job.queued"):
            self.send(about(JobQueued, job))
        if self._queue.hooks.listens("schedule.fired"):
            self.send(
                ScheduleFired(
                    schedule_id=schedule.id,
                    job_name=job.job_name,
                    job_class=job.job_class,
                    queue=job.queue,
                    due_at=due,
                    job_id=job.id,
                    late_s=late_s,
                )
            )

    def _tell_missed(self, schedule: Schedule, step: Step, count: int, reason: str) -> None:
        first = step.expected_next if reason == "late" else step.due
        if reason == "late":
            many = "1,000 or more" if count >= 1_000 else str(count)
            text = f"missed {many} time(s) from {_shown(first)} on (misfire={schedule.misfire})"
        else:
            text = f"passed over {_shown(first)}: the job before it is not finished (overlap={schedule.overlap})"
        level = logging.WARNING if reason == "late" else logging.INFO
        extra = {"schedule": schedule.id, "job_name": schedule.job_name, "queue": schedule.queue}
        _log.log(level, "schedule %s: %s", schedule.id, text, extra=extra)
        if self._queue.hooks.listens("schedule.missed"):
            self.send(
                ScheduleMissed(
                    schedule_id=schedule.id,
                    job_name=schedule.job_name,
                    job_class=schedule.job_class,
                    queue=schedule.queue,
                    due_at=step.due,
                    first_due_at=first,
                    count=count,
                    reason=reason,
                )
            )

    def _hold_back(self, schedule: Schedule, why: str) -> None:
        self._held_back[schedule.id] = self._queue.clock.monotonic() + HELD_BACK_S
        self._tell_once(schedule.id, why)

    def _tell_once(self, schedule_id: str, why: str) -> None:
        """What is wrong stays wrong, as a rule, and there may be thousands of it."""
        if schedule_id in self._told:
            return
        self._told[schedule_id] = self._queue.clock.monotonic()
        self._told_now += 1
        if self._told_now <= TOLD_MAX:
            _log.error("schedule %s %s", schedule_id, why, extra={"schedule": schedule_id})

    def _lose(self, schedule: Schedule) -> None:
        """Somebody was faster, or is about to be: a store may answer `lost` while another's step has the row locked."""
        now = self._queue.clock.monotonic()
        version, since = self._lost.get(schedule.id, (None, now))
        if version != schedule.version:
            self._lost[schedule.id] = (schedule.version, now)
        elif now - since < STUCK_S:
            self._held_back[schedule.id] = now + LOCKED_S
        else:
            self._hold_back(schedule, "does not move on: the store refuses the step that its own row asks for")

    def _let_go(self) -> None:
        now = self._queue.clock.monotonic()
        self._held_back = {name: until for name, until in self._held_back.items() if until > now}
        # Another may have fired it since, or removed it: what is not lost again is forgotten.
        self._told = {name: at for name, at in self._told.items() if now - at < TOLD_AGAIN_S}
        self._lost = {name: lost for name, lost in self._lost.items() if now - lost[1] < 2 * STUCK_S}


def _seconds_to(due: DueSchedules, held_back: Container[str]) -> float | None:
    """Until the next time; 0 when one has come since the tick began."""
    if any(schedule.id not in held_back for schedule in due.schedules):
        return 0.0
    return None if due.next_due_at is None else max(0.0, (due.next_due_at - due.now).total_seconds())


def _is_due(schedule: Schedule, until: datetime) -> bool:
    return schedule.next_due_at is not None and schedule.next_due_at <= until


def _batches(attempts: Sequence[_Attempt]) -> Iterator[Sequence[_Attempt]]:
    """As many as one call of `fire` takes, in order."""
    batch: list[_Attempt] = []
    size = 0
    for attempt in attempts:
        job_bytes = payload_bytes(attempt.firing.job.data) if attempt.firing.job else 0
        if batch and (len(batch) >= BATCH_JOBS_MAX or size + job_bytes > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(attempt)
        size += job_bytes
    if batch:
        yield batch


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
