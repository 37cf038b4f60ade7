"""How a run ends: what a job returns and raises, and what the store holds after it."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from protojobs import Discard, Job, JobContext, JobQueue, Retry, Snooze, job
from protojobs.errors import NotSupported
from protojobs.events import Event
from protojobs.port.records import JobRecord
from protojobs.testing import ManualClock
from protojobs.worker.runs.failure_text import _error_text
from protojobs_memory import MemoryDriver

Heard = Callable[..., list[Event]]
_T = TypeVar("_T")


class RateLimited(Exception):
    def __init__(self, retry_after: object) -> None:
        super().__init__("slow down")
        self.retry_after = retry_after


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    @property
    def retry_after(self) -> float:
        raise KeyError("no number")


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def one_run(queue: JobQueue, what: Callable[[], Any], **attributes: object) -> JobRecord:
    """The job as it stands in the store after one run of `what`."""

    def handle(self: object, data: object) -> object:
        return what()

    kind = type("Made", (Job,), {"name": "made", "handle": handle, "__module__": "shop", **attributes})
    job_id = queue.push(kind)
    queue.work("default", 1)
    record = queue.get(job_id)
    assert record is not None
    return record


def _with_note(error: Exception, note: str) -> Exception:
    error.add_note(note)
    return error


def raising(error: BaseException) -> Callable[[], object]:
    def body() -> object:
        raise error

    return body


def _logged(function: Callable[[], _T]) -> Callable[[], _T]:
    """A decorator as many write it, who think of plain functions."""

    @functools.wraps(function)
    def logged() -> _T:
        return function()

    return logged


def _goes_on() -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        time.sleep(0.001)


async def _never_awaited() -> None:
    raise AssertionError("nobody awaits it")


_decorated_coroutine = _logged(_never_awaited)


def _generator() -> Iterator[int]:
    yield 1


async def _async_generator() -> AsyncIterator[int]:
    yield 1


def waits(record: JobRecord) -> float:
    """Seconds from its creation (the store's clock stands still) until it is due."""
    return (record.available_at - record.created_at).total_seconds()


class TestReturns:
    @pytest.mark.parametrize("value", [None, 0, "text", {"a": 1}, object()])
    def test_any_other_value_is_the_result_and_the_job_is_completed(
        self, queue: JobQueue, heard: Heard, value: object
    ) -> None:
        processed = heard("job.processed")
        record = one_run(queue, lambda: value)
        assert (record.status, record.attempts, record.reserved_by) == ("completed", 1, "")
        assert record.processed_at is not None
        assert [event.get("result") for event in processed] == [value]

    def test_snooze_runs_again_later_without_spending_an_attempt(self, queue: JobQueue, clock: ManualClock) -> None:
        record = one_run(queue, lambda: Snooze(timedelta(seconds=30)), max_retries=0)
        assert (record.status, record.attempts, waits(record)) == ("pending", 0, 30.0)
        for _ in range(5):
            clock.advance(30)
            assert queue.work("default", 1).runs == 1
        assert queue.stats().failed == 0

    def test_retry_runs_again_and_spends_an_attempt(self, queue: JobQueue) -> None:
        record = one_run(queue, lambda: Retry(in_=10))
        assert (record.status, record.attempts, waits(record)) == ("pending", 1, 10.0)

    def test_retry_without_a_delay_follows_the_backoff(self, queue: JobQueue) -> None:
        record = one_run(queue, Retry, retry_delay=100)
        assert 100 <= waits(record) <= 125

    def test_retry_on_the_last_attempt_is_a_failure(self, queue: JobQueue) -> None:
        record = one_run(queue, lambda: Retry(in_=10), max_retries=0)
        assert record.status == "failed"
        (failed,) = queue.failed_jobs()
        assert "asked for a retry" in failed.exception

    def test_discard_ends_the_job_as_cancelled_with_its_reason(self, queue: JobQueue, heard: Heard) -> None:
        cancelled = heard("job.cancelled", "job.failed")
        record = one_run(queue, lambda: Discard("no longer wanted"))
        assert (record.status, record.reason) == ("cancelled", "no longer wanted")
        assert [event.get("reason") for event in cancelled] == ["no longer wanted"]
        assert list(queue.failed_jobs()) == []

    @pytest.mark.parametrize("reason", ["\x00\ud800" * 3, "x" * 10_000, 7])
    def test_no_reason_is_more_than_a_store_can_keep(self, queue: JobQueue, reason: object) -> None:
        record = one_run(queue, lambda: Discard(reason))  # type: ignore[arg-type]  # unchecked
        assert record.reason is not None
        assert "\x00" not in record.reason
        assert len(record.reason.encode()) <= 500

    @pytest.mark.parametrize(
        ("undone", "said"),
        [(_decorated_coroutine, "coroutine that nobody awaits"), (_generator, "generator that nobody goes through"),
         (_async_generator, "async_generator that nobody"), (lambda: Retry, "the class Retry"),
         (lambda: Snooze, "Write `return Snooze(30)`"), (lambda: Discard, "the class Discard")],
    )  # fmt: skip
    @pytest.mark.parametrize("is_async", [False, True])
    def test_what_shows_that_the_work_is_not_done_is_a_failed_attempt_that_says_so(
        self, queue: JobQueue, undone: Callable[[], object], said: str, is_async: bool
    ) -> None:
        async def waiting(self: object, data: object) -> object:
            return undone()

        def plain(self: object, data: object) -> object:
            return undone()

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            record = one_run(queue, lambda: None, max_retries=0, handle=waiting if is_async else plain)
            gc.collect()
        assert record.status == "failed"
        (failed,) = queue.failed_jobs()
        assert "ResultInvalid: it returned" in failed.exception
        assert said in failed.exception

    def test_an_async_function_under_a_plain_decorator_is_tried_again_by_its_policy(self, queue: JobQueue) -> None:
        @job(name="wrapped", max_retries=1)
        @_logged
        async def wrapped() -> None: ...

        job_id = queue.push(wrapped)
        queue.work("default", 1)
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 1)


