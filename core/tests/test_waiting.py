"""Waiting for the end of a job, and watching its changes: in time, and with a bound."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from protojobs import Discard, JobContext, JobQueue, job
from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs.errors import (
    ContractBroken,
    JobHasFailed,
    JobMissing,
    JobUnfinished,
    JobWasCancelled,
    NoResult,
    OptionInvalid,
    PayloadNotDecodable,
    ResultNotKept,
    StoreUnavailable,
    WaitInsideJob,
    WaitTimeout,
)
from protojobs.port.lifecycle import JobState
from protojobs.port.records import JobRecord
from protojobs.port.results import JobResult
from protojobs.queue import waiting
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
LONG_S = 30.0  # a bound that is not reached


@dataclass
class Summary:
    total: int


@pytest.fixture(autouse=True)
def _jobs() -> None:
    @job(name="keeping", store_result=True)
    def keeping(n: int) -> Summary:
        return Summary(total=n)

    @job(name="plain")
    def plain() -> int:
        return 1

    @job(name="failing", max_retries=0)
    def failing() -> None:
        raise ValueError("no such file")

    @job(name="discarding")
    def discarding() -> Discard:
        return Discard("not wanted")


class Asked(MemoryDriver):
    """Counts what it is asked for results, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[tuple[float, int]] = []
        self.error: Exception | None = None

    def get_results(self, ids: Sequence[str]) -> list[JobResult]:
        self.looks.append((SYSTEM_CLOCK.monotonic(), len(ids)))
        if self.error is not None:
            raise self.error
        return super().get_results(ids)

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        if self.error is not None:
            raise self.error
        return super().get(ids)


class Forgetful(MemoryDriver):
    """A store without results."""

    capabilities = replace(MemoryDriver.capabilities, results=False)


class TestAsking:
    def test_gives_the_value_by_the_return_annotation(self, queue: JobQueue) -> None:
        job_id = queue.push("keeping", {"n": 7})
        with pytest.raises(JobUnfinished, match=f"Job {job_id} has not ended: it is pending. Use wait_for."):
            queue.result(job_id)
        queue.work("default", 1)
        assert queue.result(job_id) == Summary(total=7)
        assert asyncio.run(queue.aresult(job_id)) == Summary(total=7)

    def test_gives_plain_json_where_the_job_is_not_known(self, queue: JobQueue) -> None:
        job_id = queue.push("keeping", {"n": 7})
        queue.work("default", 1)
        queue.registry._by_name.clear()
        assert queue.result(job_id) == {"total": 7}

    @pytest.mark.parametrize(
        ("name", "kind", "said"),
        [
            ("plain", ResultNotKept, "Job {} has completed, and its result was not kept."),
            ("failing", JobHasFailed, "Job {} has failed: ValueError: no such file"),
            ("discarding", JobWasCancelled, "Job {} was cancelled: not wanted"),
        ],
    )
    def test_says_why_there_is_none(self, queue: JobQueue, name: str, kind: type[NoResult], said: str) -> None:
        job_id = queue.push(name)
        queue.work("default", 1)
        with pytest.raises(kind) as error:
            queue.result(job_id)
        assert str(error.value) == said.format(job_id)

    def test_says_that_the_job_is_not_there(self, queue: JobQueue) -> None:
        with pytest.raises(JobMissing, match="The store has no job .* Was it pushed with session="):
            queue.result(fresh_id())
        with pytest.raises(JobMissing):
            queue.wait_for(fresh_id(), LONG_S)
        with pytest.raises(OptionInvalid, match="7 is no id of a job"):
            queue.result(7)  # type: ignore[arg-type]

    def test_says_that_the_text_is_of_another_version(self, queue: JobQueue) -> None:
        job_id = queue.push("keeping", {"n": 7})
        queue.work("default", 1)
        assert isinstance(queue.driver, MemoryDriver)
        queue.driver.state.rows[job_id].result = '"other"'
        with pytest.raises(PayloadNotDecodable, match='the result of job "keeping"'):
            queue.result(job_id)


