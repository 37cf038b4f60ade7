"""Wait: a hint that comes soon, and a bound that always holds."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from protojobs.clock import SYSTEM_CLOCK
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.testing.conformance.fixtures import Fixtures, Handles
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import PATIENCE_S, all_failed, join, lend, new_job, only, push, settle

__all__ = ["Waiting"]

LONG_S = 8.0  # a lost hint shows as this wait
SOON_S = 4.0  # a hint is wanted long before; the rest is for machines under load
SHORT_S = 0.2


@concern("waiting")
class Waiting(Fixtures):
    """A lost hint costs latency, never a job; but in quiet weather none is lost."""

    def test_wait_ends_with_its_timeout(self, driver: Store) -> None:
        started = SYSTEM_CLOCK.monotonic()
        driver.wait(["q"], SHORT_S)
        assert SYSTEM_CLOCK.monotonic() - started < SHORT_S + SOON_S

    def test_wait_without_patience_returns(self, driver: Store) -> None:
        started = SYSTEM_CLOCK.monotonic()
        driver.wait(["q"], 0)
        assert SYSTEM_CLOCK.monotonic() - started < SOON_S

    def test_wait_returns_at_once_when_a_job_is_due(self, driver: Store) -> None:
        push(driver)
        started = SYSTEM_CLOCK.monotonic()
        assert driver.wait(["other", "q"], LONG_S) is True
        assert SYSTEM_CLOCK.monotonic() - started < SOON_S

    def test_an_enqueue_by_another_driver_ends_the_wait(self, driver: Store, handles: Handles) -> None:
        other = handles()
        assert rings(driver, lambda: push(other, new_job()))

    def test_an_enqueue_by_the_same_driver_ends_the_wait(self, driver: Store) -> None:
        assert rings(driver, lambda: push(driver, new_job()))

    def test_a_job_that_becomes_due_in_time_ends_the_wait(self, driver: Store) -> None:
        push(driver, new_job(delay=SHORT_S))
        started = SYSTEM_CLOCK.monotonic()
        assert driver.wait(["q"], LONG_S) is True
        assert SYSTEM_CLOCK.monotonic() - started < SOON_S

    @pytest.mark.parametrize("how", ["reclaim", "resume", "retry_failed"])
    def test_jobs_that_become_due_by_other_means_end_the_wait(self, driver: Store, handles: Handles, how: str) -> None:
        other = handles()
        push(driver)
        worker = join(driver)
        if how == "resume":
            driver.pause("q")
        else:
            claim = only(lend(driver, worker))
            if how == "retry_failed":
                settle(driver, claim, Verb.FAIL)
            else:
                driver.leave(worker)
        acts: dict[str, Callable[[], object]] = {
            "reclaim": lambda: other.reclaim(10),
            "resume": lambda: other.resume("q"),
            "retry_failed": lambda: other.retry_failed([row.id for row in all_failed(other)]),
        }
        assert rings(driver, acts[how])

    def test_a_waiting_driver_serves_its_other_threads(self, driver: Store) -> None:
        waiting = threading.Thread(target=driver.wait, args=(["q"], 1.0), daemon=True)
        waiting.start()
        started = SYSTEM_CLOCK.monotonic()
        worker = join(driver)
        driver.heartbeat(worker, {})
        assert lend(driver, worker) == []
        assert SYSTEM_CLOCK.monotonic() - started < SOON_S
        waiting.join(PATIENCE_S)
        assert not waiting.is_alive()


def rings(driver: Store, act: Callable[[], object]) -> bool:
    """Whether `act` ends a wait that has begun, well before its timeout."""
    answers: list[bool] = []
    started = SYSTEM_CLOCK.monotonic()
    waiting = threading.Thread(target=lambda: answers.append(driver.wait(["q"], LONG_S)), daemon=True)
    waiting.start()
    waiting.join(SHORT_S)  # most likely it waits by now; if not, it sees the job all the same
    act()
    waiting.join(PATIENCE_S)
    return answers == [True] and SYSTEM_CLOCK.monotonic() - started < SOON_S
