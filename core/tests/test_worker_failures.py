"""The end of a job, and rows that make no sense: nothing is lost, and the worker lives on."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import threading
import time
from collections.abc import Callable

import pytest

from protojobs import Job, JobQueue, events, job
from protojobs.entropy import fresh_id
from protojobs.events import Event
from protojobs.port.records import NewJob
from protojobs.testing import ManualClock
from protojobs.worker.runs import failed_call, starting, timeouts
from protojobs.worker.runs.run import UNDECODABLE_RETURNS_MAX
from protojobs_memory import MemoryDriver

Heard = Callable[..., list[Event]]


def store(queue: JobQueue, **fields: object) -> str:
    """A row as a broken program, another version or a person with SQL may have left it."""
    plain: dict[str, object] = {
        "id": fresh_id(), "queue": "default", "job_name": "fine", "job_class": "shop.Fine", "data": "{}",
    }  # fmt: skip
    make: Callable[..., NewJob] = NewJob
    new = make(**{**plain, **fields})
    queue.driver.enqueue([new])
    return new.id


def doomed(failed: Callable[..., object]) -> type[Job]:
    """A job that fails at once, with this `failed`."""

    def handle(self: object, data: object) -> None:
        raise ValueError("boom")

    return type("Doomed", (Job,), {"name": "doomed", "max_retries": 0, "handle": handle, "failed": failed})


class TestFailed:
    def test_it_is_called_once_after_the_last_attempt_with_the_exception_and_the_data(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        calls: list[tuple[str, object]] = []

        class Doomed(Job):
            name = "doomed"
            max_retries = 1

            def handle(self, data: object) -> None:
                raise ValueError("boom")

            def failed(self, exception: BaseException, data: object) -> None:
                calls.append((repr(exception), data))

        queue.push(Doomed, {"n": 1})
        queue.work("default", 1)
        assert calls == []
        clock.advance(1000)
        assert queue.work("default", 1).failed == 1
        assert calls == [("ValueError('boom')", {"n": 1})]

    def test_it_may_be_async(self, queue: JobQueue) -> None:
        calls: list[object] = []

        class Doomed(Job):
            name = "doomed"
            max_retries = 0

            def handle(self, data: object) -> None:
                raise ValueError

            async def failed(self, exception: BaseException, data: object) -> None:
                await asyncio.sleep(0)
                calls.append(data)

        queue.push(Doomed, {"n": 1})
        queue.work("default", 1)
        assert calls == [{"n": 1}]

    @pytest.mark.parametrize("own", [ZeroDivisionError("own trouble"), SystemExit(9), asyncio.CancelledError()])
    @pytest.mark.parametrize("is_async", [False, True])
    def test_its_own_error_is_logged_and_changes_nothing(
        self, queue: JobQueue, caplog: pytest.LogCaptureFixture, own: BaseException, is_async: bool
    ) -> None:
        def failed(self: object, exception: BaseException, data: object) -> None:
            raise own

        async def afailed(self: object, exception: BaseException, data: object) -> None:
            raise own

        kind = doomed(afailed if is_async else failed)
        job_id = queue.push(kind)
        report = queue.work("default", 5)
        assert (report.failed, report.reason) == (1, "empty")
        record = queue.get(job_id)
        assert record is not None
        assert record.status == "failed"
        if not isinstance(own, asyncio.CancelledError):
            assert "failed() of job" in caplog.text

    def test_an_async_one_under_a_plain_decorator_is_not_dropped_in_silence(
        self, queue: JobQueue, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def afailed(self: object, exception: BaseException, data: object) -> None: ...

        @functools.wraps(afailed)
        def failed(self: object, exception: BaseException, data: object) -> object:
            return afailed(self, exception, data)

        queue.push(doomed(failed))
        assert queue.work("default", 5).failed == 1
        assert "failed() of job" in caplog.text
        assert "a coroutine that nobody awaits" in caplog.text

    @pytest.mark.parametrize("is_async", [False, True])
    def test_one_that_does_not_return_is_ended_by_its_time_limit(
        self, queue: JobQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_async: bool
    ) -> None:
        monkeypatch.setattr(starting, "FAILED_LIMIT_S", 0.1)
        assert failed_call.FAILED_LIMIT_S == 30.0

        def failed(self: object, exception: BaseException, data: object) -> None:
            while True:
                time.sleep(0.01)

        async def afailed(self: object, exception: BaseException, data: object) -> None:
            await asyncio.sleep(60)

        kind = doomed(afailed if is_async else failed)
        queue.push(kind)
        assert queue.work("default", 5).reason == "empty"
        assert "ended by a timeout" in caplog.text

    def test_its_time_limit_does_not_run_while_it_waits_for_a_slot(
        self, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A job that was fetched ahead takes the slot before the store has answered, and keeps it for long."""
        monkeypatch.setattr(starting, "FAILED_LIMIT_S", 0.1)
        monkeypatch.setattr(timeouts, "END_S", 0.1)
        calls: list[object] = []

        class Doomed(Job):
            name = "doomed"
            max_retries = 0

            def handle(self, data: object) -> None:
                raise ValueError

            def failed(self, exception: BaseException, data: object) -> None:
                calls.append(data)

        @job(name="long")
        def long() -> None:
            time.sleep(0.5)

        queue.push_many([(Doomed, {"n": n}) for n in range(8)])
        queue.push(long.bind())
        report = queue.work("default", 9, concurrency=1)
        assert (report.failed, report.done, report.reason, len(calls)) == (8, 1, "max_jobs", 8)

    def test_it_is_not_called_for_a_job_that_is_cancelled_or_will_run_again(self, queue: JobQueue) -> None:
        calls: list[object] = []

        class Wanted(Job):
            name = "wanted"
            discard_on = (KeyError,)

            def handle(self, data: object) -> None:
                raise (KeyError if data else ValueError)

            def failed(self, exception: BaseException, data: object) -> None:
                calls.append(data)

        queue.push_many([(Wanted, {"a": 1}), Wanted])
        queue.work("default", 2)
        assert calls == []

    def test_a_failed_job_can_be_queued_again_and_runs_with_fresh_attempts(self, queue: JobQueue) -> None:
        fails = [True]

        @job(name="mended", max_retries=0)
        def mended() -> None:
            if fails[0]:
                raise ValueError

        job_id = queue.push(mended.bind())
        queue.work("default", 1)
        (failed,) = queue.failed_jobs()
        fails[0] = False
        assert queue.retry_failed(failed.id) == ["requeued"]
        assert queue.work("default", 1).done == 1
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("completed", 1)
        assert list(queue.failed_jobs()) == []

    def test_the_id_of_the_job_will_do_as_well_as_that_of_its_row(self, queue: JobQueue) -> None:
        @job(name="doomed", max_retries=0)
        def doomed() -> None:
            raise ValueError

        ids = queue.push_many([doomed.bind()] * 5)
        waiting = queue.push("doomed")
        queue.work("default", 5)
        rows = {row.job_id: row.id for row in queue.failed_jobs()}
        first, second, third, fourth, fifth = ids
        given = [first, rows[second], fresh_id(), first, rows[second], waiting]
        assert queue.retry_failed(given) == ["requeued", "requeued", "missing", "missing", "missing", "missing"]
        assert queue.retry_failed(third) == ["requeued"]
        assert queue.forget_failed([fourth, rows[fifth], rows[fourth], waiting, first]) == 2
        assert list(queue.failed_jobs()) == []
        assert queue.stats().pending == 4


