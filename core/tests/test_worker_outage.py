"""A store that does not answer, answers late, or gives the worker's jobs to others: no job lost, none done twice."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import pytest

from protojobs import BoundJob, Job, JobQueue, StopToken, WorkReport, job
from protojobs.entropy import fresh_id
from protojobs.errors import ConfigurationError, ContractBroken, LeaseLost, StoreUnavailable
from protojobs.events import Event
from protojobs.port.records import ClaimReply, Fence, Heartbeat, JobFilter, Settlement, WorkerInfo
from protojobs.testing import FlakyDriver
from protojobs.worker import planner
from protojobs_memory import MemoryDriver

Eventually = Callable[[Callable[[], object]], None]
Working = Callable[..., AbstractContextManager[Any]]
Heard = Callable[..., list[Event]]
Gated: TypeAlias = tuple[BoundJob, threading.Event, threading.Event]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "PAUSE_FIRST_S", 0.004)
    monkeypatch.setattr(planner, "PAUSE_MAX_S", 0.02)


def on(driver: object, **settings: object) -> JobQueue:
    return JobQueue(driver, {"poll_interval": 0.01, "concurrency": 3, **settings})  # type: ignore[arg-type]  # any store


class Switchable(MemoryDriver):
    """A store that can be away, and loses the row of a worker on command."""

    is_away = False

    def __init__(self) -> None:
        super().__init__()
        self.good: dict[str, float] = {}  # worker -> when its last good beat was sent, as near as a store can tell

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        self._knock()
        return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
        self._knock()
        reply = super().heartbeat(worker, progress)
        self.good[worker] = time.monotonic()
        return reply

    def _knock(self) -> None:
        if self.is_away:
            raise StoreUnavailable("cable pulled")


@pytest.mark.parametrize("after", [False, True], ids=["before it was done", "after it was done"])
def test_whichever_call_fails_every_job_runs_to_its_end_exactly_once(after: bool) -> None:
    nth = 0
    while True:
        nth += 1
        ran: list[int] = []

        @job(name="step", max_retries=1, retry_delay=0)
        def step(n: int) -> None:
            ran.append(n)  # noqa: B023  (each story has its own)
            if n == 3 and ran.count(3) == 1:  # noqa: B023
                raise ValueError

        store = MemoryDriver()
        flaky = FlakyDriver(store, nth, after=after, only=["settle_and_claim", "held"])
        queue = on(flaky)
        queue.push_many([step.bind(n) for n in range(6)])
        queue.work("default", 50)
        queue.work("default", 50)  # what a lost answer may have left to be claimed
        assert (store.stats().completed, store.stats().pending, store.stats().processing) == (6, 0, 0), nth
        assert sorted(ran) == [0, 1, 2, 3, 3, 4, 5], nth
        if not flaky.has_failed:
            break
    assert nth > 3


def test_jobs_of_a_claim_whose_answer_was_lost_are_adopted_and_not_left_to_the_lease() -> None:
    ran: list[int] = []

    @job(name="step")
    def step(n: int) -> None:
        ran.append(n)

    store = MemoryDriver()
    queue = on(FlakyDriver(store, 1, after=True, only=["settle_and_claim"]))
    queue.push_many([step.bind(n) for n in range(3)])
    assert queue.work("default", 3).done == 3
    assert sorted(ran) == [0, 1, 2]
    assert {record.claim_seq for record in store.find(JobFilter()).jobs} == {1}


def test_results_wait_for_the_store_and_the_outage_is_told_once(
    working: Working, eventually: Eventually, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    degraded = heard("worker.degraded")
    started, may_go = threading.Event(), threading.Event()

    @job(name="step", timeout=0)
    def step() -> None:
        started.set()
        may_go.wait(5)

    store = Switchable()
    queue = on(store)
    job_id = queue.push(step.bind())
    with caplog.at_level(logging.ERROR), working(queue) as worker:
        assert started.wait(5)
        store.is_away = True
        may_go.set()
        eventually(lambda: degraded)
        time.sleep(0.1)
        assert worker.thread.is_alive()
        store.is_away = False
        eventually(lambda: store.get([job_id])[0].status == "completed")
    assert len(degraded) == 1
    assert sum("degraded" in record.getMessage() for record in caplog.records) == 1


def test_misses_of_before_the_stores_return_do_not_tell_of_another_outage(
    working: Working, eventually: Eventually, heard: Heard
) -> None:
    """The claim loop waits for a frozen store, and hears of the missed heartbeats only after its own answer."""
    degraded = heard("worker.degraded")

    class Frozen(MemoryDriver):
        def __init__(self) -> None:
            super().__init__()
            self.has_thawed, self.misses = threading.Event(), 0

        def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
            if not self.has_thawed.is_set():
                self.misses += 1
                raise StoreUnavailable("silence")
            return super().heartbeat(worker, progress)

        def settle_and_claim(
            self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
        ) -> ClaimReply:
            self.has_thawed.wait(10)
            return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)

    @job(name="step")
    def step() -> None: ...

    store = Frozen()
    queue = on(store, lease=1.0)
    job_id = queue.push(step.bind())
    with working(queue):
        eventually(lambda: store.misses >= 3)
        store.has_thawed.set()
        eventually(lambda: store.get([job_id])[0].status == "completed")
    assert degraded == []


def test_a_result_whose_first_answer_was_lost_is_not_called_late_when_the_job_has_moved_on(
    heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    late = heard("job.late")
    told = heard("job.processed", "job.retrying")

    class Meddling(MemoryDriver):
        """Settles, loses the answer, and lets another worker have the job at once."""

        trips = 0

        def settle_and_claim(
            self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
        ) -> ClaimReply:
            reply = super().settle_and_claim(
                worker, settlements, queues, slots=slots, limit=0 if settlements else limit
            )
            if settlements and not self.trips:
                self.trips = 1
                self.claim(other, ["default"], slots=1, limit=1)
                raise StoreUnavailable("answer lost")
            return reply

    @job(name="step", retry_delay=0)
    def step() -> None:
        raise ValueError

    driver = Meddling()
    other = _register(driver)
    queue = on(driver)
    queue.push(step.bind())
    queue.work("default", 1)
    assert driver.trips == 1
    assert (late, told) == ([], [])
    assert "came after its claim had ended" not in caplog.text


class TestLeaseLost:
    @pytest.fixture
    def store(self) -> Switchable:
        return Switchable()

    @pytest.fixture
    def gated(self) -> Iterator[Gated]:
        started, may_go = threading.Event(), threading.Event()

        @job(name="gated", timeout=0)
        def gated() -> None:
            started.set()
            may_go.wait(10)

        yield gated.bind(), started, may_go
        may_go.set()

    def test_the_worker_becomes_a_new_one_goes_on_and_its_late_result_is_refused_and_told(
        self, store: Switchable, gated: Gated, working: Working, eventually: Eventually, heard: Heard
    ) -> None:
        bound, started, may_go = gated
        late = heard("job.late")
        queue = on(store, lease=1.0, concurrency=1)
        job_id = queue.push(bound)
        with working(queue) as worker:
            assert started.wait(5)
            (first,) = store.workers()
            store.leave(first.id)
            store.reclaim(10)
            eventually(lambda: store.workers() and store.workers()[0].id != first.id)
            may_go.set()
            eventually(lambda: store.get([job_id])[0].status == "completed")
            eventually(lambda: late)
            worker.token.stop()
            report = worker.join()
        assert len(late) == 1
        assert store.get([job_id])[0].claim_seq == 3  # lent, taken back, lent
        assert report == WorkReport(done=1, failed=0, runs=2, reason="stopped", late=1)

    def test_how_late_it_is_counts_from_the_last_good_beat_of_the_identity_that_claimed_it(
        self,
        store: Switchable,
        gated: Gated,
        working: Working,
        eventually: Eventually,
        heard: Heard,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The new identity's own beats are good all the time, and say nothing of that claim."""
        bound, started, may_go = gated
        late = heard("job.late")
        queue = on(store, lease=1.0, concurrency=1)
        queue.push(bound)
        with caplog.at_level(logging.WARNING), working(queue):
            assert started.wait(5)
            eventually(lambda: store.good)
            (first,) = store.workers()
            store.leave(first.id)
            store.reclaim(10)
            eventually(lambda: len(store.good) == 2)
            time.sleep(0.6)  # three beats of the new identity
            refused_after = time.monotonic()
            may_go.set()
            eventually(lambda: late)
            heard_before = time.monotonic()
        (event,) = late
        last_good_at = store.good[first.id]
        late_s = float(str(event.get("late_s")))
        assert refused_after - last_good_at <= late_s <= heard_before - last_good_at + 0.5
        assert f"{late_s:.1f} s after the last good heartbeat of its claim" in caplog.text

    def test_a_run_that_is_only_given_back_after_it_has_no_result_that_could_be_late(
        self, store: Switchable, gated: Gated, working: Working, eventually: Eventually, heard: Heard
    ) -> None:
        _, started, _ = gated
        late, released = heard("job.late"), heard("job.released")
        queue = on(store, lease=1.0, concurrency=1)

        @job(name="endless", timeout=0)
        def endless() -> None:
            started.set()
            while True:
                time.sleep(0.001)

        job_id = queue.push(endless.bind())
        with working(queue) as worker:
            assert started.wait(5)
            store.pause("default")
            store.leave(store.workers()[0].id)
            store.reclaim(10)
            worker.token.stop()
            worker.token.stop()  # cut short
            report = worker.join()
        assert [(event.get("job_id"), event.get("reason")) for event in released] == [(job_id, "shutdown")]
        assert (late, report.late) == ([], 0)
        assert store.get([job_id])[0].reclaims == 1

    def test_hearing_of_it_twice_makes_one_new_worker_not_two(
        self, gated: Gated, working: Working, eventually: Eventually
    ) -> None:
        """The claim's answer and the heartbeat both tell; the second must not cost the new worker its lease."""
        bound, started, _ = gated
        seen: list[str] = []
        beat_knows = threading.Event()

        class Telling(Switchable):
            """The claim's answer reaches the loop only when the heartbeat has been told as well."""

            def register(self, worker: WorkerInfo) -> None:
                seen.append(worker.id)
                super().register(worker)

            def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
                try:
                    return super().heartbeat(worker, progress)
                except LeaseLost:
                    beat_knows.set()
                    raise

            def settle_and_claim(
                self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
            ) -> ClaimReply:
                reply = super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)
                if reply.lease_lost:
                    beat_knows.wait(5)
                    time.sleep(0.02)  # until the beat is in the loop's inbox
                return reply

        store = Telling()
        queue = on(store, lease=1.0, concurrency=2)
        with working(queue):
            eventually(lambda: len(store.workers()) == 1)
            store.leave(seen[0])
            eventually(lambda: len(seen) == 2)
            queue.push(bound)
            assert started.wait(5)
            time.sleep(0.4)  # two beats
            assert [worker.id for worker in store.workers()] == seen[1:]


