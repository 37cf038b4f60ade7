"""Stats: what is counted is what is there, at once after the caller's own writes."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from protojobs.port.driver import Store
from protojobs.port.lifecycle import STORED, JobState, Verb
from protojobs.port.records import JobFilter, Stats
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.naming import ALIKE, STRANGE
from protojobs.testing.conformance.steps import all_failed, all_jobs, join, lend, new_job, only, push, settle

__all__ = ["Counting", "assert_counts_are_true"]

TOLERANCE_S = 0.001  # how exactly a store must subtract two moments
AGES = (("a", 0, 50), ("a", 9, 20), ("a", -7, 80), ("b", 0, 30), ("b", 100, 40))


@concern("counting")
class Counting(Fixtures):
    """Per queue and for all; the random walk of the state machine checks the same after every step."""

    def test_an_empty_store_counts_nothing(self, driver: Store) -> None:
        assert driver.stats() == driver.stats("q") == Stats()
        assert driver.queues() == []

    def test_every_state_is_counted_in_its_queue_and_in_all(self, driver: Store) -> None:
        a_job_of_each_state(driver, "a")
        a_job_of_each_state(driver, "b")
        each = Stats(pending=2, processing=1, completed=1, failed=1, cancelled=1, scheduled=1)
        assert driver.stats("a") == driver.stats("b") == each
        assert driver.stats() == Stats(pending=4, processing=2, completed=2, failed=2, cancelled=2, scheduled=2)
        assert driver.stats("a").total == 6
        assert driver.stats("c") == Stats()

    def test_queues_are_listed_by_name_with_their_counts(self, driver: Store, handles: Handles) -> None:
        push(driver, new_job("b"), new_job("a"), new_job("B"), new_job("a"))
        listed = [(queue.name, queue.is_paused, queue.stats.pending) for queue in handles().queues()]
        assert listed == [("B", False, 1), ("a", False, 2), ("b", False, 1)]

    def test_counts_are_exact_right_after_each_write(self, driver: Store) -> None:
        push(driver)
        assert driver.stats("q") == Stats(pending=1)
        worker = join(driver)
        claim = only(lend(driver, worker))
        assert driver.stats("q") == Stats(processing=1)
        settle(driver, claim, Verb.FAIL)
        assert driver.stats("q") == Stats(failed=1)
        driver.retry_failed([job.id for job in all_failed(driver)])
        assert driver.stats("q") == Stats(pending=1)
        settle(driver, lend(driver, worker)[0], Verb.COMPLETE)
        assert driver.stats("q") == Stats(completed=1)
        driver.clear("q")
        assert driver.stats("q") == Stats()

    def test_a_delayed_job_is_scheduled_until_it_is_due(self, driver: Store, later: Later) -> None:
        push(driver, new_job(delay=100), new_job(delay=200), new_job())
        assert driver.stats("q") == Stats(pending=3, scheduled=2)
        assert later(150).stats("q") == Stats(pending=3, scheduled=1)
        assert later(250).stats("q") == later(250).stats() == Stats(pending=3)

    def test_a_job_that_retries_later_is_pending_and_scheduled(self, driver: Store) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        settle(driver, claim, Verb.RETRY, delay=100)
        assert driver.stats("q") == Stats(pending=1, scheduled=1)

    def test_what_is_removed_is_no_longer_counted(self, driver: Store, later: Later) -> None:
        a_job_of_each_state(driver, "a")
        driver.forget_failed([job.id for job in all_failed(driver)])
        assert driver.stats("a").failed == 0
        later(1000).prune(completed_older_than=1)
        assert driver.stats("a") == Stats(pending=2, processing=1, scheduled=1)
        assert_counts_are_true(driver)

    def test_queues_go_on_behind_a_name_page_by_page(self, driver: Store) -> None:
        names = [*ALIKE, *STRANGE.values()]
        push(driver, *[new_job(name) for name in names])
        driver.pause("paused and empty")
        for limit in (4, 30):
            listed: list[str] = []
            while page := driver.queues(after=listed[-1] if listed else "", limit=limit):
                assert len(page) <= limit
                listed += [queue.name for queue in page]
                assert len(listed) <= len(names) + 1
            assert listed == sorted([*names, "paused and empty"])
        for name, first in (("emails", "emails "), ("emailr", "emails")):  # also behind a name that none has
            assert [queue.name for queue in driver.queues(after=name)] == listed[listed.index(first) :]

    def test_counts_say_that_they_may_be_guesses_only_beyond_their_bound(self, driver: Store) -> None:
        a_job_of_each_state(driver, "q")
        push(driver, *[new_job(delay=100 * place) for place in range(5)])
        for counted_max in (4, 100):
            queue = only(driver.queues(counted_max=counted_max))
            for stats in (
                queue.stats,
                driver.stats("q", counted_max=counted_max),
                driver.stats(counted_max=counted_max),
            ):
                assert (stats.completed, stats.failed, stats.cancelled) == (1, 1, 1)
                assert (stats.pending, stats.processing, stats.scheduled) == (7, 1, 5) or stats.is_estimate
        assert driver.stats("q", counted_max=100).is_estimate is False

    def test_the_oldest_due_job_of_any_priority_tells_how_long_it_has_waited(self, driver: Store) -> None:
        now = driver.now()
        dues = {(queue, priority): now - timedelta(seconds=age) for queue, priority, age in AGES}
        jobs = [new_job(queue, priority=priority, available_at=due) for (queue, priority), due in dues.items()]
        push(driver, *jobs, new_job("a", delay=1000))
        driver.pause("b")  # its jobs wait all the same
        before, found, after = driver.now(), driver.queues(), driver.now()
        assert [queue.name for queue in found] == ["a", "b"]
        for queue in found:
            due = min(due for (name, _), due in dues.items() if name == queue.name)
            assert queue.oldest_ready_s is not None
            assert (before - due).total_seconds() - TOLERANCE_S <= queue.oldest_ready_s
            assert queue.oldest_ready_s <= (after - due).total_seconds() + TOLERANCE_S

    def test_a_delayed_job_waits_from_when_it_is_due(self, driver: Store, later: Later) -> None:
        job_id = only(push(driver, new_job(delay=100, priority=3)))
        due = driver.get([job_id])[0].available_at
        assert driver.queues()[0].oldest_ready_s is None
        ahead = later(150)
        before, (queue,), after = ahead.now(), ahead.queues(), ahead.now()
        assert queue.oldest_ready_s is not None
        assert (before - due).total_seconds() - TOLERANCE_S <= queue.oldest_ready_s
        assert queue.oldest_ready_s <= (after - due).total_seconds() + TOLERANCE_S

    def test_where_nothing_is_due_nothing_has_waited(self, driver: Store) -> None:
        a_job_of_each_state(driver, "q")
        lend(driver, join(driver))  # the last one that was due
        driver.pause("empty")
        waited = [(queue.name, queue.oldest_ready_s) for queue in driver.queues()]
        assert waited == [("empty", None), ("q", None)]


def a_job_of_each_state(driver: Store, queue: str) -> None:
    """One job due, one delayed, and one of each other state but `moving`."""
    worker = join(driver)
    for verb in (Verb.COMPLETE, Verb.FAIL, Verb.CANCEL, None):
        push(driver, new_job(queue))
        claim = only(lend(driver, worker, queue))
        if verb is not None:
            settle(driver, claim, verb)
    push(driver, new_job(queue), new_job(queue, delay=100))


def assert_counts_are_true(driver: Store) -> None:
    """Stats agree with the rows themselves, queue by queue."""
    rows = Counter((job.queue, job.status) for job in all_jobs(driver, JobFilter(), limit=1000))
    listed = {queue.name: queue.stats for queue in driver.queues()}
    for queue, stats in [*listed.items(), *((name, driver.stats(name)) for name in {name for name, _ in rows})]:
        for state in STORED:
            if state is not JobState.MOVING:
                assert getattr(stats, state.value) == rows[queue, state], (queue, state)
    assert driver.stats().total == sum(count for (_, state), count in rows.items() if state is not JobState.MOVING)
