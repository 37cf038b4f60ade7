"""A schedule under faults: registered, brought to rest, and its times judged by the store and by who ticked."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from protojobs import JobQueue, Scheduler
from protojobs.port.records import JobFilter, JobRecord
from protojobs.port.schedules import Schedule

from .crew import Crew, wait_for
from .history import Pushed
from .jobs import tick

__all__ = ["Registered", "Times", "every_minute", "every_second", "rested"]

PAGE = 1_000
BEHIND_S = 2.0  # a schedule whose next time is not older than this has caught up
LATE_S = 2.0  # one that fires later than that has waited for somebody
CLOCKS_S = 0.05  # the wall clock and the monotonic one, read one after the other at the end of the run


@dataclass(frozen=True)
class Registered:
    """A schedule of which no time may be left out, and how far its times lie apart."""

    id: str
    first: datetime
    step: timedelta


def every_second(queue: JobQueue, schedule_id: str = "each second") -> Registered:
    """Fires `tick` at each whole second of the store's clock, from a second or two ahead on."""
    start = queue.driver.now().replace(microsecond=0) + timedelta(seconds=2)
    made = Scheduler(queue).every(tick.bind(), 1, id=schedule_id, misfire="all", start=start)
    return Registered(made.id, start, timedelta(seconds=1))


def every_minute(queue: JobQueue, schedule_id: str = "each minute") -> Registered:
    """Fires `tick` by a cron expression, at the beginning of each minute."""
    first = queue.driver.now().replace(second=0, microsecond=0) + timedelta(minutes=1)
    made = Scheduler(queue).cron(tick.bind(), "* * * * *", id=schedule_id, misfire="all", start=first)
    return Registered(made.id, first, timedelta(minutes=1))


@dataclass(frozen=True)
class Times:
    """What a schedule has done, and what there was to be done."""

    registered: Registered
    last_due_at: datetime | None  # by the schedule's own row
    last_job_id: str | None
    jobs: list[tuple[datetime, JobRecord]]  # what it fired, each with its time
    told: list[datetime]  # the times that tickers say they have fired
    missed: list[datetime] = field(default_factory=list)  # those that tickers say they have passed over
    has_caught_up: bool = True  # when it was brought to rest

    def complaints(self) -> Iterator[str]:
        """Each broken promise: a time without a job, with two, or early, or fired by two tickers; a row that is off."""
        name, wanted = self.registered.id, self._wanted()
        due, told = Counter(moment for moment, _ in self.jobs), Counter(self.told)
        yield from (f"{name}: no job for {moment}" for moment in wanted if moment not in due)
        yield from (f"{name}: {count} jobs for {moment}" for moment, count in sorted(due.items()) if count > 1)
        off = sorted(due.keys() - set(wanted))
        yield from (f"{name}: a job for {moment}, which is not one of its times" for moment in off)
        early = sorted(moment for moment, job in self.jobs if job.created_at < moment)
        yield from (f"{name}: the job for {moment} was stored before its time" for moment in early)
        yield from (f"{name}: {count} tickers fired {moment}" for moment, count in sorted(told.items()) if count > 1)
        yield from (f"{name}: {moment} was fired, and has no job" for moment in sorted(told.keys() - due.keys()))
        yield from (f"{name}: a ticker passed over {moment}" for moment in self.missed)
        if not self.has_caught_up:
            yield f"{name}: nobody has caught up with it; it stands at {self.last_due_at}"
        latest = max(self.jobs, key=lambda item: item[0], default=None)
        if latest is None:
            yield f"{name} has never fired"
        elif (self.last_due_at, self.last_job_id) != (latest[0], latest[1].id):
            yield f"{name}: its row says {self.last_due_at}, {self.last_job_id}; its last job is of {latest[0]}"

    def _wanted(self) -> list[datetime]:
        """Its times, from the first to the last that it says it has passed."""
        first, step = self.registered.first, self.registered.step
        last = max([self.last_due_at or first, *(moment for moment, _ in self.jobs)])
        return [first + number * step for number in range((last - first) // step + 1)]

    def fired(self) -> dict[str, Pushed]:
        """Its jobs as a history has them: acknowledged, and none may begin before its time."""
        ahead_s = time.time() - time.monotonic() + CLOCKS_S
        return {job.id: Pushed(due.timestamp() - ahead_s, is_acknowledged=True) for due, job in self.jobs}

    @property
    def latest_s(self) -> float:
        """How long after its time a job was stored, at most."""
        return max(self._late(), default=0.0)

    def _late(self) -> list[float]:
        return [(job.created_at - due).total_seconds() for due, job in self.jobs]

    def figures(self) -> dict[str, object]:
        """What there was of them."""
        name, wanted = self.registered.id, self._wanted()
        due = {moment for moment, _ in self.jobs}
        return {
            f"{name}: times": len(wanted),
            f"{name}: fired": len(self.jobs),
            f"{name}: doubled": len(self.jobs) - len(due),
            f"{name}: missing": len(set(wanted) - due),
            f"{name}: latest after s": round(self.latest_s, 2),
            f"{name}: after more than 2 s": sum(late > LATE_S for late in self._late()),
        }


def rested(queue: JobQueue, crew: Crew, registered: Registered, *, within_s: float) -> Times:
    """Wait until somebody has caught up with the schedule, pause it for good, and see what it has done."""
    scheduler = Scheduler(queue)

    def has_caught_up() -> bool:
        known = _stored(scheduler, registered)
        return known.next_due_at is not None and known.next_due_at > queue.driver.now() - timedelta(seconds=BEHIND_S)

    with contextlib.suppress(TimeoutError):
        wait_for("somebody to catch up", has_caught_up, within_s)
    is_behind = not has_caught_up()
    scheduler.pause(registered.id)
    known = _stored(scheduler, registered)
    told = [entry for entry in crew.entries("schedule.fired", "schedule.missed") if entry["id"] == registered.id]
    return Times(
        registered,
        known.last_due_at,
        known.last_job_id,
        list(_jobs(queue, registered)),
        _moments(told, "schedule.fired"),
        _moments(told, "schedule.missed"),
        has_caught_up=not is_behind,
    )


def _moments(told: list[dict[str, object]], what: str) -> list[datetime]:
    return [datetime.fromisoformat(str(entry["due_at"])) for entry in told if entry["what"] == what]


def _stored(scheduler: Scheduler, registered: Registered) -> Schedule:
    known = scheduler.get(registered.id)
    assert known is not None, f"schedule {registered.id} is gone"
    return known


def _jobs(queue: JobQueue, registered: Registered) -> Iterator[tuple[datetime, JobRecord]]:
    """All that it fired, found by their name and not by their ids: a second job of one time would have another id."""
    cursor: str | None = None
    while True:
        page = queue.driver.find(JobFilter(job_name=tick.definition.name), limit=PAGE, cursor=cursor)
        for job in page.jobs:
            meta = json.loads(job.meta or "{}")
            if meta.get("schedule") == registered.id:
                yield datetime.fromisoformat(meta["due_at"]), job
        if (cursor := page.cursor) is None:
            return