class TestReclaiming:
    def test_jobs_of_a_dead_worker_are_taken_back_and_run(
        self, working: Working, eventually: Eventually, heard: Heard
    ) -> None:
        lost = heard("job.lost")

        @job(name="step")
        def step() -> None: ...

        store = MemoryDriver()
        queue = on(store, lease=1.0)
        job_id = queue.push(step.bind())
        dead = _register(store, lease_s=0.1)
        assert len(store.claim(dead, ["default"], slots=1, limit=1)) == 1
        with working(queue):
            eventually(lambda: store.get([job_id])[0].status == "completed")
            eventually(lambda: lost)
        record = store.get([job_id])[0]
        assert (record.attempts, record.reclaims) == (1, 1)
        assert [event.get("reserved_by") for event in lost] == [dead]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_a_worker_of_its_own_and_leaves_its_parents_lease_alone() -> None:
    @job(name="step")
    def step() -> None: ...

    store = MemoryDriver()
    queue = on(store)
    queue.work("default", 1)
    (parent,) = store.workers()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        ids = "failed"
        try:
            queue.push(step.bind())
            queue.work("default", 1)
            ids = " ".join(sorted(worker.id for worker in store.workers()))
        finally:
            os.write(write, ids.encode())
            os._exit(0)
    os.waitpid(child, 0)
    found = os.read(read, 1000).decode().split()
    os.close(read)
    os.close(write)
    assert len(found) == 2
    assert parent.id in found


