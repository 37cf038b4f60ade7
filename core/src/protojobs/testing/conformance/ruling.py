"""The rules of every verb, as protojobs.port.driver has them at its top: what is asked of all verbs alike."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from protojobs.errors import SchemaOutdated, StoreUnavailable
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.records import JobFilter
from protojobs.port.transactions import Begins, SupportsTransaction
from protojobs.testing.conformance.counting import assert_counts_are_true
from protojobs.testing.conformance.fixtures import Fixtures, Handles
from protojobs.testing.conformance.forking import Told, can_mark, in_a_fork, mark_all, open_files, unmarked
from protojobs.testing.conformance.levels import NOT_CLAIMED, concern
from protojobs.testing.conformance.steps import (
    all_well,
    at_once,
    join,
    lend,
    new_job,
    only,
    push,
    settlement,
    their_ids,
)
from protojobs.testing.conformance.verbs import VERBS, outcome_of, within_limit

__all__ = ["Ruling"]

LIMIT_S = 0.2  # what a caller has
SOON_S = 4.0  # until when it is told, on a machine under load; a driver's own bound is more
ROUNDS = 5
ATTEMPTS = 3  # other threads of the test's process open files too


@concern("rules")
class Ruling(Fixtures):
    """What core takes for granted, whichever verb it calls."""

    @pytest.fixture
    def hold(self, driver: Store) -> Callable[[], AbstractContextManager[object]]:
        """May be given: a callable that answers a context manager, in whose block somebody else holds what the verbs
        need, such as a lock on the tables. By default a transaction with a job in it, where the driver has `begin`.
        """
        if not (isinstance(driver, Begins) and isinstance(driver, SupportsTransaction)):
            pytest.skip(f"{NOT_CLAIMED}hold (no fixture `hold`, and no `begin`)")

        @contextmanager
        def held() -> Generator[None]:
            with driver.begin() as transaction:
                driver.enqueue_in(transaction, [new_job()])
                yield

        return held

    @pytest.fixture
    def unreachable(self) -> Callable[[], Store]:
        """May be given: a callable that makes a driver whose store cannot be reached, such as one on a closed port."""
        pytest.skip(f"{NOT_CLAIMED}unreachable (no fixture `unreachable`)")

    def test_before_setup_each_verb_answers_or_raises_schema_outdated(self, driver: Store, handles: Handles) -> None:
        driver.teardown()
        stranger = handles()
        outcomes = {name: outcome_of(call, stranger) for name, call in VERBS.items()}
        driver.setup()
        assert {name: error for name, error in outcomes.items() if not is_none_or(error, SchemaOutdated)} == {}
        assert len(push(stranger)) == 1

    def test_each_verb_says_that_a_store_is_out_of_reach_and_why(self, unreachable: Callable[[], Store]) -> None:
        store = unreachable()
        try:
            answers = all_well(at_once(*[partial(within_limit, call, store, LIMIT_S) for call in VERBS.values()]))
            outcomes = {name: error for name, (error, _) in zip(VERBS, answers, strict=True) if name != "wait"}
            assert {name: error for name, error in outcomes.items() if not isinstance(error, StoreUnavailable)} == {}
            causes = [error for error in outcomes.values() if error is not None and error.__cause__]
            assert causes, "none of them has the client's own exception for a cause"
        finally:
            store.close()

    def test_no_verb_waits_longer_than_its_caller_for_what_another_holds(
        self, handles: Handles, hold: Callable[[], AbstractContextManager[object]]
    ) -> None:
        store = handles()
        store.stats()
        with hold():
            answers = all_well(at_once(*[partial(within_limit, call, store, LIMIT_S) for call in VERBS.values()]))
        late = {name: seconds for name, (_, seconds) in zip(VERBS, answers, strict=True) if seconds > SOON_S}
        assert late == {}, f"seconds, of a caller that had {LIMIT_S}"
        outcomes = {name: error for name, (error, _) in zip(VERBS, answers, strict=True)}
        assert {name: error for name, error in outcomes.items() if not is_none_or(error, StoreUnavailable)} == {}
        assert len(push(store)) == 1

    def test_a_driver_opens_nothing_before_its_first_verb(self, driver: Store, handles: Handles) -> None:
        driver.stats()
        opened: dict[int, tuple[int, int]] = {}
        started: set[threading.Thread] = set()
        for _ in range(ATTEMPTS):
            threads, files = set(threading.enumerate()), open_files()
            handles()
            opened = {number: known for number, known in open_files().items() if files.get(number) != known}
            started = set(threading.enumerate()) - threads
            if not (opened or started):
                break
        assert (opened, started) == ({}, set())

    def test_a_forked_child_starts_afresh_and_its_parent_goes_on(self, driver: Store) -> None:
        mine = only(push(driver))
        driver.wait(["q"], 0)
        told = in_a_fork(partial(use_it, driver))
        in_a_fork(partial(only_close_it, driver))
        claims = driver.capabilities
        is_there = told["stored"] is not None and bool(driver.get([str(told["stored"])]))
        if claims.cross_process:
            assert (told["saw"], is_there) == ([mine], True), told
        elif claims.durable:
            assert is_there or told["refused"], "the child was told that a job is stored, and the parent cannot see it"
        assert their_ids(driver.get([mine])) == [mine]
        assert driver.wait(["q"], SOON_S) is True
        assert len(push(driver)) == 1
        before = len(open_files())
        driver.close()
        if len(open_files()) < before and can_mark() and not told["refused"]:
            assert told["opened"], "the child used what its parent had opened"

    def test_one_driver_serves_many_threads_at_once(self, driver: Store) -> None:
        workers = [join(driver) for _ in range(3)]
        stories = [*(partial(work, driver, worker) for worker in workers), partial(feed, driver), partial(look, driver)]
        done = [job_id for each in all_well(at_once(*stories)) for job_id in each]
        assert set(Counter(done).values()) <= {1}
        assert driver.stats("q").completed == len(done)
        assert_counts_are_true(driver)


def is_none_or(error: Exception | None, kind: type[Exception]) -> bool:
    """Whether there is no error, or one of this kind."""
    return error is None or isinstance(error, kind)


def use_it(driver: Store) -> Told:
    """In a child: what it sees, and which job it was told to be stored; or that it was refused; then it closes it."""
    mark_all()
    told: Told = {"saw": [], "stored": None, "refused": False, "opened": False}
    try:
        told["saw"] = [job.id for job in driver.find(JobFilter(queue="q")).jobs]
        told["opened"] = bool(unmarked())
        driver.wait(["q"], 0)
        told["stored"] = only(push(driver, new_job("q")))
    except StoreUnavailable as error:
        told["refused"] = str(error)
    driver.close()
    return told


def only_close_it(driver: Store) -> Told:
    """In a child: give back what it never had."""
    driver.close()
    return {}


def work(driver: Store, worker: str) -> list[str]:
    """Claim and complete for some rounds, and beat; the ids of the jobs."""
    done: list[str] = []
    for _ in range(ROUNDS):
        claims = lend(driver, worker, limit=3)
        driver.heartbeat(worker, {})
        answers = driver.settle([settlement(claim, Verb.COMPLETE) for claim in claims])
        done.extend(answer.id for answer in answers)
    return done


def feed(driver: Store) -> list[str]:
    """Push jobs for some rounds."""
    for _ in range(ROUNDS):
        push(driver, *[new_job() for _ in range(5)])
    return []


def look(driver: Store) -> list[str]:
    """Look, and wait for jobs, for some rounds."""
    for _ in range(ROUNDS):
        driver.wait(["q"], 0.01)
        driver.queues()
        driver.find(JobFilter(), limit=5)
        driver.held("nobody")
    return []
