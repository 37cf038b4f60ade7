"""Delay: a job is due at its moment, not a microsecond before, and by the store's time alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.testing.conformance.fixtures import Fixtures, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import job_of, join, lend, new_job, only, push, settle, their_ids

__all__ = ["Delays"]

HOUR_S = 3600.0
MARGIN_S = 30.0  # the store's clock goes on while a test runs; nothing here takes nearly as long


@concern("delays")
class Delays(Fixtures):
    """Not before its time; and as soon as it has come."""

    def test_a_delay_is_counted_from_the_stores_now(self, driver: Store, later: Later) -> None:
        here = only(push(driver, new_job(delay=HOUR_S)))
        there = only(push(later(500), new_job(delay=HOUR_S)))
        for job_id in (here, there):
            job = job_of(driver, job_id)
            assert job.available_at - job.created_at == timedelta(seconds=HOUR_S)
        assert job_of(driver, there).created_at > job_of(driver, here).created_at + timedelta(seconds=500 - MARGIN_S)

    def test_a_delayed_job_is_not_lent_before_its_time(self, driver: Store, later: Later) -> None:
        push(driver, new_job(delay=HOUR_S))
        worker = join(driver)
        assert lend(driver, worker) == []
        assert lend(later(HOUR_S - MARGIN_S), worker) == []

    def test_a_delayed_job_is_lent_when_its_time_has_come(self, driver: Store, later: Later) -> None:
        job_id = only(push(driver, new_job(delay=HOUR_S)))
        worker = join(driver)
        assert their_ids(lend(later(HOUR_S), worker)) == [job_id]

    def test_no_claim_is_early_by_a_microsecond(self, driver: Store) -> None:
        worker = join(driver)
        for step in range(1, 30):
            due = driver.now() + timedelta(microseconds=step * 400)
            push(driver, new_job(available_at=due))
            claims = lend(driver, worker)
            early = [(job.reserved_at, job.available_at) for job in claims if job.reserved_at < job.available_at]
            assert early == [], "lent (when) before it was due (when)"

    def test_a_moment_wins_over_a_delay(self, driver: Store) -> None:
        moment = driver.now() - timedelta(seconds=1)
        job_id = only(push(driver, new_job(available_at=moment, delay=HOUR_S)))
        assert job_of(driver, job_id).available_at == moment
        assert their_ids(lend(driver, join(driver))) == [job_id]

    def test_a_moment_ahead_is_waited_for(self, driver: Store, later: Later) -> None:
        job_id = only(push(driver, new_job(available_at=driver.now() + timedelta(days=3650))))
        worker = join(driver)
        assert lend(later(3649 * 86400.0), worker) == []
        assert their_ids(lend(later(3650 * 86400.0), worker)) == [job_id]

    def test_a_delayed_job_of_high_priority_holds_up_nobody(self, driver: Store) -> None:
        push(driver, *[new_job(priority=100, delay=HOUR_S) for _ in range(20)])
        job_id = only(push(driver, new_job(priority=-100)))
        assert their_ids(lend(driver, join(driver), limit=1)) == [job_id]

    def test_a_delayed_job_that_came_due_takes_its_place_by_its_due_time(self, driver: Store, later: Later) -> None:
        early = only(push(driver, new_job(delay=100)))
        late = only(push(later(200), new_job()))
        assert their_ids(lend(later(300), join(driver))) == [early, late]

    @pytest.mark.parametrize("verb", [Verb.RETRY, Verb.SNOOZE, Verb.RELEASE])
    def test_a_job_that_runs_again_later_waits_for_it(self, driver: Store, later: Later, verb: Verb) -> None:
        job_id = only(push(driver))
        worker = join(driver)
        claim = only(lend(driver, worker))
        before = driver.now()
        answer = settle(driver, claim, verb, delay=HOUR_S)
        assert answer.available_at is not None
        assert before + timedelta(seconds=HOUR_S) <= answer.available_at <= driver.now() + timedelta(seconds=HOUR_S)
        assert lend(later(HOUR_S - MARGIN_S), worker) == []
        assert their_ids(lend(later(HOUR_S), worker)) == [job_id]

    def test_a_driver_with_an_offset_lives_that_much_ahead(self, driver: Store, later: Later) -> None:
        ahead = later(HOUR_S).now() - driver.now()
        assert abs(ahead.total_seconds() - HOUR_S) < MARGIN_S

    def test_store_time_does_not_run_backwards(self, driver: Store) -> None:
        times = [driver.now() for _ in range(20)]
        assert times == sorted(times)
        assert {moment.utcoffset() for moment in times} == {timedelta(0)}