def _register(driver: MemoryDriver, lease_s: float = 60.0) -> str:
    info = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("default",), concurrency=1, lease_s=lease_s)
    driver.register(info)
    return info.id


class RefusesOneResult(MemoryDriver):
    """A store that cannot take one kind of settlement, whatever comes with it."""

    def settle(self, settlements):  # type: ignore[no-untyped-def]
        if any("poison" in sent.error for sent in settlements):
            raise ContractBroken("poison")
        return super().settle(settlements)

    def settle_and_claim(self, worker, settlements, queues, *, slots, limit):  # type: ignore[no-untyped-def]
        if any("poison" in sent.error for sent in settlements):
            raise ContractBroken("poison")
        return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)


def test_a_result_that_the_store_refuses_fails_its_job_and_holds_up_no_other() -> None:
    queue = JobQueue(RefusesOneResult())
    ran: list[str] = []

    class Careful(Job):
        name = "refused-result"

        def handle(self, data: dict[str, str]) -> None:
            ran.append(data["text"])
            if data["text"] == "poison":
                raise ValueError("poison")

    poison = queue.push(Careful, {"text": "poison"})
    queue.push_many(Careful.bind({"text": str(number)}) for number in range(5))
    report = queue.work("default", 10)
    assert sorted(ran) == ["0", "1", "2", "3", "4", "poison"]
    assert (report.done, report.failed) == (5, 1)
    (failed,) = queue.failed_jobs()
    assert (failed.job_id, failed.exception) == (poison, "The store refused the result of this run.")