class TestUnknownNames:
    def test_the_job_goes_back_unspent_with_a_growing_delay_until_its_code_is_there(
        self, queue: JobQueue, clock: ManualClock, heard: Heard
    ) -> None:
        released = heard("job.released")
        job_id = store(queue, job_name="shop.New")
        delays = []
        for _ in range(12):
            assert queue.work("default", 1).runs == 0
            record = queue.get(job_id)
            assert record is not None
            assert (record.status, record.attempts, record.reason) == ("pending", 0, "unknown_name")
            delays.append((record.available_at - clock.now()).total_seconds())
            clock.advance(delays[-1])
        assert delays[:5] == [1, 2, 4, 8, 16]
        assert delays[-1] == 300
        assert {event.get("reason") for event in released} == {"unknown_name"}

        class New(Job):
            name = "shop.New"

            def handle(self, data: object) -> None: ...

        assert queue.work("default", 1).done == 1

    def test_a_name_from_the_store_imports_nothing(self, queue: JobQueue) -> None:
        assert "antigravity" not in sys.modules
        for name in ("antigravity", "antigravity.geohash", "antigravity:geohash", "os.system"):
            store(queue, job_name=name, job_class=name)
        assert queue.work("default", 9).runs == 0
        assert "antigravity" not in sys.modules


