"""Resources of a worker: opened once before its first job, shared by its jobs, closed in reverse order."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from protojobs import JobContext, JobQueue, StopToken, job, resource
from protojobs.errors import OptionInvalid, ResourceFailed
from protojobs.events import Event, JobProcessed
from protojobs.port.lifecycle import SUSPECT_RECLAIMS
from protojobs.testing import TestQueue
from protojobs.worker import kept_resources

MakeQueue = Callable[..., JobQueue]
Heard = Callable[..., list[Event]]
HERE = Path(__file__).parent


class Story:
    """Two resources, plain and async, and a job for each; `told` is what happened, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.values: list[object] = []
        tell = self.told.append

        @resource
        def settings() -> Iterator[dict[str, str]]:
            tell("settings opened")
            yield {"greeting": "hello"}
            tell("settings closed")

        @resource
        async def client() -> AsyncIterator[asyncio.AbstractEventLoop]:
            tell("client opened")
            yield asyncio.get_running_loop()
            tell("client closed")

        @job(name="plain", max_retries=0)
        def plain(ctx: JobContext) -> str:
            tell("plain ran")
            self.values.append(ctx.resource(settings))
            return ctx.resource(settings)["greeting"]

        @job(name="waiting", max_retries=0)
        async def waiting(ctx: JobContext) -> str:
            tell("waiting ran")
            self.values.append(ctx.resource(client))
            assert ctx.resource(client) is asyncio.get_running_loop()
            return ctx.resource(settings)["greeting"]

        @job(name="misplaced", max_retries=0)
        def misplaced(ctx: JobContext) -> object:
            return ctx.resource(client)

        self.settings, self.client = settings, client
        self.plain, self.waiting, self.misplaced = plain, waiting, misplaced


@pytest.fixture
def story() -> Story:
    return Story()


class TestAWorker:
    def test_opens_them_in_order_before_its_first_job_and_closes_them_in_reverse_order(
        self, queue: JobQueue, story: Story
    ) -> None:
        queue.push(story.plain)
        queue.work("default", 1)
        assert story.told == ["settings opened", "client opened", "plain ran"]
        queue.close()
        assert story.told[3:] == ["client closed", "settings closed"]

    def test_keeps_them_for_the_next_call_with_the_same_loop(self, queue: JobQueue, story: Story) -> None:
        for _ in range(3):
            queue.push(story.waiting)
            assert queue.work("default", 1).done == 1
        assert story.told.count("client opened") == 1
        assert len(set(map(id, story.values))) == 1
        queue.close()

    def test_that_works_until_it_is_told_to_stop_closes_them_before_it_returns(
        self, queue: JobQueue, story: Story, working: Callable[..., object], eventually: Callable[..., None]
    ) -> None:
        queue.push(story.plain)
        with working(queue):  # type: ignore[attr-defined]
            eventually(lambda: "plain ran" in story.told)
        assert story.told[-2:] == ["client closed", "settings closed"]

    def test_opens_nothing_where_nothing_is_declared(self, queue: JobQueue) -> None:
        @job(name="plain")
        def plain() -> None: ...

        queue.push(plain)
        assert queue.work("default", 1).done == 1

    def test_shares_them_with_another_worker_of_its_queue(
        self, queue: JobQueue, story: Story, working: Callable[..., object], eventually: Callable[..., None]
    ) -> None:
        with working(queue):  # type: ignore[attr-defined]
            eventually(lambda: "client opened" in story.told)
            queue.push(story.waiting)
            queue.work("others", 1)
            eventually(lambda: "waiting ran" in story.told)
            assert "client closed" not in story.told
        assert story.told.count("client opened") == 1
        assert story.told.count("client closed") == 1

    def test_hears_of_one_that_was_declared_after_the_last_call(self, queue: JobQueue, story: Story) -> None:
        queue.work("default", 1)

        @resource
        def late() -> Iterator[int]:
            yield 7

        @job(name="late")
        def use(ctx: JobContext) -> None:
            story.values.append(ctx.resource(late))

        queue.push(use)
        queue.work("default", 1)
        assert story.values == [7]
        queue.close()

    def test_that_is_told_to_stop_while_it_opens_them_returns_at_once(
        self, queue: JobQueue, story: Story, eventually: Callable[..., None]
    ) -> None:
        opening = threading.Event()

        @resource
        async def slow() -> AsyncIterator[None]:
            opening.set()
            await asyncio.sleep(60)
            yield

        stop, reasons = StopToken(), list[str]()
        worker = threading.Thread(target=lambda: reasons.append(queue.work(stop=stop).reason), daemon=True)
        worker.start()
        assert opening.wait(10)
        stop.stop()
        worker.join(10)
        assert reasons == ["stopped"]
        assert story.told == ["settings opened", "client opened", "client closed", "settings closed"]