class TestWaiting:
    def test_answers_at_the_end_of_the_job(self, queue: JobQueue) -> None:
        job_id = queue.push("keeping", {"n": 7})
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(queue.wait_for, job_id, LONG_S)
            queue.work("default", 1)
            assert waiter.result(LONG_S) == Summary(total=7)

    def test_answers_a_coroutine(self, queue: JobQueue) -> None:
        async def main() -> list[object]:
            ids = [await queue.apush("keeping", {"n": n}) for n in range(100)]
            everyone = asyncio.gather(*[queue.await_for(job_id, LONG_S) for job_id in ids])
            await queue.awork("default", 100)
            return await everyone

        assert asyncio.run(main()) == [Summary(total=n) for n in range(100)]

    def test_answers_none_where_no_result_is_kept(self, queue: JobQueue) -> None:
        job_id = queue.push("plain")
        queue.work("default", 1)
        assert queue.wait_for(job_id, LONG_S) is None

    @pytest.mark.parametrize(("name", "kind"), [("failing", JobHasFailed), ("discarding", JobWasCancelled)])
    def test_raises_what_has_become_of_the_job(self, queue: JobQueue, name: str, kind: type[NoResult]) -> None:
        job_id = queue.push(name)
        queue.work("default", 1)
        with pytest.raises(kind):
            queue.wait_for(job_id, LONG_S)
        with pytest.raises(kind):
            asyncio.run(queue.await_for(job_id, LONG_S))

    @pytest.mark.parametrize("is_async", [False, True])
    def test_ends_in_time_and_says_how_the_job_stands(self, queue: JobQueue, *, is_async: bool) -> None:
        job_id = queue.push("plain")
        with pytest.raises(WaitTimeout, match=f"Job {job_id} has not ended within 0.05 s: it is pending.") as error:
            asyncio.run(queue.await_for(job_id, 0.05)) if is_async else queue.wait_for(job_id, 0.05)
        assert isinstance(error.value, TimeoutError)

    def test_works_on_a_store_without_results(self, make_queue: MakeQueue) -> None:
        queue = make_queue(Forgetful())
        done, failed = queue.push("plain"), queue.push("failing")
        queue.work("default", 2)
        assert queue.wait_for(done, LONG_S) is None
        with pytest.raises(JobHasFailed, match="no error was kept"):
            queue.wait_for(failed, LONG_S)

    @pytest.mark.parametrize("timeout", [-1, "soon", 100_000])
    def test_refuses_no_bound(self, queue: JobQueue, timeout: float) -> None:
        with pytest.raises(OptionInvalid):
            queue.wait_for(queue.push("plain"), timeout)

    def test_is_refused_in_a_running_job(self, queue: JobQueue) -> None:
        other = queue.push("plain")
        refused: list[WaitInsideJob] = []

        @job(name="nested", queue="nested")
        def nested() -> None:
            with pytest.raises(WaitInsideJob) as error:
                queue.wait_for(other, LONG_S)
            refused.append(error.value)

        @job(name="nested-async", queue="nested")
        async def nested_async() -> None:
            with pytest.raises(WaitInsideJob) as error:
                await queue.await_for(other, LONG_S)
            refused.append(error.value)

        queue.push_many([nested, nested_async])
        assert queue.work("nested", 2).done == 2
        assert [("nobody is left to run" in str(error), "ctx.then" in error.mend) for error in refused] == [
            (True, True)
        ] * 2

    def test_sits_out_an_outage(self, make_queue: MakeQueue) -> None:
        driver = Asked()
        queue = make_queue(driver)
        job_id = queue.push("keeping", {"n": 1})
        queue.work("default", 1)
        driver.error = StoreUnavailable("away")
        with pytest.raises(WaitTimeout, match="the store did not say within 0.05 s how it stands") as error:
            queue.wait_for(job_id, 0.05)
        assert error.value.__cause__ is driver.error
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(queue.wait_for, job_id, LONG_S)
            assert not waiter.done()
            driver.error = None
            assert waiter.result(LONG_S) == Summary(total=1)

    @pytest.mark.parametrize("error", [ContractBroken("spoilt"), ZeroDivisionError("a driver's own")])
    def test_raises_any_other_error_of_the_store_at_once(self, make_queue: MakeQueue, error: Exception) -> None:
        driver = Asked()
        queue = make_queue(driver)
        job_id = queue.push("plain")
        driver.error = error
        with pytest.raises(Exception, match="spoilt|could not be asked: ZeroDivisionError"):
            queue.wait_for(job_id, LONG_S)
        driver.error = None
        queue.work("default", 1)
        assert queue.wait_for(job_id, LONG_S) is None  # its thread goes on

    def test_looks_seldomer_the_longer_it_waits(self, make_queue: MakeQueue) -> None:
        driver = Asked()
        queue = make_queue(driver)
        with pytest.raises(WaitTimeout):
            queue.wait_for(queue.push("plain"), 1.0)
        assert 5 <= len(driver.looks) <= 70
        first = driver.looks[0][0]
        late = [at for at, _ in driver.looks if at > first + 0.5]
        assert len(late) <= 8  # a tenth of the time that has passed: 0.05 s at least

    def test_many_who_wait_share_the_looks(self, make_queue: MakeQueue) -> None:
        driver = Asked()
        queue = make_queue(driver)
        ids = queue.push_many([("plain", {})] * 300)

        async def main() -> None:
            everyone = [asyncio.create_task(queue.await_for(job_id, 1.0)) for job_id in ids]
            results = await asyncio.gather(*everyone, return_exceptions=True)
            assert {type(result) for result in results} == {WaitTimeout}

        asyncio.run(main())
        assert max(count for _, count in driver.looks) > 100
        assert len(driver.looks) < 1_000

    def test_its_thread_ends_when_nobody_waits(self, queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waiting, "IDLE_S", 0.01)
        job_id = queue.push("plain")
        queue.work("default", 1)
        for _ in range(3):
            assert queue.wait_for(job_id, LONG_S) is None
            ends = time.monotonic() + LONG_S
            while queue._waiting._looker._is_running:
                assert time.monotonic() < ends
                time.sleep(0.001)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_works_in_a_forked_child(self, queue: JobQueue) -> None:
        job_id = queue.push("plain")
        queue.work("default", 1)
        assert queue.wait_for(job_id, LONG_S) is None
        if (child := os.fork()) == 0:
            code = 1
            try:
                code = 0 if queue.wait_for(job_id, LONG_S) is None else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_a_cancelled_coroutine_waits_no_more(self, make_queue: MakeQueue) -> None:
        driver = Asked()
        queue = make_queue(driver)
        job_id = queue.push("plain")

        async def main() -> None:
            task = asyncio.create_task(queue.await_for(job_id, LONG_S))
            while not driver.looks:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        ends = time.monotonic() + LONG_S
        while queue._waiting._looker._waiters:
            assert time.monotonic() < ends
            time.sleep(0.01)


