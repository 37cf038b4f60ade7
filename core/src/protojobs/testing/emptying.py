"""An empty store for the next test: by the port's own verbs where they do it, since making tables anew is slow."""

from __future__ import annotations

from datetime import UTC, datetime

from protojobs.port.driver import Store
from protojobs.port.observing import HOUR, MINUTE, Observes
from protojobs.port.records import JobFilter, Stats

__all__ = ["empty"]

ROUNDS_MAX = 1_000
EVER = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def empty(driver: Store) -> None:
    """Leave the store set up and with nothing in it, schedules included; raises what the driver raises when it cannot.

    A store that does not end up empty, since jobs are on their way elsewhere or notes were kept, is torn down and set
    up again.
    """
    try:
        _sweep(driver)
        is_empty = _is_empty(driver)
    except Exception:  # noqa: BLE001  not set up, or broken in whatever way: the tests will say how
        is_empty = False
    if not is_empty:
        driver.teardown()
        driver.setup()


def _sweep(driver: Store) -> None:
    for worker in driver.workers():
        driver.leave(worker.id)
    rounds = 0
    while rounds < ROUNDS_MAX and driver.reclaim(1_000).has_more:
        rounds += 1
    for queue in driver.queues():
        if queue.is_paused:
            driver.resume(queue.name)
        while rounds < ROUNDS_MAX and driver.clear(queue.name).has_more:
            rounds += 1
    while rounds < ROUNDS_MAX and (page := driver.list_schedules(limit=1_000)).schedules:
        rounds += 1
        for schedule in page.schedules:
            driver.remove_schedule(schedule.id)


def _is_empty(driver: Store) -> bool:
    jobs, failed = driver.find(JobFilter()), driver.failed()
    is_bare = not (jobs.jobs or jobs.cursor or failed.jobs or failed.cursor or driver.list_schedules(limit=1).schedules)
    return (
        is_bare
        and driver.workers() == []
        and driver.queues() == []
        and driver.stats() == Stats()
        and not _has_notes(driver)
    )


def _has_notes(driver: Store) -> bool:
    """Whether it keeps any; but those of attempts, which only those who know a job's id can see."""
    if not isinstance(driver, Observes):
        return False
    rollups = (driver.rollups(period_s, *EVER) for period_s in (MINUTE, HOUR))
    totals = (driver.totals(period_s, *EVER, by="queue", limit=1) for period_s in (MINUTE, HOUR))
    return any((*rollups, *totals, driver.depths(*EVER), driver.actions(limit=1).actions))
