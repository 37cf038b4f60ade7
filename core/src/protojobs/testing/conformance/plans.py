"""Short words for what tests do with schedules. Nothing but the public port stands behind them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from protojobs.port.driver import Store
from protojobs.port.records import NewJob
from protojobs.port.schedules import DueCursor, FireStatus, Firing, Overlap, Schedule
from protojobs.testing.conformance.steps import new_job, only

__all__ = [
    "MICROSECOND",
    "MINUTE",
    "TIMES",
    "a_due_schedule",
    "all_due",
    "all_schedules",
    "firing_of",
    "job_id_of",
    "new_schedule",
    "outcomes",
    "paused",
    "schedule_of",
    "store_schedule",
]

MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)
TIMES = 30  # of a due schedule that lie behind


def new_schedule(id: str = "s", *, due: datetime | None, overlap: Overlap = Overlap.ALLOW) -> Schedule:
    """A schedule as core would make it: its next time is `due`, and it fires jobs of the queue `q`."""
    return Schedule(
        id=id,
        spec="every 60",
        overlap=overlap,
        queue="q",
        job_name="tests.job",
        job_class="tests.Job",
        data='{"n":1}',
        next_due_at=due,
    )


def store_schedule(driver: Store, schedule: Schedule) -> Schedule:
    """Save one of a new id; as it stands."""
    assert driver.save_schedule(schedule, version=0) is True
    return schedule_of(driver, schedule.id)


def a_due_schedule(driver: Store, name: str = "s", *, overlap: Overlap = Overlap.ALLOW) -> Schedule:
    """One that has been due every minute for half an hour, at odd microseconds; as it stands."""
    due = driver.now().replace(microsecond=123_457) - (TIMES + 1) * MINUTE
    return store_schedule(driver, new_schedule(name, due=due, overlap=overlap))


def schedule_of(driver: Store, schedule_id: str) -> Schedule:
    """The schedule as it stands in the store."""
    schedule = only(driver.get_schedules([schedule_id]).schedules)
    return schedule


def paused(driver: Store, schedule: Schedule) -> bool:
    """Pause it, if it is still of this version; whether it was."""
    return driver.save_schedule(replace(schedule, is_paused=True), version=schedule.version)


def firing_of(schedule: Schedule, *, passed: int = 0, job: NewJob | None = None) -> Firing:
    """The step of a schedule to the time a minute after the one it waits for, with a job of a fresh id.

    The n-th of several steps that follow each other has passed n - 1 minutes.
    """
    assert schedule.next_due_at is not None
    due = schedule.next_due_at + passed * MINUTE
    fresh = job or new_job(schedule.queue, job_name=f"due {due.isoformat()}", available_at=due)
    return Firing(id=schedule.id, expected_next=due, due=due, next_due=due + MINUTE, job=fresh)


def job_id_of(said: Firing) -> str:
    """The id of the job that is to be fired."""
    assert said.job is not None
    return said.job.id


def outcomes(driver: Store, *firings: Firing) -> list[FireStatus]:
    """Fire all in one call; what came of each. The answers carry the ids of their schedules."""
    answers = driver.fire(firings)
    assert [answer.id for answer in answers] == [said.id for said in firings]
    return [answer.status for answer in answers]


def all_schedules(driver: Store, *, limit: int = 100) -> Sequence[Schedule]:
    """All that are listed, page by page."""
    schedules: list[Schedule] = []
    cursor: str | None = None
    while True:
        page = driver.list_schedules(limit=limit, cursor=cursor)
        assert len(page.schedules) <= limit
        assert page.cursor is None or page.cursor != cursor, "the next page is this one again"
        schedules.extend(page.schedules)
        assert len({schedule.id for schedule in schedules}) == len(schedules), "a page shows what was shown"
        cursor = page.cursor
        if cursor is None:
            return schedules


def all_due(driver: Store, *, limit: int) -> Sequence[Schedule]:
    """All that are due, page by page, though none of them is fired."""
    schedules: list[Schedule] = []
    cursor: DueCursor | None = None
    while True:
        page = driver.due_schedules(limit, cursor=cursor)
        assert len(page.schedules) <= limit
        assert page.unreadable == ()
        assert page.cursor is None or page.cursor != cursor, "the next page is this one again"
        schedules.extend(page.schedules)
        assert len({schedule.id for schedule in schedules}) == len(schedules), "a page shows what was shown"
        cursor = page.cursor
        if cursor is None:
            return schedules