class TestWatching:
    def test_shows_each_change_until_the_end(self, queue: JobQueue) -> None:
        go_on = threading.Event()

        @job(name="slow", queue="slow")
        def slow(ctx: JobContext) -> None:
            assert go_on.wait(LONG_S)

        job_id = queue.push(slow)
        seen: list[JobState] = []
        with ThreadPoolExecutor(1) as pool:
            for record in queue.watch(job_id, LONG_S):
                seen.append(record.status)
                if record.status is JobState.PENDING:
                    worker = pool.submit(queue.work, "slow", 1)
                elif record.status is JobState.PROCESSING:
                    go_on.set()
            assert worker.result(LONG_S).done == 1
        assert seen == [JobState.PENDING, JobState.PROCESSING, JobState.COMPLETED]

    def test_shows_them_to_a_coroutine(self, queue: JobQueue) -> None:
        async def main() -> list[JobState]:
            job_id = await queue.apush("plain")
            seen: list[JobState] = []
            async for record in queue.awatch(job_id, LONG_S):
                seen.append(record.status)
                if record.status is JobState.PENDING:
                    await queue.awork("default", 1)
            return seen

        assert asyncio.run(main()) == [JobState.PENDING, JobState.COMPLETED]

    def test_has_a_bound(self, queue: JobQueue) -> None:
        job_id = queue.push("plain")
        assert [record.status for record in queue.watch(job_id, 0.1)] == [JobState.PENDING]

    def test_ends_when_the_job_is_cleared(self, queue: JobQueue) -> None:
        job_id = queue.push("plain")
        for _ in queue.watch(job_id, LONG_S):
            queue.clear("default")
        with pytest.raises(JobMissing):
            next(queue.watch(job_id, LONG_S))

    def test_sits_out_an_outage(self, make_queue: MakeQueue) -> None:
        driver = Asked()
        queue = make_queue(driver)
        job_id = queue.push("plain")
        seen = queue.watch(job_id, LONG_S)
        assert next(seen).status is JobState.PENDING
        queue.work("default", 1)
        driver.error = StoreUnavailable("away")
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(next, seen)
            driver.error = None
            assert last.result(LONG_S).status is JobState.COMPLETED
        assert list(seen) == []
