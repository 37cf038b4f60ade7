"""The `job_queue` fixture: a whole queue in the test's own thread, with the test's own time."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import date

import pytest

from protojobs import Discard, Job, JobContext, Retry, Snooze, events, hookimpl, job
from protojobs.errors import DataInvalid, JobUnknown, PayloadNotEncodable, ResultInvalid
from protojobs.testing import TestQueue

ran: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_has_run() -> None:
    ran.clear()


@pytest.fixture
def note():
    @job(name="note", queue="notes")
    def note(text: str) -> None:
        ran.append((text, threading.current_thread().name))

    return note


class TestDrain:
    def test_runs_what_is_due_on_all_queues_in_this_thread(self, job_queue: TestQueue, note) -> None:
        job_queue.push(note.bind("a"))
        job_queue.push(note.bind("b").on_queue("others"))
        report = job_queue.drain()
        me = threading.current_thread().name
        assert sorted(ran) == [("a", me), ("b", me)]
        assert (report.runs, report.done, report.failed, report.errors) == (2, 2, 0, ())
        assert job_queue.stats().completed == 2

    def test_of_named_queues_only(self, job_queue: TestQueue, note) -> None:
        job_queue.push(note.bind("a"))
        job_queue.push(note.bind("b").on_queue("others"))
        assert job_queue.drain("others").done == 1
        assert job_queue.drain(["others", "nowhere"]).done == 0
        assert [text for text, _ in ran] == ["b"]
        assert job_queue.drain("notes").done == 1

    def test_goes_on_with_what_the_jobs_push(self, job_queue: TestQueue, note) -> None:
        @job(name="parent")
        def parent(children: int) -> None:
            job_queue.push_many(note.bind(str(n)) for n in range(children))

        job_queue.push(parent.bind(3))
        assert job_queue.drain().done == 4

    def test_an_empty_queue_is_drained_at_once(self, job_queue: TestQueue) -> None:
        assert job_queue.drain().runs == 0

    def test_raises_what_a_job_raises_with_the_job_named(self, job_queue: TestQueue) -> None:
        @job(name="broken")
        def broken(text: str) -> None:
            raise ValueError(text)

        job_queue.push(broken.bind("no luck"))
        with pytest.raises(ValueError, match="no luck") as caught:
            job_queue.drain()
        assert caught.value.__notes__ == ['raised by job "broken", attempt 1, data {"text":"no luck"}']
        (record,) = job_queue.find().jobs
        assert (record.status, record.attempts) == ("pending", 1)

    def test_a_job_whose_work_is_not_done_raises_too(self, job_queue: TestQueue) -> None:
        @job(name="forgetful")
        def forgetful() -> object:
            return asyncio.sleep(0)

        job_queue.push(forgetful)
        with pytest.raises(ResultInvalid, match="nobody awaits"):
            job_queue.drain()

    def test_or_tells_it_in_the_report_and_retries_follow_the_clock(self, job_queue: TestQueue) -> None:
        @job(name="broken", max_retries=2, retry_delay=100, backoff=[100])
        def broken() -> None:
            raise ValueError("no luck")

        job_queue.push(broken.bind())
        assert [str(error) for error in job_queue.drain(raises=False).errors] == ["no luck"]
        assert job_queue.drain(raises=False).runs == 0
        job_queue.travel(seconds=126)
        assert job_queue.drain(raises=False).failed == 0
        job_queue.travel(minutes=3)
        assert job_queue.drain(raises=False).failed == 1
        assert [row.attempts for row in job_queue.failed_jobs()] == [3]

    def test_calls_failed_and_raises_its_own_error_in_any_case(self, job_queue: TestQueue) -> None:
        class Broken(Job):
            name = "broken"
            max_retries = 0

            def handle(self, data: dict[str, object]) -> None:
                raise ValueError("no luck")

            def failed(self, exception: BaseException, data: dict[str, object]) -> None:
                ran.append((type(exception), data))
                if data["bad"]:
                    raise LookupError("nobody to tell")

        job_queue.push(Broken, {"bad": False})
        assert job_queue.drain(raises=False).failed == 1
        assert ran == [(ValueError, {"bad": False})]
        job_queue.push(Broken, {"bad": True})
        with pytest.raises(LookupError, match="nobody to tell"):
            job_queue.drain(raises=False)

    def test_what_a_job_asks_for_is_no_trouble(self, job_queue: TestQueue) -> None:
        answers: list[object] = [Snooze(10), Retry(10), Discard("not wanted")]

        @job(name="steers")
        def steers() -> object:
            return answers.pop(0)

        job_queue.push(steers.bind())
        for _ in range(3):
            assert job_queue.drain().runs == 1
            job_queue.travel(seconds=10)
        assert job_queue.stats().cancelled == 1

    def test_a_job_that_nobody_knows_is_trouble(self, job_queue: TestQueue, note) -> None:
        job_queue.push(note.bind("a"))
        vars(job_queue.registry)["_by_name"].clear()
        with pytest.raises(JobUnknown, match='No job is called "note"'):
            job_queue.drain()

    def test_a_job_without_end_is_noticed(self, job_queue: TestQueue, monkeypatch) -> None:
        monkeypatch.setattr("protojobs.testing.queueing.RUNS_MAX", 20)

        @job(name="endless")
        def endless() -> None:
            job_queue.push(endless.bind())

        job_queue.push(endless.bind())
        with pytest.raises(RuntimeError, match=r'20 jobs have run, and more are due. Does "endless" push'):
            job_queue.drain()

    def test_a_paused_queue_is_left_alone(self, job_queue: TestQueue, note) -> None:
        job_queue.pause("notes")
        job_queue.push(note.bind("a"))
        assert job_queue.drain().runs == 0

    def test_events_are_told(self, job_queue: TestQueue, note) -> None:
        heard: list[str] = []
        for name in ("job.queuing", "job.queued", "job.processing", "job.processed"):
            events.on(name, lambda event: heard.append(event.event_name))
        job_queue.push(note.bind("a"))
        job_queue.drain()
        assert heard == ["job.queuing", "job.queued", "job.processing", "job.processed"]

    def test_a_job_gets_its_context(self, job_queue: TestQueue) -> None:
        @job(name="looks")
        def looks(context: JobContext) -> None:
            context.progress(0.5)
            with context.effect("nothing in particular"):
                ran.append((context.id, context.attempt, context.deadline_s))

        job_id = job_queue.push(looks.bind())
        job_queue.drain()
        assert ran == [(job_id, 1, 60.0)]


class TestAsyncJobs:
    @pytest.fixture
    def anote(self):
        @job(name="anote")
        async def anote(text: str) -> None:
            await asyncio.sleep(0)
            ran.append((text, id(asyncio.get_running_loop())))

        return anote

    def test_run_on_a_loop_of_their_own(self, job_queue: TestQueue, anote) -> None:
        job_queue.push(anote.bind("a"))
        assert job_queue.drain().done == 1

    def test_run_on_the_tests_loop_by_adrain(self, job_queue: TestQueue, anote, note) -> None:
        async def test() -> None:
            await job_queue.apush(anote.bind("a"))
            await job_queue.apush(note.bind("b"))
            assert (await job_queue.adrain()).done == 2
            assert ran[0] == ("a", id(asyncio.get_running_loop()))

        asyncio.run(test())

    def test_and_drain_says_so_where_it_cannot(self, job_queue: TestQueue, anote) -> None:
        async def test() -> None:
            await job_queue.apush(anote.bind("a"))
            job_queue.drain()

        with pytest.raises(RuntimeError, match=r"Await adrain\(\) instead"):
            asyncio.run(test())

    def test_run_inline_on_the_tests_loop(self, job_queue: TestQueue, anote) -> None:
        async def test() -> None:
            with job_queue.inline():
                await job_queue.apush(anote.bind("a"))
            assert ran == [("a", id(asyncio.get_running_loop()))]

        asyncio.run(test())

    def test_their_failed_is_awaited(self, job_queue: TestQueue) -> None:
        class Broken(Job):
            name = "broken"
            max_retries = 0

            async def handle(self, data: object) -> None:
                raise ValueError("no luck")

            async def failed(self, exception: BaseException, data: object) -> None:
                ran.append(str(exception))

        job_queue.push(Broken)
        job_queue.drain(raises=False)
        assert ran == ["no luck"]


class TestInline:
    def test_each_push_has_run_when_it_returns(self, job_queue: TestQueue, note) -> None:
        with job_queue.inline():
            job_queue.push(note.bind("a"))
            assert [text for text, _ in ran] == ["a"]
            job_queue.push_many([note.bind("b"), note.bind("c")])
            assert [text for text, _ in ran] == ["a", "b", "c"]
        job_queue.push(note.bind("d"))
        assert len(ran) == 3

    def test_a_delayed_job_waits_for_its_time(self, job_queue: TestQueue, note) -> None:
        with job_queue.inline():
            job_queue.later(3600, note.bind("a"))
            assert ran == []
            job_queue.travel(hours=1)
        assert job_queue.drain().done == 1

    def test_push_raises_what_the_job_raises(self, job_queue: TestQueue) -> None:
        @job(name="broken")
        def broken() -> None:
            raise ValueError("no luck")

        with job_queue.inline(), pytest.raises(ValueError, match="no luck"):
            job_queue.push(broken.bind())
        with job_queue.inline(raises=False):
            job_queue.push(broken.bind())

    def test_what_a_job_pushes_runs_after_it_not_within(self, job_queue: TestQueue) -> None:
        @job(name="outer")
        def outer() -> None:
            ran.append("outer begins")
            job_queue.push(inner.bind())
            ran.append("outer ends")

        @job(name="inner")
        def inner() -> None:
            ran.append("inner")

        with job_queue.inline():
            job_queue.push(outer.bind())
        assert ran == ["outer begins", "outer ends", "inner"]


class TestAsInProduction:
    """A test fails where production would."""

    def test_data_that_json_cannot_hold_is_refused(self, job_queue: TestQueue) -> None:
        class Send(Job):
            name = "send"

            def handle(self, data: dict[str, object]) -> None: ...

        with job_queue.inline(), pytest.raises(PayloadNotEncodable, match=r"\$\.when is a datetime.date"):
            job_queue.push(Send, {"when": date(2030, 1, 1)})

    def test_a_job_sees_what_a_worker_would(self, job_queue: TestQueue) -> None:
        class Look(Job):
            name = "look"

            def handle(self, data: dict[str, object]) -> None:
                ran.append(data)

        sent = {"pair": (1, 2)}
        with job_queue.inline():
            job_queue.push(Look, sent)
        assert ran == [{"pair": [1, 2]}]

    def test_typed_data_is_checked(self, job_queue: TestQueue) -> None:
        class Resize(Job[Size]):
            name = "resize"

            def handle(self, data: Size) -> None:
                ran.append(data)

        with job_queue.inline():
            job_queue.push(Resize, Size(10))
            assert ran == [Size(10)]
            with pytest.raises(DataInvalid):
                job_queue.push(Resize, {"width": "ten"})

    def test_a_real_worker_can_work_the_same_queue(self, job_queue: TestQueue, note) -> None:
        job_queue.push(note.bind("a"))
        job_queue.push(note.bind("b"))
        assert job_queue.work("notes", 10).done == 2


@dataclass
class Size:
    width: int


class TestPlugins:
    def test_installed_ones_are_left_out(self, job_queue: TestQueue, monkeypatch) -> None:
        monkeypatch.setattr(
            "protojobs.hooks.installed_plugins.load_hooks", lambda *_, **__: pytest.fail("plugins were loaded")
        )
        assert job_queue.hooks.plugins == []
        assert TestQueue({"plugins": ["json"]}).hooks.plugins == []

    def test_those_given_are_used(self) -> None:
        class Counts:
            seen = 0

            @hookimpl
            def protojobs_job_queued(self) -> None:
                self.seen += 1

        @job(name="idle")
        def idle() -> None: ...

        counts = Counts()
        queue = TestQueue(plugins=[("counts", counts)])
        queue.push(idle.bind())
        assert counts.seen == 1


def test_each_queue_is_alone(job_queue: TestQueue, note) -> None:
    job_queue.push(note.bind("a"))
    assert TestQueue().stats().total == 0
    assert job_queue.clock.now().year == 2030


def test_reset_forgets_jobs_and_pushes_and_keeps_the_time(job_queue: TestQueue, note) -> None:
    job_queue.push(note.bind("a"))
    job_queue.travel(days=1)
    now = job_queue.driver.now()
    job_queue.reset()
    assert (job_queue.stats().total, job_queue.pushed(), job_queue.driver.now()) == (0, [], now)