class TestExceptions:
    def test_a_failed_attempt_is_tried_again_after_its_backoff(self, queue: JobQueue, heard: Heard) -> None:
        retrying = heard("job.retrying", "job.failed")
        record = one_run(queue, raising(ValueError("boom")), retry_delay=60)
        assert (record.status, record.attempts) == ("pending", 1)
        assert 60 <= waits(record) <= 75
        (event,) = retrying
        assert (event.event_name, event.get("available_at")) == ("job.retrying", record.available_at)
        assert "boom" in str(event.get("error"))

    def test_three_retries_mean_four_runs_and_then_the_failed_store(
        self, queue: JobQueue, clock: ManualClock, heard: Heard
    ) -> None:
        told = heard("job.retrying", "job.failed")

        def boom() -> None:
            raise ValueError("boom")

        record = one_run(queue, boom, max_retries=3)
        for _ in range(10):
            clock.advance(6 * 3600)
            queue.work("default", 1)
        (failed,) = queue.failed_jobs()
        assert [event.event_name for event in told] == ["job.retrying"] * 3 + ["job.failed"]
        assert (failed.job_id, failed.attempts, failed.job_name) == (record.id, 4, "made")
        assert failed.exception.rstrip().endswith("ValueError: boom")
        assert "protojobs/worker/runs/run.py" not in failed.exception

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (ValueError("boom"), "ValueError: boom"),
            (ExceptionGroup("many tasks", [ValueError("a"), KeyError("b")]),
             "ExceptionGroup: many tasks (2 sub-exceptions): ValueError: a"),
            (_with_note(ValueError("boom"), "while it packed order 7"), "ValueError: boom"),
            (ValueError("no such table: jobs\n[SQL: SELECT 1]\n(Background on this error at: https://example.org)"),
             "ValueError: no such table: jobs"),
            (ValueError("\n\n  at last"), "ValueError:   at last"),
            (Unprintable(), "core.tests.test_worker_outcomes.Unprintable"),
            (ValueError("x" * 10_000), f"ValueError: {'x' * 488}"),
        ],
    )  # fmt: skip
    def test_the_text_of_a_failure_ends_with_what_the_exception_says_in_one_line(
        self, queue: JobQueue, error: Exception, said: str
    ) -> None:
        one_run(queue, raising(error), max_retries=0)
        (failed,) = queue.failed_jobs()
        assert failed.exception.splitlines()[-1] == said
        assert one_run(queue, raising(error), discard_on=Exception).reason == said

    @pytest.mark.parametrize("is_group", [False, True])
    def test_a_huge_message_is_cut_before_it_is_worked_on(self, is_group: bool) -> None:
        huge = "many\nlines of it\n" * 2_000_000
        error: Exception = ValueError(huge)
        if is_group:
            error = ExceptionGroup(huge, [_with_note(error, huge)])
        tracemalloc.start()
        text = _error_text(error)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "characters cut" in text
        assert len(text) < 70_000
        assert peak < len(huge) * (1.5 if is_group else 0.5)  # str() of a group makes one copy, which is Python's

    def test_retry_on_names_the_only_exceptions_that_are_tried_again(self, queue: JobQueue) -> None:
        assert one_run(queue, raising(ConnectionError()), retry_on=(OSError,)).status == "pending"
        assert one_run(queue, raising(ValueError()), retry_on=(OSError,)).status == "failed"

    def test_discard_on_names_exceptions_that_end_the_job_as_cancelled(self, queue: JobQueue) -> None:
        record = one_run(queue, raising(LookupError("gone")), discard_on=LookupError)
        assert (record.status, record.reason) == ("cancelled", "LookupError: gone")

    @pytest.mark.parametrize("policy", [{"discard_on": (Exception,)}, {"retry_on": (LookupError,)}])
    @pytest.mark.parametrize("what", [_never_awaited, _goes_on], ids=["a result that is none", "a timeout"])
    def test_what_protojobs_says_of_a_run_is_not_held_against_discard_on_and_retry_on(
        self, make_queue: Callable[..., JobQueue], what: Callable[[], Any], policy: dict[str, object]
    ) -> None:
        record = one_run(make_queue(timeout=0.05), what, **policy)
        assert (record.status, record.attempts, record.reason) == ("pending", 1, None)

    @pytest.mark.parametrize(("after", "expected"), [(7, 7.0), (timedelta(minutes=1), 60.0), (0, 0.0)])
    def test_an_exception_may_say_when_to_try_again(self, queue: JobQueue, after: object, expected: float) -> None:
        assert waits(one_run(queue, raising(RateLimited(after)))) == expected

    def test_a_retry_after_from_elsewhere_parks_no_job_for_years(self, queue: JobQueue) -> None:
        assert waits(one_run(queue, raising(RateLimited(10**9)))) == 86_400.0
        assert waits(one_run(queue, raising(RateLimited(10**9)), retry_delay=100_000)) == 100_000.0

    @pytest.mark.parametrize("after", [-1, "soon", float("nan"), 10**400, True, object()])
    def test_a_retry_after_that_is_no_delay_leaves_it_to_the_policy(self, queue: JobQueue, after: object) -> None:
        assert 60 <= waits(one_run(queue, raising(RateLimited(after)))) <= 75

    def test_retry_in_decides_from_attempt_and_exception(self, queue: JobQueue) -> None:
        def retry_in(self: object, attempt: int, error: BaseException) -> float:
            return 100 * attempt + len(str(error))

        assert waits(one_run(queue, raising(ValueError("four")), retry_in=retry_in)) == 104.0

    @pytest.mark.parametrize("own", [ZeroDivisionError("own"), SystemExit(1)])
    def test_a_retry_in_that_fails_itself_leaves_it_to_the_policy(self, queue: JobQueue, own: BaseException) -> None:
        def retry_in(self: object, attempt: int, error: BaseException) -> float:
            raise own

        record = one_run(queue, raising(ValueError("boom")), retry_in=retry_in)
        assert record.status == "pending"
        assert 60 <= waits(record) <= 75

    def test_the_code_of_an_exception_runs_in_the_jobs_thread_only(self, queue: JobQueue) -> None:
        asked_in: set[str] = set()

        class Slow(Exception):
            def __str__(self) -> str:
                asked_in.add(threading.current_thread().name)
                return "slow"

        assert one_run(queue, raising(Slow()), max_retries=0).status == "failed"
        assert one_run(queue, raising(Slow())).status == "pending"
        assert asked_in == {"protojobs-job"}

    @pytest.mark.parametrize("error", [RuntimeError(), SystemExit(), asyncio.CancelledError()])
    def test_a_log_handler_that_raises_does_not_end_the_worker(self, queue: JobQueue, error: BaseException) -> None:
        class Broken(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise error

        log, handler = logging.getLogger("protojobs.worker"), Broken(logging.WARNING)
        log.addHandler(handler)
        try:
            assert one_run(queue, raising(ValueError("boom")), max_retries=0).status == "failed"
        finally:
            log.removeHandler(handler)

    @pytest.mark.parametrize(
        "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(), RecursionError(),
                  ExceptionGroup("many", [ValueError("a"), KeyError("b")]), Unprintable(), Leaving()]
    )  # fmt: skip
    @pytest.mark.parametrize("is_async", [False, True])
    def test_whatever_a_job_raises_is_its_own_failure_and_the_worker_lives(
        self, queue: JobQueue, error: BaseException, is_async: bool
    ) -> None:
        @job(name="plain", max_retries=0)
        def plain() -> None:
            raise error

        @job(name="waiting", max_retries=0)
        async def waiting() -> None:
            raise error

        queue.push(waiting.bind() if is_async else plain.bind())
        report = queue.work("default", 2)
        assert (report.failed, report.reason) == (1, "empty")

    def test_an_unprintable_exception_can_be_discarded(self, queue: JobQueue) -> None:
        assert one_run(queue, raising(Unprintable()), discard_on=Unprintable).status == "cancelled"

    def test_sys_exit_in_a_job_does_not_end_the_worker(self, queue: JobQueue) -> None:
        assert one_run(queue, sys.exit, max_retries=0).status == "failed"
        assert one_run(queue, lambda: 1).status == "completed"

    def test_a_traceback_is_cut_in_the_middle_beyond_64_kib(self, queue: JobQueue) -> None:
        one_run(queue, raising(ValueError("a" * 100_000 + "the end \x00 \ud800")), max_retries=0)
        (failed,) = queue.failed_jobs()
        assert len(failed.exception.encode()) <= 64 * 1024
        assert "characters cut" in failed.exception
        assert "the end" in failed.exception
        assert "\x00" not in failed.exception

    def test_an_async_job_that_is_cancelled_by_its_own_code_has_failed(self, queue: JobQueue) -> None:
        import asyncio

        @job(name="waiting", max_retries=0)
        async def waiting() -> None:
            raise asyncio.CancelledError

        queue.push(waiting.bind())
        assert queue.work("default", 1).failed == 1