class BreaksItsFirstClaims(MemoryDriver):
    """A store that trips over a corrupt row, until somebody has mended it."""

    left = 2

    def settle_and_claim(self, worker, settlements, queues, *, slots, limit):  # type: ignore[no-untyped-def]
        if limit and self.left:
            self.left -= 1
            raise ContractBroken("a corrupt row")
        return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)


def test_a_claim_that_breaks_the_contract_does_not_end_the_worker() -> None:
    driver = BreaksItsFirstClaims()
    queue = JobQueue(driver)

    @job(name="after a corrupt row")
    def after_a_corrupt_row() -> None:
        return None

    queue.push(after_a_corrupt_row.bind())
    assert queue.work("default", 1).done == 1
    assert driver.left == 0


class CannotReadWhatItLent(MemoryDriver):
    """A store that has lent a row which nobody can read."""

    asked = 0

    def settle_and_claim(self, worker, settlements, queues, *, slots, limit):  # type: ignore[no-untyped-def]
        reply = super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)
        if any(claimed.job_name == "corrupt" for claimed in reply.claimed):
            raise ContractBroken("a corrupt row")
        return reply

    def held(self, worker):  # type: ignore[no-untyped-def]
        self.asked += 1
        raise ContractBroken("a corrupt row")


def test_a_row_that_cannot_be_read_when_it_is_lent_does_not_keep_the_worker_from_all_others(
    working: Working, eventually: Eventually
) -> None:
    driver = CannotReadWhatItLent()
    queue = on(driver, concurrency=1)

    @job(name="corrupt")
    def corrupt() -> None: ...

    @job(name="sound")
    def sound() -> None: ...

    queue.push(corrupt.bind())
    with working(queue):
        eventually(lambda: driver.asked)
        queue.push(sound.bind())
        eventually(lambda: driver.stats("default").completed == 1)


class ChangesItsPassword(MemoryDriver):
    """A store whose password is another one, until the worker's settings are mended."""

    refuses = False
    refused = 0

    def settle_and_claim(self, worker, settlements, queues, *, slots, limit):  # type: ignore[no-untyped-def]
        if self.refuses:
            self.refused += 1
            raise ConfigurationError("the store refuses the password")
        return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)


def test_what_a_running_worker_has_done_outlives_a_refused_password(working: Working, eventually: Eventually) -> None:
    driver = ChangesItsPassword()
    queue = on(driver)
    begun, end = threading.Event(), threading.Event()

    @job(name="gated", timeout=0)
    def gated() -> None:
        begun.set()
        assert end.wait(10)

    queue.push(gated.bind())
    with working(queue):
        assert begun.wait(5)
        driver.refuses = True
        end.set()
        eventually(lambda: driver.refused > 1)
        driver.refuses = False
        eventually(lambda: driver.stats("default").completed == 1)


def test_a_call_that_ended_without_an_answer_keeps_no_lease_for_the_next_ones() -> None:
    driver = Switchable()
    queue = on(driver, shutdown_grace=0, exit_bound=0.2)
    token = StopToken()

    @job(name="unheard", timeout=0)
    def unheard() -> None:
        driver.is_away = True
        token.stop()

    queue.push(unheard.bind())
    assert queue.work("default", 1, stop=token).reason == "stopped"
    driver.is_away = False
    (lent,) = driver.find(JobFilter(), limit=1).jobs
    assert lent.status == "processing"
    queue.work("default", 1)
    assert queue._resting is not None
    resting = queue._resting.take()
    assert resting is not None
    assert resting.info.id != lent.reserved_by  # which nobody renews: so others take the job back