class TestOneThatCannotBeOpened:
    def test_keeps_the_worker_from_starting_and_closes_the_others(self, queue: JobQueue, story: Story) -> None:
        @resource
        async def database() -> AsyncIterator[None]:
            raise ConnectionRefusedError("nobody is there")
            yield

        queue.push(story.plain)
        with pytest.raises(
            ResourceFailed, match=r"database could not be opened: ConnectionRefusedError: nobody"
        ) as got:
            queue.work("default", 1)
        assert isinstance(got.value.__cause__, ConnectionRefusedError)
        assert story.told == ["settings opened", "client opened", "client closed", "settings closed"]
        assert (queue.stats().pending, queue.workers()) == (1, [])

    def test_not_by_sys_exit_either(self, queue: JobQueue) -> None:
        @resource
        def leaving() -> Iterator[None]:
            sys.exit(3)
            yield

        with pytest.raises(ResourceFailed, match="leaving could not be opened: SystemExit: 3"):
            queue.work("default", 1)

    def test_is_given_up_when_it_takes_too_long(
        self, queue: JobQueue, story: Story, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @resource
        async def endless() -> AsyncIterator[None]:
            await asyncio.sleep(60)
            yield

        monkeypatch.setattr(kept_resources, "OPEN_S", 0.2)
        with pytest.raises(ResourceFailed, match=r"After 0.2 s these resources were still not open: .*endless\."):
            queue.work("default", 1)
        assert story.told[-2:] == ["client closed", "settings closed"]

    def test_is_opened_by_the_next_call_that_can(self, queue: JobQueue, story: Story) -> None:
        is_there: list[bool] = []

        @resource
        def database() -> Iterator[None]:
            if not is_there:
                raise OSError("away")
            yield

        queue.push(story.waiting)
        with pytest.raises(ResourceFailed):
            queue.work("default", 1)
        is_there.append(True)
        assert queue.work("default", 1).done == 1
        queue.close()


class TestOneThatCannotBeClosed:
    def test_is_logged_and_the_others_are_closed(
        self, queue: JobQueue, story: Story, caplog: pytest.LogCaptureFixture
    ) -> None:
        @resource
        def broken() -> Iterator[None]:
            yield
            raise OSError("the line is cut")

        queue.work("default", 1)
        queue.close()
        assert story.told == ["settings opened", "client opened", "client closed", "settings closed"]
        assert "broken could not be closed" in caplog.text

    def test_is_left_when_it_takes_longer_than_the_grace(
        self,
        make_queue: MakeQueue,
        working: Callable[..., object],
        eventually: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        @resource
        async def endless() -> AsyncIterator[None]:
            yield
            await asyncio.sleep(60)

        queue = make_queue(shutdown_grace=0)
        with working(queue) as worker:  # type: ignore[attr-defined]
            eventually(queue.workers)
            worker.token.stop()
            assert worker.has_ended_within(20)
        assert worker.report.reason == "stopped"
        assert "were not closed within 1 s" in caplog.text


class TestAJob:
    def test_that_is_plain_gets_no_async_resource(self, queue: JobQueue, story: Story) -> None:
        queue.push(story.misplaced)
        assert queue.work("default", 1).failed == 1
        assert "client is for async jobs" in next(queue.failed_jobs()).exception
        queue.close()

    def test_gets_no_resource_that_is_not_open(self, queue: JobQueue) -> None:
        with pytest.raises(OptionInvalid, match="cannot be a resource: it yields nothing"):
            resource(lambda: iter(()))
        with pytest.raises(OptionInvalid, match="wants arguments"):

            @resource  # type: ignore[arg-type]
            def wanting(url: str) -> Iterator[str]:
                yield url

        errors: list[OptionInvalid] = []

        @job(name="astray", max_retries=0)
        def astray(ctx: JobContext) -> None:
            try:
                ctx.resource("database")  # type: ignore[arg-type]
            except OptionInvalid as error:
                errors.append(error)

        queue.push(astray)
        queue.work("default", 1)
        assert "is not open here. Declare it under @resource" in str(errors[0])


class TestDrain:
    def test_opens_them_for_its_first_job_and_closes_them_at_its_end(self, job_queue: TestQueue, story: Story) -> None:
        job_queue.drain()
        assert story.told == []
        job_queue.push_many([story.waiting.bind(), story.plain.bind()])
        assert job_queue.drain().done == 2
        assert story.told[:2] == ["settings opened", "client opened"]
        assert story.told[-2:] == ["client closed", "settings closed"]

    def test_on_the_callers_loop(self, job_queue: TestQueue, story: Story) -> None:
        async def test() -> bool:
            await job_queue.apush(story.waiting)
            await job_queue.adrain()
            return story.values == [asyncio.get_running_loop()]

        assert asyncio.run(test())
        assert story.told[-2:] == ["client closed", "settings closed"]

    def test_gives_what_the_test_has_put_in_the_place_of_one(self, job_queue: TestQueue, story: Story) -> None:
        job_queue.replace_resource(story.settings, {"greeting": "hi"})
        job_queue.push(story.plain)
        job_queue.drain()
        assert story.values == [{"greeting": "hi"}]
        assert "settings opened" not in story.told

    def test_its_async_jobs_share_one_loop(self, job_queue: TestQueue) -> None:
        loops: list[object] = []

        @job(name="where")
        async def where() -> None:
            loops.append(asyncio.get_running_loop())

        job_queue.push_many([where.bind(), where.bind()])
        job_queue.drain()
        assert loops[0] is loops[1]


def test_a_pool_that_a_job_has_made_for_its_loop_serves_the_jobs_of_other_calls_and_other_queues(
    make_queue: MakeQueue,
) -> None:
    loops: list[object] = []

    @job(name="where")
    async def where() -> None:
        loops.append(asyncio.get_running_loop())

    for _ in range(2):
        queue = make_queue()
        for _ in range(2):
            queue.push(where)
            queue.work("default", 1)
    assert len(loops) == 4
    assert len(set(map(id, loops))) == 1


@pytest.mark.skipif(os.name != "posix", reason="child processes are for POSIX systems")
class TestInChildren:
    @pytest.fixture
    def jobs(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
        monkeypatch.syspath_prepend(str(HERE))
        monkeypatch.setenv("RESOURCE_NOTES", str(tmp_path / "notes"))
        if (module := sys.modules.get("resource_jobs")) is None:
            return importlib.import_module("resource_jobs")
        return importlib.reload(module)

    def notes(self, tmp_path: Path, *, of: int | None) -> list[str]:
        """What happened in the worker (`of=None`), or in its child."""
        lines = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
        return [what for what, pid in lines if (int(pid) == os.getpid()) is (of is None)]

    def test_each_opens_the_plain_ones_once_and_closes_them(
        self, queue: JobQueue, jobs: ModuleType, heard: Heard, tmp_path: Path
    ) -> None:
        processed = heard("job.processed")
        queue.push_many([jobs.use_plain.bind()] * 3)
        assert queue.work("default", 3, concurrency=1).done == 3
        assert [event.result for event in processed if isinstance(event, JobProcessed)] == ["plain"] * 3
        assert self.notes(tmp_path, of=1) == ["open", "run", "run", "run", "close"]
        queue.close()
        assert self.notes(tmp_path, of=None) == ["open", "aopen", "aclose", "close"]

    def test_an_async_suspect_finds_the_async_ones_on_its_loop(
        self, queue: JobQueue, jobs: ModuleType, heard: Heard, tmp_path: Path, make_suspect: Callable[[JobQueue], None]
    ) -> None:
        processed = heard("job.processed")
        queue.push(jobs.use_async)
        make_suspect(queue)
        assert queue.work("default", 1).done == 1
        assert [event.result for event in processed if isinstance(event, JobProcessed)] == [True]
        assert self.notes(tmp_path, of=1) == ["open", "aopen", "arun", "aclose", "close"]
        queue.close()

    @pytest.fixture
    def make_suspect(self, clock: object) -> Callable[[JobQueue], None]:
        """Let two workers die with the job."""

        def make(queue: JobQueue) -> None:
            from protojobs.port.records import WorkerInfo

            for number in range(SUSPECT_RECLAIMS):
                name = f"dead-{number}"
                info = WorkerInfo(id=name, host="h", pid=1, queues=("default",), concurrency=1, lease_s=1.0)
                queue.driver.register(info)
                assert queue.driver.claim(name, ["default"], slots=1, limit=1)
                clock.advance(10.0)  # type: ignore[attr-defined]
                queue.driver.reclaim(10)
                clock.advance(1000.0)  # type: ignore[attr-defined]

        return make

    def test_a_child_that_cannot_open_one_gives_its_job_back_unspent(
        self,
        queue: JobQueue,
        jobs: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        working: Callable[..., object],
        eventually: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def state() -> tuple[str, int, str]:
            record = queue.get(job_id)
            assert record is not None
            return record.status, record.attempts, record.reason

        with working(queue):  # type: ignore[attr-defined]
            eventually(queue.workers)
            monkeypatch.setenv("RESOURCE_FAILS", "1")
            job_id = queue.push(jobs.use_plain)
            eventually(lambda: state() == ("pending", 0, "no child process could be started"))
        assert "resource_jobs.plain could not be opened: ConnectionRefusedError: nobody is there" in caplog.text