class TestEachRunIsApart:
    def test_what_a_run_leaves_on_self_does_not_reach_the_next(self, queue: JobQueue) -> None:
        found: list[object] = []

        class Leaving(Job):
            name = "leaving"

            def handle(self, data: object) -> None:
                found.append(vars(self).copy())
                vars(self)["left"] = data

        queue.push_many([Leaving] * 3)
        queue.work("default", 3)
        assert found == [{}, {}, {}]

    def test_a_constructor_that_fails_is_the_runs_failure(self, queue: JobQueue) -> None:
        class Demanding(Job):
            name = "demanding"
            max_retries = 0

            def __init__(self, client: object) -> None: ...

            def handle(self, data: object) -> None: ...

        queue.push(Demanding)
        report = queue.work("default", 2)
        assert (report.failed, report.reason) == (1, "empty")


def test_completing_in_a_transaction_is_refused_where_the_store_has_none() -> None:
    queue = JobQueue(MemoryDriver())
    said: list[str] = []

    @job(name="completes itself", max_retries=0)
    def completes_itself(ctx: JobContext) -> None:
        try:
            ctx.complete_in(object())
        except NotSupported as error:
            said.append(str(error))

    queue.push(completes_itself.bind())
    assert queue.work("default", 1).done == 1
    assert said == [
        "This run cannot be completed in a transaction of yours."
        " It takes a SQLAlchemy driver, and a run in a thread or on the event loop."
    ]
