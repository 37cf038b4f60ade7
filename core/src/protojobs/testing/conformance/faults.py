"""Faults: processes killed at any instruction or frozen past their lease, connections cut. What was answered, holds."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import ProtojobsError, StoreUnavailable
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import NewJob, SettleStatus
from protojobs.port.schedules import FireStatus
from protojobs.testing.conformance.actor import BATCH, BATCHES_MAX, QUEUE
from protojobs.testing.conformance.children import Children, Said, children_on
from protojobs.testing.conformance.counting import assert_counts_are_true
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import NOT_CLAIMED, NOT_RUN, Level, concern
from protojobs.testing.conformance.plans import (
    MINUTE,
    firing_of,
    new_schedule,
    outcomes,
    schedule_of,
    store_schedule,
)
from protojobs.testing.conformance.racing import reclaim_until_dry
from protojobs.testing.conformance.steps import (
    LEASE_S,
    PATIENCE_S,
    all_jobs,
    fresh_ids,
    job_of,
    join,
    lend,
    new_job,
    only,
    push,
    settle,
    settlement,
    their_ids,
)
from protojobs.testing.conformance.verbs import VERBS, within_limit

__all__ = ["Faults"]

LAPSED_S = LEASE_S + 10
JOBS = 200
TIMES = 120
CUTS = 12
LIMIT_S = 0.2  # what a caller has
SOON_S = 4.0  # until when it is told, on a machine under load
PACE_S = 0.005
# So many answers, and then so many seconds: not always at one place. The last one is killed when it has said all that
# it ever says, and is at rest: what it was told too early is then never stored, however slow the machine is.
KILLED_AFTER = ((4, 0.0), (9, 0.01), (17, 0.1), (BATCHES_MAX, 0.0))
SETUP_KILLED_AFTER_S = (0.0, 0.01, 0.03, 0.08)


@concern("faults", Level.FAULTS)
class Faults(Fixtures):
    """Nobody stops in order here."""

    @pytest.fixture
    def children(self, driver: Store, store_url: str | None) -> Iterator[Children]:
        """Starts processes on the store, if others than this one can see it."""
        if not driver.capabilities.cross_process:
            pytest.skip(f"{NOT_CLAIMED}cross_process")
        if not hasattr(signal, "SIGSTOP"):
            pytest.skip(f"{NOT_RUN}this system cannot freeze a process")
        yield from children_on(store_url)

    def test_what_a_killed_process_was_told_is_stored_is_there(self, driver: Store, children: Children) -> None:
        pushers = [children("push") for _ in KILLED_AFTER]
        stored: list[str] = []
        for pusher, (patience, seconds) in zip(pushers, KILLED_AFTER, strict=True):
            pusher.hear(patience)
            SYSTEM_CLOCK.sleep(seconds)
            stored.extend(job_id for said in pusher.kill() for job_id in cast("list[str]", said[1]))
        there = {job.id: job for job in all_jobs(driver, limit=1_000)}
        assert set(stored) <= there.keys()
        assert {job.status for job in there.values()} == {JobState.PENDING}
        batches = Counter(job.job_name for job in there.values())
        assert set(batches.values()) == {BATCH}, "a batch is stored whole, or not at all"
        assert_counts_are_true(driver)

    def test_jobs_of_killed_workers_are_done_by_others_and_each_result_counts_once(
        self, driver: Store, children: Children, later: Later
    ) -> None:
        ids = push(driver, *[new_job(QUEUE, id=job_id, max_retries=100) for job_id in fresh_ids(JOBS)])
        workers = [children("work") for _ in range(3)]
        said: list[Said] = []
        for worker, patience in zip(workers, (5, 40, 90), strict=True):
            worker.hear()  # it has joined; the others may leave it little to do
            worker.hear_up_to(patience)
            said.extend(worker.kill())
        assert_no_claim_overlapped(said)
        done = {each[1]: each[2] for each in said if each[0] == "settled" and each[3:] == ["complete", "applied"]}
        for job in all_jobs(driver, limit=1_000):
            if job.id in done:
                assert (job.status, job.claim_seq) == (JobState.COMPLETED, done[job.id])
        finish(later(LAPSED_S))
        assert sorted(their_ids(all_jobs(driver, limit=1_000))) == sorted(ids)
        assert (driver.stats(QUEUE).completed, driver.stats().total) == (JOBS, JOBS)
        assert_counts_are_true(driver)

    def test_workers_that_are_killed_and_replaced_finish_everything(
        self, driver: Store, children: Children, later: Later
    ) -> None:
        pusher = children("push")
        pusher.hear(1)
        said: list[Said] = []
        worker = children("work")
        for patience in (3, 8, 21):
            replacement = children("work")
            worker.hear()
            worker.hear_up_to(patience)
            said.extend(worker.kill())
            reclaim_until_dry(later(LAPSED_S))  # the other's lease has lapsed as well: that one joins anew
            worker = replacement
        said.extend(worker.kill())
        stored = [job_id for each in pusher.kill() for job_id in cast("list[str]", each[1])]
        finish(later(LAPSED_S))
        assert_no_claim_overlapped(said)
        jobs = {job.id: job.status for job in all_jobs(driver, limit=1_000)}
        assert set(stored) <= jobs.keys()
        assert set(jobs.values()) == {JobState.COMPLETED}
        assert_counts_are_true(driver)

    def test_schedulers_of_which_some_are_killed_fire_each_time_once(self, driver: Store, children: Children) -> None:
        first = driver.now().replace(microsecond=0) - TIMES * MINUTE
        store_schedule(driver, new_schedule(due=first))
        tickers = [children("tick") for _ in range(4)]
        said: list[Said] = []
        for ticker, patience in zip(tickers, (5, 40), strict=False):
            ticker.hear_up_to(patience)
            said.extend(ticker.kill())
        for ticker in tickers[2:]:
            while ticker.hear() != ["dry"]:
                pass
            said.extend(ticker.said)
        last = schedule_of(driver, "s").last_due_at
        assert last is not None
        assert last >= first + (TIMES - 1) * MINUTE
        times = [(first + passed * MINUTE).isoformat() for passed in range((last - first) // MINUTE + 1)]
        stored = Counter(job.job_name.removeprefix("due ") for job in all_jobs(driver, limit=1_000))
        assert stored == Counter(times)
        fired = Counter(str(each[1]) for each in said if each[0] == "fired")
        assert fired <= Counter(times), "no time was fired twice"

    def test_a_scheduler_that_was_frozen_before_it_fired_fires_nothing(self, driver: Store, children: Children) -> None:
        schedule = store_schedule(driver, new_schedule(due=driver.now() - MINUTE))
        frozen = children("tick late")
        frozen.hear()
        frozen.freeze()
        frozen.tell()
        assert outcomes(driver, firing_of(schedule)) == [FireStatus.FIRED]
        frozen.thaw()
        assert frozen.hear() == ["lost"]
        assert driver.stats().total == 1

    def test_a_process_that_is_frozen_amid_an_enqueue_holds_no_other_up_for_longer_than_that_waits(
        self, driver: Store, children: Children
    ) -> None:
        driver.stats()
        frozen = children("store haltingly")
        while frozen.hear() == ["amid"]:
            outcome, seconds = within_limit(VERBS["enqueue"], driver, LIMIT_S)
            assert seconds < SOON_S, f"seconds, of a caller that had {LIMIT_S}"
            assert outcome is None or isinstance(outcome, StoreUnavailable), outcome
            frozen.tell()
        assert frozen.said[-1] == ["stored"], frozen.fate()

    def test_a_worker_that_was_frozen_past_its_lease_settles_nothing(
        self, driver: Store, children: Children, later: Later
    ) -> None:
        push(driver, new_job(QUEUE))
        frozen, ahead = children("hold"), later(LAPSED_S)
        _, job_id, claim_seq = frozen.hear()
        frozen.freeze()
        frozen.tell()
        assert their_ids(reclaim_until_dry(ahead)[0].jobs) == [job_id]
        current = only(lend(ahead, join(ahead), QUEUE))
        frozen.thaw()
        assert frozen.hear() == ["settled", job_id, claim_seq, "complete", "stale"]
        assert frozen.hear() == ["beat", "lease lost"]
        assert job_of(driver, current.id).reserved_by == current.reserved_by
        assert settle(ahead, current, Verb.COMPLETE).state is JobState.COMPLETED

    def test_a_worker_that_was_frozen_and_not_missed_goes_on(
        self, driver: Store, children: Children, later: Later
    ) -> None:
        push(driver, new_job(QUEUE))
        frozen = children("hold")
        _, job_id, claim_seq = frozen.hear()
        frozen.freeze()
        frozen.tell()
        assert lend(later(LAPSED_S), join(later(LAPSED_S)), QUEUE) == []
        frozen.thaw()
        assert frozen.hear() == ["settled", job_id, claim_seq, "complete", "applied"]
        assert frozen.hear() == ["beat", "accepted"]

    def test_a_setup_that_was_killed_can_be_run_again(self, driver: Store, children: Children) -> None:
        starters = [children("setup") for _ in SETUP_KILLED_AFTER_S]
        for starter, seconds in zip(starters, SETUP_KILLED_AFTER_S, strict=True):
            starter.hear()
            driver.teardown()
            starter.tell()
            SYSTEM_CLOCK.sleep(seconds)
            starter.kill()
            driver.setup()
            assert driver.stats().total == 0
            assert len(push(driver)) == 1

    def test_processes_that_set_up_at_once_all_succeed(self, driver: Store, children: Children) -> None:
        starters = [children("setup") for _ in range(4)]
        for starter in starters:
            starter.hear()
        driver.teardown()
        for starter in starters:
            starter.tell()
        assert [starter.hear() for starter in starters] == [["done"]] * 4
        assert len(push(driver)) == 1

    def test_cut_connections_under_load_lose_and_double_nothing(
        self, driver: Store, handles: Handles, disturb: Callable[[], None], later: Later
    ) -> None:
        if not driver.capabilities.cross_process:
            pytest.skip(f"{NOT_CLAIMED}cross_process")
        stop = threading.Event()
        pushers, workers = [Pusher(handles(), stop) for _ in range(2)], [Worker(handles(), stop) for _ in range(2)]
        crowd = [*pushers, *workers]
        for each in crowd:
            each.start()
        for _ in range(CUTS):
            SYSTEM_CLOCK.sleep(0.1)
            disturb()
        stop.set()
        for each in crowd:
            each.join(PATIENCE_S)
            assert not each.is_alive(), "a call to the driver did not come back"
        assert [each.error for each in crowd if each.error] == []
        stored = [job_id for each in pushers for job_id in each.stored]
        done = Counter(job_id for each in workers for job_id in each.done)
        finish(later(LAPSED_S))
        jobs = {job.id: job.status for job in all_jobs(driver, limit=1_000)}
        assert stored, "nothing was stored between the cuts"
        assert set(stored) <= jobs.keys()
        assert set(jobs.values()) == {JobState.COMPLETED}
        assert set(done.values()) <= {1}
        assert_counts_are_true(driver)


def assert_no_claim_overlapped(said: list[Said]) -> None:
    """Of what all workers said: no claim was lent twice, and of none two results were accepted."""
    claims = Counter((each[1], each[2]) for each in said if each[0] == "claimed")
    assert set(claims.values()) <= {1}
    applied = Counter((each[1], each[2]) for each in said if each[0] == "settled" and each[4] == "applied")
    assert set(applied.values()) <= {1}
    ends = Counter(each[1] for each in said if each[0] == "settled" and each[3:] == ["complete", "applied"])
    assert set(ends.values()) <= {1}


def finish(driver: Store) -> None:
    """Take back what the dead still hold, and complete all that is left."""
    reclaim_until_dry(driver)
    worker = join(driver)
    while claims := lend(driver, worker, QUEUE):
        answers = driver.settle([settlement(claim, Verb.COMPLETE) for claim in claims])
        assert {answer.status for answer in answers} == {SettleStatus.APPLIED}


class _Persistent(threading.Thread):
    """Goes on through StoreUnavailable, as core does; anything else is an error."""

    def __init__(self, driver: Store, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.driver, self.is_over = driver, stop
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.go_on()
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.error = error

    def go_on(self) -> None:
        """What this one does until it is over."""
        raise NotImplementedError


class Pusher(_Persistent):
    """Sends each batch again, under the same ids, until it is answered."""

    def __init__(self, driver: Store, stop: threading.Event) -> None:
        super().__init__(driver, stop)
        self.stored: list[str] = []

    def go_on(self) -> None:
        """Push until it is over, at a pace that leaves somebody under way at each cut and the store not overfull."""
        while not (self.stored and self.is_over.is_set()):
            batch = [new_job(QUEUE, id=job_id) for job_id in fresh_ids(BATCH)]
            self.send(batch)
            self.stored.extend(job.id for job in batch)
            SYSTEM_CLOCK.sleep(PACE_S)

    def send(self, batch: list[NewJob]) -> None:
        """Until the store has answered."""
        for _ in range(CUTS * 20):
            try:
                self.driver.enqueue(batch)
                return
            except StoreUnavailable:
                SYSTEM_CLOCK.sleep(0.01)
        raise ProtojobsError("the driver did not find its store again")


class Worker(_Persistent):
    """Completes what it is lent; after an unknown outcome it asks what it holds, as core does."""

    def __init__(self, driver: Store, stop: threading.Event) -> None:
        super().__init__(driver, stop)
        self.done: list[str] = []

    def go_on(self) -> None:
        """Work until it is over."""
        worker = fresh_ids(1)[0]
        is_known = False
        while not self.is_over.is_set():
            try:
                is_known = is_known or bool(join(self.driver, id=worker))
                claims = self.driver.held(worker) or lend(self.driver, worker, QUEUE, limit=BATCH)
                answers = self.driver.settle([settlement(claim, Verb.COMPLETE) for claim in claims])
                self.done.extend(answer.id for answer in answers if answer.status is SettleStatus.APPLIED)
            except StoreUnavailable:
                SYSTEM_CLOCK.sleep(0.01)
