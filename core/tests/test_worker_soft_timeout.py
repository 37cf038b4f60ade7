"""The soft limit: JobTimeout is raised in the run in time to clean up, on each executor; then the hard one ends it."""

from __future__ import annotations

import asyncio

import pytest

from protojobs import Job, job
from protojobs.errors import JobTimeout, OptionInvalid
from protojobs.jobs.definition import REGISTRY
from protojobs.port.lifecycle import JobState
from protojobs.worker.runs.soft_timeout import in_time

from . import process_jobs as jobs


@pytest.fixture(params=["soft_in_thread", "soft_on_the_loop", "soft_in_child"])
def softly(request: pytest.FixtureRequest):
    wanted = getattr(jobs, request.param)
    REGISTRY.add(wanted.definition)
    return wanted


class TestOnEachExecutor:
    def test_a_run_that_cleans_up_returns_what_it_likes(self, softly, queue, heard) -> None:
        ended = heard("job.processed")
        job_id = queue.push(softly.bind(is_caught=True))
        assert queue.work(max_jobs=1).done == 1
        assert queue.get(job_id).status is JobState.COMPLETED
        assert [event.result for event in ended] == ["cleaned up"]

    def test_one_that_lets_it_pass_has_failed_by_it(self, softly, queue) -> None:
        queue.push(softly.bind(is_caught=False))
        assert queue.work(max_jobs=1).failed == 1
        (failed,) = queue.failed_jobs()
        assert "JobTimeout: the run outlasted its soft_timeout" in failed.exception

    def test_a_thread_a_loop_and_a_child_are_used_again(self, softly, queue) -> None:
        queue.push_many([softly.bind(is_caught=number % 2 == 0) for number in range(6)])
        report = queue.work(max_jobs=6, concurrency=2)
        assert (report.done, report.failed) == (3, 3)


@pytest.mark.parametrize("name", ["soft_and_deaf", "soft_and_deaf_on_the_loop"])
def test_one_that_goes_on_is_ended_by_the_hard_limit(queue, name: str) -> None:
    deaf = getattr(jobs, name)
    REGISTRY.add(deaf.definition)
    queue.push(deaf.bind())
    report = queue.work(max_jobs=1)
    assert (report.failed, report.reason) == (1, "max_jobs")
    (failed,) = queue.failed_jobs()
    assert failed.exception.strip().endswith("JobTimeout: the run outlasted its timeout of 1 s")


class TestCancellation:
    def test_one_from_outside_stays_one(self) -> None:
        async def cancelled() -> str:
            task = asyncio.create_task(in_time(asyncio.sleep(60), 60.0, lambda: False))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return "cancelled"

        assert asyncio.run(cancelled()) == "cancelled"

    def test_the_task_does_not_count_as_cancelled_afterwards(self) -> None:
        async def caught() -> int:
            try:
                await asyncio.sleep(60)
            except JobTimeout:
                async with asyncio.timeout(30):
                    await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        assert asyncio.run(_run(caught())) == 0


async def _run(awaitable: object) -> object:
    return await in_time(awaitable, 0.05, lambda: False)  # pyright: ignore[reportArgumentType]


class TestTheOption:
    @pytest.mark.parametrize("value", [-1, "soon", float("nan"), 30, 31])
    def test_what_is_no_soft_limit_of_a_job_with_a_timeout_of_thirty_seconds(self, value: object) -> None:
        with pytest.raises(OptionInvalid, match="soft_timeout"):
            job(name="soft.bad", timeout=30, soft_timeout=value)(lambda: None)  # pyright: ignore[reportCallIssue, reportArgumentType]

    def test_on_a_class(self) -> None:
        class Slow(Job):
            name = "soft.class"
            timeout = 30
            soft_timeout = 20

            def handle(self, data: object) -> None: ...

        assert Slow.definition.soft_timeout == 20.0
