"""What a run tells its worker and is told by it, within a second: progress, a wish to cancel, that the worker stops.

The lease is a minute, so its own heartbeats are ten seconds apart, and would be far too late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from protojobs import JobContext, job
from protojobs.port.lifecycle import JobState
from protojobs.port.records import Fence, Heartbeat
from protojobs.worker.lease.lease import NEWS_S
from protojobs.worker.lease.watch import LeaseWatch
from protojobs_memory import MemoryDriver

SOON_S = 5.0  # half of what a heartbeat of the lease would take; a busy machine has a share in it


class Counting(MemoryDriver):
    """Notes when its heartbeats were made."""

    def __init__(self) -> None:
        super().__init__("memory://telling")
        self.beats: list[float] = []

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
        self.beats.append(time.monotonic())
        return super().heartbeat(worker, progress)


@pytest.fixture
def store() -> Iterator[Counting]:
    driver = Counting()
    yield driver
    driver.close()


@pytest.fixture(params=["told_in_thread", "told_on_the_loop", "told_in_child"])
def told(request: pytest.FixtureRequest):
    from core.tests import process_jobs

    from protojobs.jobs.definition import REGISTRY

    wanted = getattr(process_jobs, request.param)
    REGISTRY.add(wanted.definition)
    return wanted


def took_s(eventually: Callable[[Callable[[], object]], None], condition: Callable[[], object]) -> float:
    began = time.monotonic()
    eventually(condition)
    return time.monotonic() - began


class TestARunOnEachExecutor:
    def test_its_progress_and_a_wish_to_cancel_arrive_at_once(
        self, store, told, make_queue, working, eventually
    ) -> None:
        queue = make_queue(store, lease=60.0)
        job_id = queue.push(told)
        with working(queue):
            eventually(lambda: queue.get(job_id).status is JobState.PROCESSING)
            eventually(lambda: queue.get(job_id).progress == 0.25)
            queue.cancel(job_id)
            assert took_s(eventually, lambda: queue.get(job_id).status is JobState.CANCELLED) < SOON_S
        assert queue.get(job_id).progress == 0.25  # it was not done

    def test_it_hears_that_its_worker_wants_to_stop(self, store, told, make_queue, working, eventually) -> None:
        queue = make_queue(store, lease=60.0, shutdown_grace=60.0)
        job_id = queue.push(told)
        with working(queue) as worker:
            eventually(lambda: queue.get(job_id).progress == 0.25)
            worker.token.stop()
            assert worker.has_ended_within(SOON_S)
        seen = queue.get(job_id)
        assert (seen.status, seen.attempts) == (JobState.PENDING, 0)  # by its Snooze, and not cut short
        assert seen.available_at > queue.driver.now()


class TestCost:
    def test_short_runs_cost_no_heartbeat(self, store, make_queue) -> None:
        @job(name="telling.short")
        def short() -> None:
            time.sleep(0.02)

        queue = make_queue(store, lease=60.0, concurrency=1)
        queue.push_many([short.bind() for _ in range(100)])
        assert queue.work(max_jobs=100).done == 100
        assert store.beats == []

    def test_many_long_ones_cost_one_a_second(self, store, make_queue) -> None:
        @job(name="telling.long")
        def long(context: JobContext) -> None:
            for tick in range(250):
                context.progress(tick / 250)
                time.sleep(0.01)

        queue = make_queue(store, lease=60.0, concurrency=8)
        ids = queue.push_many([long.bind() for _ in range(8)])
        began = time.monotonic()
        assert queue.work(max_jobs=8).done == 8
        assert 1 <= len(store.beats) <= (time.monotonic() - began) / NEWS_S + 1
        assert {queue.get(job_id).progress for job_id in ids} == {1.0}


class TestReclaiming:
    def test_beats_for_news_do_not_make_a_worker_old(self) -> None:
        watch = LeaseWatch(60.0)
        watch.begin(0.0)
        for tenth in range(1, 299):
            watch.good_beat(tenth / 10, tenth / 10, Heartbeat())
            assert watch.is_young, tenth
        for at in (30.0, 31.0, 40.0):
            watch.good_beat(at, at, Heartbeat())
        assert not watch.is_young