class TestRowsThatMakeNoSense:
    @pytest.fixture(autouse=True)
    def _fine(self) -> list[object]:
        ran: list[object] = []

        class Fine(Job):
            name = "fine"

            def handle(self, data: dict[str, int]) -> None:
                ran.append(data)

        return ran

    @pytest.mark.parametrize("data", ["", "{", "null", "[]", '{"a":"x"}', "[" * 50_000, "\x00"])
    def test_data_that_does_not_decode_goes_back_unspent_with_a_growing_delay_and_a_warning(
        self, queue: JobQueue, clock: ManualClock, heard: Heard, caplog: pytest.LogCaptureFixture, data: str
    ) -> None:
        released = heard("job.released")
        job_id, delays = store(queue, data=data, max_retries=0), list[float]()
        for _ in range(10):
            assert queue.work("default", 1).runs == 0
            record = queue.get(job_id)
            assert record is not None
            assert (record.status, record.attempts, record.reason) == ("pending", 0, "undecodable")
            assert record.data == data
            delays.append((record.available_at - clock.now()).total_seconds())
            clock.advance(delays[-1])
        assert (delays[:4], delays[-1]) == ([1, 2, 4, 8], 300)
        assert "the stored data does not decode" in str(released[0].get("error"))
        assert "put back: undecodable: protojobs.errors.PayloadNotDecodable: job " in caplog.text

    def test_another_release_of_the_job_runs_what_one_could_not_decode(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        store(queue, job_name="letter", data='{"to":"Jo","language":"de"}')

        def letter(to: str) -> None: ...

        job(name="letter")(letter)
        assert queue.work("default", 1).runs == 0
        clock.advance(1)

        def letter_of_the_next_release(to: str, language: str) -> None: ...

        letter_of_the_next_release.__qualname__ = letter.__qualname__
        job(name="letter")(letter_of_the_next_release)
        assert queue.work("default", 1).done == 1

    def test_data_that_has_not_decoded_for_a_day_is_a_failed_attempt_with_a_clear_error(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        job_id, took_s = store(queue, data="{", max_retries=1), 0.0
        while (record := queue.get(job_id)) is not None and not record.attempts:
            queue.work("default", 1)
            again = queue.get(job_id)
            assert again is not None
            took_s += (wait := (again.available_at - clock.now()).total_seconds())
            clock.advance(wait)
        assert 23 * 3600 < took_s < 26 * 3600
        assert record is not None
        assert (record.status, record.attempts, record.data) == ("pending", 1, "{")
        queue.work("default", 1)
        (failed,) = queue.failed_jobs()
        assert "does not decode" in failed.exception
        assert failed.data == "{"

    def test_failed_gets_none_for_data_that_does_not_decode(self, queue: JobQueue) -> None:
        calls: list[object] = []

        class Doomed(Job):
            name = "doomed"

            def handle(self, data: object) -> None: ...

            def failed(self, exception: BaseException, data: object) -> None:
                calls.append((type(exception).__name__, data))

        _set(queue, store(queue, job_name="doomed", data="{", max_retries=0), claim_seq=UNDECODABLE_RETURNS_MAX)
        queue.work("default", 1)
        assert calls == [("PayloadNotDecodable", None)]

    @pytest.mark.parametrize("meta", ["", "{", "[]", '{"a":1}', "\ud800"])
    def test_corrupt_meta_is_passed_over_since_the_data_is_what_counts(self, queue: JobQueue, meta: str) -> None:
        store(queue, meta=meta)
        assert queue.work("default", 1).done == 1

    @pytest.mark.parametrize(
        "fields",
        [
            {"retry_policy": '{"factor":1e308}'},
            {"retry_policy": "{"},
            {"retry_delay": float("nan")},
            {"retry_delay": 1e300},
            {"retry_delay": -5.0},
            {"job_class": ""},
        ],
    )
    def test_a_policy_or_delay_that_makes_no_sense_neither_loses_the_job_nor_stops_the_worker(
        self, queue: JobQueue, fields: dict[str, object]
    ) -> None:
        job_id = store(queue, data="{", max_retries=5, **fields)
        _set(queue, job_id, claim_seq=UNDECODABLE_RETURNS_MAX)
        store(queue)
        report = queue.work("default", 2)
        assert (report.done, report.runs) == (1, 2)
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 1)
        assert record.available_at >= record.created_at

    def test_a_job_lent_more_often_than_its_attempts_allow_is_failed_unrun(
        self, queue: JobQueue, _fine: list[object], heard: Heard
    ) -> None:
        failed_events = heard("job.failed")
        job_id = store(queue, max_retries=1)
        _set(queue, job_id, attempts=2)
        assert queue.work("default", 2).runs == 0
        (failed,) = queue.failed_jobs()
        assert "JobLost" in failed.exception
        assert (_fine, len(failed_events)) == ([], 1)

    def test_a_job_that_took_three_processes_down_is_failed_unrun(self, queue: JobQueue, _fine: list[object]) -> None:
        job_id = store(queue)
        _set(queue, job_id, crashes=3)
        assert queue.work("default", 2).runs == 0
        (failed,) = queue.failed_jobs()
        assert "JobCrashed" in failed.exception
        assert _fine == []


class TestListeners:
    def test_a_listener_that_fails_changes_no_job(self, queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
        def broken(event: Event) -> None:
            raise RuntimeError("listener trouble")

        for name in events.EVENTS:
            events.on(name, broken)

        @job(name="fine")
        def fine() -> None: ...

        with caplog.at_level(logging.ERROR):
            queue.push_many([fine.bind()] * 3)
            assert queue.work("default", 3).done == 3
        assert "listener trouble" in caplog.text

    def test_the_claim_loop_never_waits_for_a_slow_listener_but_work_does_before_it_returns(
        self, queue: JobQueue
    ) -> None:
        runs_seen: list[int] = []
        ran: list[int] = []
        all_ran = threading.Event()

        def slow(event: Event) -> None:
            assert all_ran.wait(5)
            runs_seen.append(len(ran))

        @job(name="fine")
        def fine(n: int) -> None:
            ran.append(n)
            if len(ran) == 20:
                all_ran.set()

        events.on("job.processed", slow)
        queue.push_many([fine.bind(n) for n in range(20)])
        assert queue.work("default", 20).done == 20
        assert runs_seen == [20] * 20


def _set(queue: JobQueue, job_id: str, **fields: int) -> None:
    driver = queue.driver
    assert isinstance(driver, MemoryDriver)
    for name, value in fields.items():
        setattr(driver.state.rows[job_id], name, value)
