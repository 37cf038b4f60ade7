"""Pushing: what comes back, what is refused before anything is stored, and what is known when the store is away."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import FrameType
from uuid import UUID

import pytest

from protojobs import Job, JobQueue, job
from protojobs.clock import Clock, time_left, within
from protojobs.errors import ConfigurationError, JobUnknown, NotSupported, OptionInvalid, PayloadError, StoreUnavailable
from protojobs.jobs.definition import REGISTRY
from protojobs.port.records import BATCH_BYTES_MAX, Enqueued, NewJob
from protojobs.queue.pushing import CHUNK_JOBS
from protojobs.testing import FlakyDriver, ManualClock
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
AN_ID = "0190f5a0-0000-7000-8000-000000000001"


class Send(Job):
    name = "send"

    def handle(self, data: dict[str, object]) -> None: ...


@pytest.fixture(autouse=True)
def _send_is_known() -> None:
    REGISTRY.add(Send.definition)


class AwayDriver(MemoryDriver):
    """A store that never answers `enqueue`; each try takes `takes_s` of the clock."""

    def __init__(self, clock: ManualClock, takes_s: float = 0.0) -> None:
        super().__init__()
        self.tries = 0
        self.passing, self.takes_s = clock, takes_s

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        self.tries += 1
        self.passing.advance(self.takes_s)
        raise StoreUnavailable("nobody there")


def on(driver: object, clock: Clock, **settings: object) -> JobQueue:
    return JobQueue(driver, settings, clock=clock)  # type: ignore[arg-type]  # FlakyDriver stands for any store


class TestPush:
    def test_it_returns_the_id_under_which_the_store_has_the_job(self, queue: JobQueue) -> None:
        job_id = queue.push(Send(), {"email": "jo@example.com"})
        assert UUID(job_id).version == 7
        record = queue.get(job_id)
        assert record is not None
        assert (record.job_name, record.data, record.status) == ("send", '{"email":"jo@example.com"}', "pending")
        assert record.job_class.endswith("Send")

    def test_instance_class_name_and_bound_job_are_all_accepted(self, queue: JobQueue) -> None:
        ids = [queue.push(what, {"n": 1}) for what in (Send(), Send, "send")] + [queue.push(Send.bind({"n": 1}))]
        records = [queue.get(job_id) for job_id in ids]
        assert {(record.job_name, record.data) for record in records if record} == {("send", '{"n":1}')}

    def test_without_data_the_job_gets_an_empty_object(self, queue: JobQueue) -> None:
        record = queue.get(queue.push(Send))
        assert record is not None
        assert record.data == "{}"

    def test_the_same_id_is_stored_once(self, queue: JobQueue) -> None:
        assert queue.push(Send, id=AN_ID) == queue.push(Send, {"other": 1}, id=AN_ID) == AN_ID
        assert queue.stats().total == 1

    @pytest.mark.parametrize("job_id", ["", "order-42", "x" * 101, "\ud800", 7, AN_ID.upper(), f"{{{AN_ID}}}"])
    def test_an_id_that_push_cannot_have_made_is_refused(self, queue: JobQueue, job_id: object) -> None:
        with pytest.raises(OptionInvalid, match="id"):
            queue.push(Send, id=job_id)  # type: ignore[arg-type]  # what an unchecked caller may pass
        assert queue.stats().total == 0

    @pytest.mark.parametrize("data", [float("nan"), {"a": "\ud800"}, {1: 2}, {"x": "y" * 2**20}, b"", object()])
    def test_bad_data_is_a_payload_error_and_nothing_is_stored(self, queue: JobQueue, data: object) -> None:
        for push in (lambda: queue.push(Send, data), lambda: queue.push_many([Send, (Send, data)])):
            with pytest.raises(PayloadError, match="send"):
                push()
        assert queue.stats().total == 0

    def test_the_limit_on_data_is_the_configured_one(self, make_queue: MakeQueue) -> None:
        small = make_queue(payload_bytes_max=10)
        small.push(Send, {"a": 1})
        with pytest.raises(PayloadError, match="at most 10"):
            small.push(Send, {"a": 10_000})

    @pytest.mark.parametrize("what", ["sqlite:///jobs.db", None, {}])
    def test_a_queue_on_what_is_no_driver_is_refused_where_it_is_made(self, what: object) -> None:
        make: Callable[..., JobQueue] = JobQueue
        with pytest.raises(ConfigurationError, match="JobQueue takes a driver") as refusal:
            make(what)
        assert "create_driver(url)" in refusal.value.mend
        assert "from_config" in refusal.value.mend

    def test_find_takes_a_filter_and_says_who_takes_text(self, queue: JobQueue) -> None:
        find: Callable[[object], object] = queue.find
        for what in ("state:failed", {"states": "failed"}, ""):
            with pytest.raises(OptionInvalid, match="takes a JobFilter") as refusal:
                find(what)
            assert "Inspector" in refusal.value.mend

    def test_an_unknown_name_is_refused(self, queue: JobQueue) -> None:
        with pytest.raises(JobUnknown, match='"sned"'):
            queue.push("sned")

    def test_queues_whose_names_look_alike_or_like_sql_are_apart(self, queue: JobQueue) -> None:
        names = ["emails", "Emails", "émails", "emails ", "'; DROP TABLE jobs; --"]
        for name in names:
            queue.push(Send().on_queue(name))
        assert [queue.stats(name).pending for name in names] == [1] * 5

    def test_a_session_on_a_driver_without_transactions_is_refused(self, queue: JobQueue) -> None:
        with pytest.raises(NotSupported, match="MemoryDriver"):
            queue.push(Send, session=object())
        with pytest.raises(NotSupported, match="MemoryDriver"):
            asyncio.run(queue.apush(Send, session=object()))
        assert isinstance(NotSupported(""), ConfigurationError)
        assert queue.stats().total == 0


class TestLater:
    @pytest.mark.parametrize(
        ("delay", "due_in"),
        [
            (3600, timedelta(hours=1)),
            (timedelta(days=2), timedelta(days=2)),
            (0, timedelta(0)),
            (datetime(2031, 1, 1, 12, tzinfo=UTC), timedelta(days=365)),
            ("2031-01-01 12:00", timedelta(days=365)),
            (datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC) - ManualClock().now()),
        ],
    )
    def test_seconds_timedeltas_moments_and_dates_in_words(
        self, queue: JobQueue, delay: float | timedelta | datetime | str, due_in: timedelta
    ) -> None:
        record = queue.get(queue.later(delay, Send))
        assert record is not None
        assert record.available_at - record.created_at == due_in

    def test_a_date_without_offset_is_read_in_the_configured_zone(self, make_queue: MakeQueue) -> None:
        queue = make_queue(timezone="Asia/Tokyo")
        record = queue.get(queue.later("2031-01-01 12:00", Send))
        assert record is not None
        assert record.available_at == datetime(2031, 1, 1, 3, tzinfo=UTC)

    @pytest.mark.parametrize(
        "delay",
        [-1, float("nan"), float("inf"), 10**400, 1e12, timedelta(-1), timedelta.max, "soon", None, True,
         datetime(2031, 1, 1), datetime(1969, 1, 1, tzinfo=UTC)],  # noqa: DTZ001  (the point)
    )  # fmt: skip
    def test_a_delay_that_makes_no_sense_is_refused_and_nothing_is_stored(self, queue: JobQueue, delay: object) -> None:
        with pytest.raises(OptionInvalid, match="delay"):
            queue.later(delay, Send)  # type: ignore[arg-type]  # what an unchecked caller may pass
        assert queue.stats().total == 0

    def test_a_delayed_job_is_lent_when_its_time_has_come(self, queue: JobQueue, clock: ManualClock) -> None:
        queue.later(60, Send)
        assert (queue.work("default", 1).runs, queue.stats().scheduled) == (0, 1)
        clock.advance(60)
        assert queue.work("default", 1).done == 1


class TestPushMany:
    def test_ids_come_back_in_order_for_every_form_of_item(self, queue: JobQueue) -> None:
        @job(name="add")
        def add(a: int) -> None: ...

        ids = queue.push_many(
            [Send, (Send, {"n": 1}), ("send", {"n": 2}), Send.bind({"n": 3}), add.bind(4), (add, {"a": 5})]
        )
        records = [queue.get(job_id) for job_id in ids]
        assert [record.data for record in records if record] == [
            *("{}", '{"n":1}', '{"n":2}', '{"n":3}', '{"a":4}', '{"a":5}'),
        ]
        assert queue.push_many([]) == []

    @pytest.mark.parametrize("item", [(Send,), (Send, {}, 3), ()])
    def test_a_tuple_of_another_length_is_refused(self, queue: JobQueue, item: object) -> None:
        with pytest.raises(OptionInvalid, match=r"\(job, data\)"):
            queue.push_many([Send, item])
        assert queue.stats().total == 0

    def test_a_long_iterator_goes_in_chunks_and_is_never_held_whole(self, queue: JobQueue) -> None:
        taken = 0
        sizes: list[tuple[int, int]] = []

        class Counting(MemoryDriver):
            def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
                sizes.append((len(jobs), taken))
                return super().enqueue(jobs)

        def endless() -> object:
            nonlocal taken
            for _ in range(2 * CHUNK_JOBS + 1):
                taken += 1
                yield Send

        ids = JobQueue(Counting(), {}).push_many(endless())  # type: ignore[arg-type]  # a generator
        assert len(set(ids)) == 2 * CHUNK_JOBS + 1
        assert sizes == [(CHUNK_JOBS, CHUNK_JOBS), (CHUNK_JOBS, 2 * CHUNK_JOBS), (1, 2 * CHUNK_JOBS + 1)]

    def test_of_four_times_as_many_no_more_is_in_memory(self) -> None:
        few, many = (peak_of_pushing(count) for count in (2 * CHUNK_JOBS, 8 * CHUNK_JOBS))
        assert many < 1.2 * few  # four times as much if they were kept

    def test_an_item_that_changes_after_it_was_handed_over_is_stored_as_it_was(self, queue: JobQueue) -> None:
        data: dict[str, object] = {}

        def changing() -> Iterator[object]:
            for n in range(3):
                data["n"] = n
                yield Send, data

        records = [queue.get(job_id) for job_id in queue.push_many(changing())]
        assert [record.data for record in records if record] == ['{"n":0}', '{"n":1}', '{"n":2}']

    def test_large_jobs_are_sent_before_more_of_them_are_asked_for(self) -> None:
        asked_for = 0
        ahead: list[int] = []

        class Counting(MemoryDriver):
            def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
                ahead.append(asked_for - self.stats().total)
                return super().enqueue(jobs)

        def large() -> Iterator[object]:
            nonlocal asked_for
            for _ in range(40):
                asked_for += 1
                yield Send, {"x": "x" * 1_000_000}

        assert len(JobQueue(Counting(), {}).push_many(large())) == 40
        assert max(ahead) == BATCH_BYTES_MAX // 1_000_000 + 1  # the one that did not fit

    def test_a_chunk_whose_payloads_exceed_one_enqueue_is_cut(self) -> None:
        sizes: list[int] = []

        class Counting(MemoryDriver):
            def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
                sizes.append(sum(len(job.data.encode()) for job in jobs))
                return super().enqueue(jobs)

        data = {"x": "é" * 500_000}  # just below one MiB
        assert len(JobQueue(Counting(), {}).push_many([(Send, data)] * 17)) == 17
        assert len(sizes) == 3
        assert all(size <= BATCH_BYTES_MAX for size in sizes)


class Nowhere(MemoryDriver):
    """Keeps nothing."""

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        return [Enqueued(id=job.id) for job in jobs]


def peak_of_pushing(count: int) -> int:
    """Bytes that push_many takes at most, apart from the ids, which it returns."""
    queue = JobQueue(Nowhere(), {})
    queue.push_many([Send])  # plugins are loaded
    gc.collect()
    tracemalloc.start()
    try:
        ids = queue.push_many((Send, {"n": n}) for n in range(count))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return peak - sys.getsizeof(ids) - sum(map(sys.getsizeof, ids))


class TestStoreAway:
    def test_an_answer_that_was_lost_once_is_asked_for_again_and_the_job_stored_once(self) -> None:
        for after in (False, True):
            store = MemoryDriver()
            flaky = FlakyDriver(store, 1, after=after, only=["enqueue"])
            job_id = on(flaky, ManualClock()).push(Send)
            assert flaky.has_failed
            assert [record.id for record in store.get([job_id])] == [job_id]
            assert store.stats().total == 1

    @pytest.mark.parametrize("takes_s", [0.0, 3.0])
    def test_push_gives_up_within_push_timeout_and_hands_over_the_id(self, takes_s: float) -> None:
        clock = ManualClock()
        driver = AwayDriver(clock, takes_s)
        with pytest.raises(StoreUnavailable, match="nobody there") as failure:
            on(driver, clock, push_timeout=10.0).push(Send)
        assert driver.tries > 2
        assert clock.monotonic() <= 10 + takes_s
        assert [UUID(job_id).version for job_id in failure.value.job_ids] == [7]
        assert "id=" in failure.value.mend

    def test_pushing_again_with_the_id_of_the_error_stores_the_job_once(self) -> None:
        store, clock = MemoryDriver(), ManualClock()
        flaky = FlakyDriver(store, 1, after=True, only=["enqueue"])
        queue = on(flaky, clock, push_timeout=0.0)  # no time for a second try
        with pytest.raises(StoreUnavailable) as failure:
            queue.push(Send)
        (job_id,) = failure.value.job_ids
        assert queue.push(Send, id=job_id) == job_id
        assert store.stats().total == 1

    def test_a_failed_chunk_of_push_many_hands_over_all_of_its_ids(self) -> None:
        clock = ManualClock()
        with pytest.raises(StoreUnavailable) as failure:
            on(AwayDriver(clock), clock, push_timeout=1.0).push_many([Send] * 3)
        assert len(set(failure.value.job_ids)) == 3

    def test_the_driver_is_told_how_long_the_caller_waits(self) -> None:
        left: list[float] = []

        class Curious(MemoryDriver):
            def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
                left.append(time_left(60.0))
                return super().enqueue(jobs)

        queue = JobQueue(Curious(), {"push_timeout": 5.0})
        queue.push(Send)
        asyncio.run(queue.apush(Send))
        assert [4.0 < seconds <= 5.0 for seconds in left] == [True, True]
        assert time_left(60.0) == 60.0

    def test_of_two_limits_the_sooner_one_holds_and_other_threads_have_none(self) -> None:
        elsewhere: list[float] = []
        with within(50.0), within(60.0):
            assert time_left(100.0) <= 50.0
            assert time_left(1.0) == 1.0
            with within(-1.0):
                assert time_left(100.0) == 0.0
            thread = threading.Thread(target=lambda: elsewhere.append(time_left(100.0)))
            thread.start()
            thread.join(5)
        assert elsewhere == [100.0]


class TestManyCoroutines:
    """More than the four threads that they share."""

    def test_all_are_answered_in_time_while_the_store_is_silent(self) -> None:
        class Silent(MemoryDriver):
            def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
                time.sleep(time_left(60.0))
                raise StoreUnavailable("silence")

        queue = JobQueue(Silent(), {"push_timeout": 1.0})

        async def story() -> list[object]:
            return await asyncio.gather(*(queue.apush(Send) for _ in range(40)), return_exceptions=True)

        began = time.monotonic()
        answers = asyncio.run(story())
        assert time.monotonic() - began < 2.0
        assert all(isinstance(answer, StoreUnavailable) and len(answer.job_ids) == 1 for answer in answers)

    def test_all_are_stored_however_long_that_takes_while_the_store_answers(self) -> None:
        class Slow(MemoryDriver):
            def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
                time.sleep(0.05)
                return super().enqueue(jobs)

        store = Slow()
        queue = JobQueue(store, {"push_timeout": 0.0})  # with a second for a try

        async def story() -> None:
            await asyncio.gather(*(queue.apush(Send) for _ in range(100)))

        asyncio.run(story())
        assert store.stats().total == 100


class TestCoroutines:
    def test_every_method_that_waits_has_a_twin(self) -> None:
        waits = ["push", "push_many", "later", "work", "stats", "get", "find", "failed_jobs", "queues", "workers",
                 "cancel", "cancel_many", "retry_failed", "forget_failed", "pause", "resume", "clear",
                 "prune", "result", "wait_for", "watch"]  # fmt: skip
        public = {name for name in dir(JobQueue) if not name.startswith("_") and callable(getattr(JobQueue, name))}
        assert {f"a{name}" for name in waits} <= public
        assert public - {f"a{name}" for name in waits} - set(waits) <= {"from_config", "close", "leave"}

    def test_the_twins_do_what_their_originals_do(self, queue: JobQueue) -> None:
        async def story() -> None:
            first = await queue.apush(Send, {"n": 1}, id=AN_ID)
            second = await queue.alater(60, Send)
            more = await queue.apush_many([Send, (Send, {"n": 2})])
            assert first == AN_ID
            assert (await queue.astats()).total == 4
            assert (await queue.aget(second)) == queue.get(second)
            assert len((await queue.afind()).jobs) == 4
            assert await queue.acancel(more[0]) == "cancelled"
            assert await queue.acancel_many([more[0], AN_ID[:-1] + "0"]) == ["finished", "missing"]
            assert await queue.apause("default")
            assert [found.is_paused for found in await queue.aqueues()] == [True]
            assert (await queue.awork("default", 9)).runs == 0
            assert await queue.aresume("default")
            assert (await queue.awork("default", 9)).done == 2
            assert [failed async for failed in queue.afailed_jobs()] == []
            assert await queue.aretry_failed([AN_ID]) == ["missing"]
            assert await queue.aforget_failed(AN_ID) == 0
            assert (await queue.aprune(completed_older_than=0)).total >= 0
            assert len(await queue.aworkers()) == 1
            await queue.aclear("default")
            assert (await queue.astats()).total == 0

        asyncio.run(story())

    def test_cancelling_apush_does_not_unstore(self) -> None:
        entered, may_go = threading.Event(), threading.Event()

        class Slow(MemoryDriver):
            def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
                entered.set()
                may_go.wait(10)
                return super().enqueue(jobs)

        queue = JobQueue(Slow(), {})

        async def story() -> None:
            push = asyncio.create_task(queue.apush(Send))
            await asyncio.to_thread(entered.wait, 5)
            push.cancel()
            with pytest.raises(asyncio.CancelledError):
                await push
            may_go.set()
            for _ in range(1000):
                if queue.stats().total:
                    return
                await asyncio.sleep(0.005)

        asyncio.run(story())
        assert queue.stats().total == 1

    def test_many_workers_at_once_leave_apush_its_threads_and_a_cancelled_one_stops(
        self, queue: JobQueue, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        async def story() -> None:
            workers = [asyncio.create_task(queue.awork(f"queue-{n}")) for n in range(6)]
            await asyncio.wait_for(queue.apush(Send), 5)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

        asyncio.run(story())
        eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("protojobs-awork")])
        eventually(lambda: queue.workers() == [])

    def test_a_worker_that_is_cancelled_twice_stops_at_once_and_never_holds_up_the_loop(self, queue: JobQueue) -> None:
        begun, end = threading.Event(), threading.Event()

        @job(name="goes on", timeout=0)
        def goes_on() -> None:
            begun.set()
            end.wait(10)

        async def story() -> None:
            worker = asyncio.create_task(queue.awork())
            while not begun.is_set():
                await asyncio.sleep(0.002)
            for _ in range(2):
                worker.cancel()
                await asyncio.sleep(0.01)
            assert not worker.done()
            end.set()  # only a loop that goes on gets here
            await asyncio.wait([worker])

        queue.push(goes_on.bind())
        asyncio.run(asyncio.wait_for(story(), 8))
        assert queue.stats().processing == 0


def test_a_push_makes_no_more_python_calls_than_it_did(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound for what core itself does, by count. Whoever adds to it raises the number here, and says why."""
    monkeypatch.setattr(queue.driver, "enqueue", lambda jobs: [Enqueued(id=one.id) for one in jobs])
    calls, push = 0, Send.bind({"to": "a"})

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    queue.push(push)
    sys.setprofile(count)
    try:
        queue.push(push)
    finally:
        sys.setprofile(None)
    assert calls <= 20, calls
