"""Plugins: observers cannot hurt anybody, around hooks wrap the run, transforms fail closed."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import pytest

from protojobs import Job, JobContext, JobQueue, events, hookimpl, job
from protojobs.errors import PushRejected
from protojobs.events import Event, JobProcessed, QueuePaused
from protojobs.hooks import Dispatcher, Hooks
from protojobs.hooks import hooks as hooks_module
from protojobs.hooks.dispatcher import BACKLOG_BYTES_MAX, BACKLOG_MAX
from protojobs.hooks.hooks import QUARANTINE_AFTER, QUARANTINE_S
from protojobs.port.records import ClaimedJob, NewJob
from protojobs.testing import ManualClock

AN_EVENT = QueuePaused(queue="emails")
MAKE_QUEUE = Callable[..., JobQueue]


class Large:
    """A result that only its own code could tell the size of."""

    def __sizeof__(self) -> int:
        raise AssertionError("nobody asks")


class Echo(Job):
    name = "echo"

    def handle(self, data: dict[str, object]) -> object:
        return data


def with_plugins(queue: JobQueue, *plugins: object) -> JobQueue:
    queue._hooks = Hooks([(f"plugin-{n}", plugin) for n, plugin in enumerate(plugins)], clock=queue.clock)
    queue.registry.add(Echo.definition)
    return queue


class TestObservers:
    def test_one_that_fails_hurts_neither_the_others_nor_the_caller(self, caplog: pytest.LogCaptureFixture) -> None:
        heard: list[str] = []

        class Broken:
            @hookimpl
            def protojobs_queue_paused(self, event: Event) -> None:
                heard.append("broken")
                raise ZeroDivisionError("boom")

        class Fine:
            @hookimpl
            def protojobs_queue_paused(self) -> None:
                heard.append("fine")

        events.on("queue.paused", lambda event: heard.append("listener"))
        Hooks([("broken", Broken()), ("fine", Fine())]).notify(AN_EVENT)
        assert sorted(heard) == ["broken", "fine", "listener"]
        assert "boom" in caplog.text

    def test_after_twenty_errors_in_a_row_a_listener_is_left_out_for_five_minutes(self, clock: ManualClock) -> None:
        calls: list[Event] = []

        def broken(event: Event) -> None:
            calls.append(event)
            raise ValueError

        hooks = Hooks(clock=clock)
        events.on("queue.paused", broken)
        for _ in range(QUARANTINE_AFTER + 10):
            hooks.notify(AN_EVENT)
        assert len(calls) == QUARANTINE_AFTER == 20
        clock.advance(QUARANTINE_S - 1)
        hooks.notify(AN_EVENT)
        assert len(calls) == 20
        clock.advance(1)
        for _ in range(30):
            hooks.notify(AN_EVENT)
        assert len(calls) == 40

    def test_two_threads_whose_pushes_meet_the_same_broken_listener_go_on(
        self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(_event: Event) -> None:
            raise ValueError

        hooks = Hooks(clock=clock)
        events.on("queue.paused", broken)
        for _ in range(QUARANTINE_AFTER - 1):
            hooks.notify(AN_EVENT)
        is_other: list[bool] = []

        def during_the_last_one(*_arguments: object, **_options: object) -> None:
            if not is_other:
                is_other.append(True)
                hooks.notify(AN_EVENT)  # as another thread may just when this one has counted its error

        monkeypatch.setattr(hooks_module._log, "error", during_the_last_one)
        hooks.notify(AN_EVENT)
        assert is_other

    def test_a_success_in_between_starts_the_count_again(self, clock: ManualClock) -> None:
        calls: list[int] = []

        def shaky(event: Event) -> None:
            calls.append(1)
            if len(calls) % 10:
                raise ValueError

        hooks = Hooks(clock=clock)
        events.on("queue.paused", shaky)
        for _ in range(100):
            hooks.notify(AN_EVENT)
        assert len(calls) == 100

    def test_a_new_listener_never_inherits_the_errors_of_one_that_is_gone(
        self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hooks_module._log, "disabled", True)  # pytest keeps what is logged, and so the listeners
        hooks, heard = Hooks(clock=clock), list[int]()
        for number in range(50):

            def broken(event: Event, number: int = -1) -> None:
                raise ValueError

            events.on("queue.paused", broken)
            for _ in range(QUARANTINE_AFTER):
                hooks.notify(AN_EVENT)
            events.off("queue.paused", broken)
            del broken

            def sound(event: Event, number: int = number) -> None:
                heard.append(number)

            events.on("queue.paused", sound)
            hooks.notify(AN_EVENT)
            events.off("queue.paused", sound)
            del sound
        assert heard == list(range(50))

    def test_a_listener_that_cannot_be_hashed_is_as_good_as_any(self) -> None:
        @dataclass
        class Collector:
            seen: int = 0

            def __call__(self, event: Event) -> None:
                self.seen += 1
                if self.seen % 2:
                    raise ValueError

        collector = Collector()
        hooks = Hooks()
        events.on("queue.paused", collector)
        for _ in range(4):
            hooks.notify(AN_EVENT)
        assert collector.seen == 4

    def test_nobody_listening_is_known_beforehand(self) -> None:
        hooks = Hooks()
        assert not hooks.listens("queue.paused")
        events.on("queue.paused", print)
        assert hooks.listens("queue.paused")
        assert not hooks.listens("queue.resumed")


class TestAroundHooks:
    def test_they_wrap_the_run_in_its_own_thread_and_see_how_it_ended(self, queue: JobQueue) -> None:
        seen: list[tuple[str, object]] = []

        class Failing(Job):
            name = "failing"
            max_retries = 0

            def handle(self, data: object) -> None:
                seen.append(("run", threading.get_ident()))
                raise ValueError("boom")

        class Tracing:
            def __init__(self, name: str) -> None:
                self.name = name

            @hookimpl
            @contextmanager
            def protojobs_around_job(self, context: JobContext) -> Generator[None]:
                seen.append((f"{self.name} in", threading.get_ident()))
                try:
                    yield
                except ValueError as error:
                    seen.append((f"{self.name} saw {error}", context.job_name))
                    raise
                finally:
                    seen.append((f"{self.name} out", threading.get_ident()))

        with_plugins(queue, Tracing("a"), Tracing("b"))
        queue.push(Failing)
        assert queue.work("default", 1).failed == 1
        names = [name for name, _ in seen]
        first, second = names[0][0], names[1][0]
        assert names == [
            *(f"{first} in", f"{second} in", "run"),
            *(f"{second} saw boom", f"{second} out", f"{first} saw boom", f"{first} out"),
        ]
        assert len({thread for name, thread in seen if "saw" not in name}) == 1

    @pytest.mark.parametrize("where", ["call", "enter", "exit", "swallow"])
    def test_whatever_one_does_wrong_the_job_ends_as_it_would_alone(self, queue: JobQueue, where: str) -> None:
        class Manager:
            def __enter__(self) -> None:
                if where == "enter":
                    raise RuntimeError("hook, on the way in")

            def __exit__(self, *details: object) -> bool:
                if where == "exit":
                    raise RuntimeError("hook, on the way out")
                return where == "swallow"

        class Broken:
            @hookimpl
            def protojobs_around_job(self, context: JobContext) -> Manager:
                if where == "call":
                    raise RuntimeError("hook, when called")
                return Manager()

        class Failing(Job):
            name = "failing"
            max_retries = 0

            def handle(self, data: object) -> None:
                raise ValueError("the job's own")

        with_plugins(queue, Broken())
        queue.push(Echo)
        queue.push(Failing)
        report = queue.work("default", 5)
        assert (report.done, report.failed) == (1, 1)
        (failed,) = queue.failed_jobs()
        assert "the job's own" in failed.exception
        assert "RuntimeError" not in failed.exception

    @pytest.mark.parametrize("where", ["call", "enter", "exit"])
    @pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), KeyboardInterrupt()])
    @pytest.mark.parametrize("is_async", [False, True])
    def test_not_even_one_that_wants_to_end_the_program_is_the_jobs_trouble(
        self, queue: JobQueue, where: str, error: BaseException, is_async: bool
    ) -> None:
        class Ends:
            @hookimpl
            @contextmanager
            def protojobs_around_job(self, context: JobContext) -> Generator[None]:
                if where == "enter":
                    raise error
                yield
                if where == "exit":
                    raise error

        class EndsAtOnce:
            @hookimpl
            def protojobs_around_job(self, context: JobContext) -> None:
                raise error

        with_plugins(queue, EndsAtOnce() if where == "call" else Ends())

        @job(name="waits")
        async def waits() -> None:
            await asyncio.sleep(0)

        queue.push(waits.bind() if is_async else Echo)
        assert queue.work("default", 1).done == 1

    @pytest.mark.parametrize("raises", [False, True])
    def test_one_that_outlasts_the_timeout_after_the_job_is_not_the_jobs_trouble(
        self, make_queue: Callable[..., JobQueue], raises: bool
    ) -> None:
        class Slow:
            @hookimpl
            @contextmanager
            def protojobs_around_job(self, context: JobContext) -> Generator[None]:
                try:
                    yield
                finally:
                    for _ in range(10_000):
                        time.sleep(0.001)

        class Fails(Job):
            name = "fails"

            def handle(self, data: object) -> None:
                raise ValueError("the job's own")

        queue = with_plugins(make_queue(timeout=0.2, max_retries=0), Slow())
        queue.push(Fails if raises else Echo)
        report = queue.work("default", 1)
        assert (report.done, report.failed) == ((0, 1) if raises else (1, 0))
        assert [row.exception.splitlines()[-1] for row in queue.failed_jobs()] == ["ValueError: the job's own"] * raises

    def test_one_sees_the_locals_of_the_job_that_failed(self, queue: JobQueue) -> None:
        seen: list[object] = []

        class Reports:
            @hookimpl
            @contextmanager
            def protojobs_around_job(self, context: JobContext) -> Generator[None]:
                try:
                    yield
                except ValueError as error:
                    innermost = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
                    seen.append(innermost.f_locals["order"])
                    raise

        class Fails(Job):
            name = "fails"

            def handle(self, data: object) -> None:
                order = 7
                raise ValueError(order)

        with_plugins(queue, Reports()).push(Fails)
        queue.work("default", 1)
        assert seen == [7]

    def test_they_wrap_async_jobs_too(self, queue: JobQueue) -> None:
        seen: list[str] = []

        class Waiting(Job):
            name = "waiting"

            async def handle(self, data: object) -> None:
                seen.append("run")

        class Tracing:
            @hookimpl
            @contextmanager
            def protojobs_around_job(self) -> Generator[None]:
                seen.append("in")
                yield
                seen.append("out")

        with_plugins(queue, Tracing())
        queue.push(Waiting)
        assert queue.work("default", 1).done == 1
        assert seen == ["in", "run", "out"]


class Reversing:
    """As a plugin that encrypts would: the store never sees what the job sees."""

    @hookimpl
    def protojobs_before_push(self, job: NewJob) -> NewJob:
        return msgspec.structs.replace(job, data=job.data[::-1])

    @hookimpl
    def protojobs_before_run(self, job: ClaimedJob) -> ClaimedJob:
        return msgspec.structs.replace(job, data=job.data[::-1])


class Wrapping:
    @hookimpl
    def protojobs_before_push(self, job: NewJob) -> NewJob:
        return msgspec.structs.replace(job, data=f"<{job.data}")

    @hookimpl
    def protojobs_before_run(self, job: ClaimedJob) -> ClaimedJob:
        assert job.data.startswith("<")
        return msgspec.structs.replace(job, data=job.data[1:])


class TestTransforms:
    def test_what_push_transforms_did_run_transforms_undo_in_reverse_order(
        self, queue: JobQueue, heard: Callable[..., list[Event]]
    ) -> None:
        processed = heard("job.processed")
        with_plugins(queue, Reversing(), Wrapping())
        record = queue.get(queue.push(Echo, {"a": 1}))
        assert record is not None
        assert "<" in record.data
        assert queue.work("default", 1).done == 1
        assert processed[0].get("result") == {"a": 1}

    @pytest.mark.parametrize("answer", [ZeroDivisionError("boom"), "text", 3, True])
    def test_one_that_fails_or_answers_nonsense_fails_the_push_and_nothing_is_stored(
        self, queue: JobQueue, answer: object
    ) -> None:
        class Broken:
            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> object:
                if isinstance(answer, Exception):
                    raise answer
                return answer

        with_plugins(queue, Broken())
        for push in (lambda: queue.push(Echo), lambda: queue.push_many([Echo, Echo]), lambda: queue.later(5, Echo)):
            with pytest.raises(PushRejected, match="echo"):
                push()
        assert queue.stats().total == 0

    @pytest.mark.parametrize(
        ("change", "said"),
        [({"meta": {"trace": "1"}}, r"meta of its NewJob: Expected `str \| null`, got `object`"),
         ({"data": b"{}"}, "data of its NewJob"), ({"available_at": "2030-01-01T00:00:00Z"}, "available_at of its"),
         ({"priority": "high"}, "priority of its NewJob"), ({"limit_keys": None}, "limit_keys of its NewJob")],
    )  # fmt: skip
    def test_a_value_that_no_store_could_take_fails_the_push_with_the_plugin_and_the_field(
        self, queue: JobQueue, change: dict[str, object], said: str
    ) -> None:
        class Tracing:
            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> NewJob:
                return msgspec.structs.replace(job, **change)

        with_plugins(queue, Wrapping(), Tracing())
        with pytest.raises(PushRejected, match=said) as refusal:
            queue.push(Echo)
        assert "plugin plugin-1 failed" in refusal.value.message
        assert queue.stats().total == 0

    def test_a_veto_reaches_the_caller_as_it_is(self, queue: JobQueue) -> None:
        class Veto:
            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> None:
                raise PushRejected("not on Sundays")

        with pytest.raises(PushRejected, match="not on Sundays"):
            with_plugins(queue, Veto()).push(Echo)

    @pytest.mark.parametrize("answer", [ZeroDivisionError("boom"), "text", {"id": 1}])
    def test_one_that_fails_or_answers_nonsense_at_run_gives_the_job_back_unspent_and_the_worker_lives(
        self, queue: JobQueue, heard: Callable[..., list[Event]], answer: object
    ) -> None:
        class Broken:
            @hookimpl
            def protojobs_before_run(self, job: ClaimedJob) -> object:
                if isinstance(answer, Exception):
                    raise answer
                return answer

        released = heard("job.released")
        with_plugins(queue, Broken())
        job_id = queue.push(Echo)
        assert queue.work("default", 5).runs == 0
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts, record.reason) == ("pending", 0, "transform")
        assert record.available_at > record.created_at
        assert [event.get("reason") for event in released] == ["transform"]

    def test_one_that_waits_at_run_holds_up_no_other_job(self, make_queue: Callable[..., JobQueue]) -> None:
        both = threading.Barrier(2, timeout=10)

        class Slow:
            @hookimpl
            def protojobs_before_run(self, job: ClaimedJob) -> None:
                both.wait()

        queue = with_plugins(make_queue(concurrency=2), Slow())
        queue.push_many([Echo, Echo])
        assert queue.work("default", 2).done == 2

    def test_one_that_wants_to_end_the_program_gives_the_job_back(
        self, queue: JobQueue, heard: Callable[..., list[Event]]
    ) -> None:
        class Leaves:
            @hookimpl
            def protojobs_before_run(self, job: ClaimedJob) -> None:
                raise SystemExit("no key")

        released = heard("job.released")
        with_plugins(queue, Leaves()).push(Echo)
        assert queue.work("default", 1).runs == 0
        assert [(event.get("reason"), event.get("error").strip()[-6:]) for event in released] == [  # type: ignore[attr-defined]
            ("transform", "no key")
        ]

    @pytest.mark.parametrize("is_async", [False, True])
    def test_one_that_outlasts_the_jobs_timeout_gives_the_job_back_unspent(
        self, make_queue: Callable[..., JobQueue], heard: Callable[..., list[Event]], is_async: bool
    ) -> None:
        class Hangs:
            @hookimpl
            def protojobs_before_run(self, job: ClaimedJob) -> None:
                for _ in range(0 if is_async else 10_000):
                    time.sleep(0.001)
                if is_async:  # nothing ends what blocks the loop but itself
                    raise TimeoutError

        released = heard("job.released")
        queue = with_plugins(make_queue(timeout=0.1), Hangs())

        @job(name="never runs")
        async def never_runs() -> None: ...

        job_id = queue.push(never_runs.bind() if is_async else Echo)
        assert queue.work("default", 1).runs == 0
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 0)
        assert [event.get("reason") for event in released] == ["transform"]


class TestBrokenPlugins:
    def test_one_that_does_not_fit_the_hooks_is_left_out_whole_with_a_log_line(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Half:
            @hookimpl
            def protojobs_around_job(self, context: JobContext) -> None:
                raise AssertionError("left out")

            @hookimpl
            def protojobs_job_failed(self, event: Event, more: int) -> None: ...

            @hookimpl
            def protojobs_queue_paused(self, event: Event) -> None:
                raise AssertionError("left out")

        class Fine:
            @hookimpl
            def protojobs_queue_paused(self, event: Event) -> None: ...

        hooks = Hooks([("half", Half()), ("fine", Fine())])
        assert hooks.plugins == ["fine"]
        assert hooks.around_job == ()
        assert hooks.listens("queue.paused")
        assert "half" in caplog.text

    def test_a_second_plugin_of_the_same_name_is_left_out_and_the_first_stays(self) -> None:
        assert Hooks([("twin", Reversing()), ("twin", Wrapping())]).plugins == ["twin"]


class TestLoading:
    def test_plugins_are_made_once_however_many_threads_ask_at_the_same_moment(
        self, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[object] = []
        both_are_here = threading.Barrier(2)

        def load(*_: object, **__: object) -> Hooks:
            made.append(object())
            threading.Event().wait(0.05)  # room for the other thread to come in, if anything lets it
            return Hooks([("one", made[-1])])

        def ask() -> None:
            both_are_here.wait(10)
            found.append(queue.hooks)

        monkeypatch.setattr("protojobs.hooks.installed_plugins.load_hooks", load)
        found: list[object] = []
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(made) == 1
        assert found == [queue.hooks] * 2

    def test_a_plugin_that_pushes_while_it_is_made_is_made_once(
        self, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[object] = []

        @job(name="note")
        def note() -> None: ...

        def load(*_: object, **__: object) -> Hooks:
            made.append(object())
            assert len(made) == 1
            queue.push(note)
            return Hooks([("one", made[-1])])

        monkeypatch.setattr("protojobs.hooks.installed_plugins.load_hooks", load)
        queue.push(note)
        assert queue.hooks.plugins == ["one"]
        assert queue.stats().pending == 2


class TestDispatcher:
    def test_it_drops_and_counts_what_slow_observers_cannot_take_and_says_so_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, may_go = threading.Event(), threading.Event()
        heard: list[Event] = []

        def slow(event: Event) -> None:
            first.set()
            may_go.wait(10)
            heard.append(event)

        events.on("queue.paused", slow)
        dispatcher = Dispatcher(Hooks())
        dispatcher.send(AN_EVENT)
        assert first.wait(5)
        with caplog.at_level(logging.ERROR):
            for _ in range(BACKLOG_MAX + 7):
                dispatcher.send(AN_EVENT)
        assert dispatcher.dropped == 7
        assert len(caplog.records) == 1
        may_go.set()
        dispatcher.close(10)
        assert len(heard) == BACKLOG_MAX + 1

    @pytest.mark.parametrize(
        "result", ["x" * 8_000_000, {"parts": ["x" * 1_000] * 8_000}, [b"x" * 4_000_000] * 2, [Large()] * 128]
    )
    def test_it_drops_large_results_sooner(self, result: object) -> None:
        first, may_go = threading.Event(), threading.Event()
        facts = {"job_id": "1", "job_name": "n", "job_class": "c", "queue": "q", "attempt": 1}
        event = JobProcessed(**facts, result=result)  # type: ignore[arg-type]

        def slow(_event: Event) -> None:
            first.set()
            may_go.wait(10)

        events.on("job.processed", slow)
        dispatcher = Dispatcher(Hooks())
        dispatcher.send(event)
        assert first.wait(5)
        for _ in range(50):
            dispatcher.send(event)
        may_go.set()
        assert 50 - 2 * BACKLOG_BYTES_MAX / 8_000_000 <= dispatcher.dropped < 50
        dispatcher.close(10)
        dispatcher.send(event)  # what has been observed counts no more
        dispatcher.close(10)
        assert dispatcher._bytes_in == dispatcher._bytes_out

    def test_its_thread_ends_even_if_observers_hang_while_the_backlog_is_full(
        self, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        may_go = threading.Event()
        events.on("queue.paused", lambda event: may_go.wait(10))
        dispatcher = Dispatcher(Hooks())
        for _ in range(BACKLOG_MAX + 2):
            dispatcher.send(AN_EVENT)
        thread = dispatcher._thread
        assert thread is not None
        dispatcher.close(0.01)
        may_go.set()
        eventually(lambda: not thread.is_alive())

    def test_a_listener_that_calls_sys_exit_does_not_end_the_thread_of_the_others(self) -> None:
        heard: list[Event] = []
        events.on("queue.resumed", lambda event: sys.exit(3))
        events.on("queue.paused", heard.append)
        dispatcher = Dispatcher(Hooks())
        dispatcher.send(events.QueueResumed(queue="emails"))
        dispatcher.send(AN_EVENT)
        dispatcher.close(5)
        assert heard == [AN_EVENT]
