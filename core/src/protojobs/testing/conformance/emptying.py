"""An empty store for the next test: by the port's own verbs where they do it, since making tables anew is slow."""

from __future__ import annotations

from protojobs.protocols import Store
from protojobs.records import JobFilter, Stats

__all__ = ["empty"]

ROUNDS_MAX = 1_000


def empty(driver: Store) -> None:
    """Leave the store set up and with nothing in it, schedules included; raises what the driver raises when it cannot.

    A store that does not end up empty, jobs on their way elsewhere among them, is torn down and set up again.
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
    return is_bare and driver.workers() == [] and driver.queues() == [] and driver.stats() == Stats()
