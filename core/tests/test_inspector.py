"""Looking through an Inspector: what it answers, page by page, within bounds, with what is hidden hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest
from msgspec.structs import replace

from protojobs import JobContext, JobQueue, Retry, Scheduler, job
from protojobs.errors import (
    DataInvalid,
    JobUnknown,
    NotSupported,
    OptionInvalid,
    PayloadError,
    QueryInvalid,
    StoreUnavailable,
)
from protojobs.inspector import HIDDEN, Count, ForgetAnswer, Inspector
from protojobs.inspector.looking import FINDS_MAX
from protojobs.port.lifecycle import JobState
from protojobs.port.observing import Result
from protojobs.port.records import CancelAnswer, JobFilter, JobPage, RetryAnswer
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver


@pytest.fixture
def store(clock: ManualClock) -> MemoryDriver:
    return MemoryDriver(clock=clock)


@pytest.fixture
def queue(store: MemoryDriver, clock: ManualClock) -> JobQueue:
    @job(name="mail")
    def mail(to: str = "jo", password: str = "s3cret") -> None: ...

    @job(name="bad", queue="odd", max_retries=0)
    def bad(n: int) -> None:
        raise ValueError(f"no luck {n}")

    @job(name="twice", max_retries=1, retry_delay=0)
    def twice(context: JobContext) -> object:
        return Retry(0) if context.attempt == 1 else None

    @job(name="worse", queue="odd", max_retries=0)
    def worse() -> None:
        raise ConnectionError("refused by 10.0.0.1")

    return JobQueue(store, {"concurrency": 1, "poll_interval": 0.02})


@pytest.fixture
def inspector(queue: JobQueue) -> Inspector:
    return Inspector(queue)


def push(queue: JobQueue, name: str, number: int) -> list[str]:
    return queue.push_many([(name, {"to": "jo"})] * number)


def fail(queue: JobQueue, number: int, name: str = "bad") -> None:
    queue.push_many([(name, {"n": n} if name == "bad" else {}) for n in range(number)])
    queue.work("odd", number)
    queue.leave()


class Examined(MemoryDriver):
    """Counts the rows that `find` is asked for."""

    rows = calls = 0

    def find(
        self, which: JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> JobPage:
        page = super().find(which, limit=limit, cursor=cursor, chars_max=chars_max)
        self.rows, self.calls = self.rows + len(page.jobs), self.calls + 1
        return page


class Barren(Examined):
    """Finds one job at a time, however many are asked for."""

    def find(
        self, which: JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> JobPage:
        return super().find(which, limit=1, cursor=cursor, chars_max=chars_max)


class Hasty(ManualClock):
    """A quarter of a second passes each time that it is asked."""

    def monotonic(self) -> float:
        self.advance(0.25)
        return super().monotonic()


def walk(inspector: Inspector, query: str, limit: int) -> Iterator[str]:
    cursor: str | None = None
    for _ in range(100):
        page = inspector.jobs(query, limit=limit, cursor=cursor)
        assert len(page.jobs) <= limit
        yield from (one.id for one in page.jobs)
        if (cursor := page.cursor) is None:
            return
    raise AssertionError("it does not end")


class TestJobs:
    @pytest.mark.parametrize("limit", [1, 3, 7, 50])
    @pytest.mark.parametrize("query", ["", "job:mail", "data.to:a", "job:m* -data.to:b", "state:ready data.to:a,b"])
    def test_pages_show_each_match_once_newest_first(self, queue: JobQueue, query: str, limit: int) -> None:
        ids = queue.push_many([("mail", {"to": to}) for to in "ab" * 10])
        wanted = ids[::2] if query in ("data.to:a", "job:m* -data.to:b") else ids
        assert list(walk(Inspector(queue), query, limit)) == sorted(wanted, reverse=True)

    @pytest.mark.parametrize("limit", [1, 2, 50])
    @pytest.mark.parametrize("query", ["state:failed", "state:failed data.n:>=0", "error:luck", "error:luck queue:odd"])
    def test_failed_ones_come_by_when_they_failed_with_their_rows(
        self, queue: JobQueue, inspector: Inspector, query: str, limit: int
    ) -> None:
        fail(queue, 5)
        rows = list(queue.failed_jobs())
        assert list(walk(inspector, query, limit)) == [row.job_id for row in rows]
        page = inspector.jobs(query)
        assert {job_id: row.id for job_id, row in page.failures.items()} == {row.job_id: row.id for row in rows}

    def test_what_comes_or_goes_between_two_pages_disturbs_none(self, queue: JobQueue, inspector: Inspector) -> None:
        ids = sorted(push(queue, "mail", 10), reverse=True)
        first = inspector.jobs("data.to:jo", limit=4)
        queue.cancel(ids[3])
        push(queue, "mail", 3)
        second = inspector.jobs("data.to:jo", limit=4, cursor=first.cursor)
        assert [one.id for one in (*first.jobs, *second.jobs)] == ids[:8]

    def test_a_search_for_little_ends_at_its_bound_and_goes_on(self, queue: JobQueue, clock: ManualClock) -> None:
        store = Examined(clock=clock)
        queue = JobQueue(store)
        queue.push_many([("mail", {"to": "rare"})])
        queue.push_many([("mail", {})] * 4_500)
        page = Inspector(queue).jobs("job:ma*l took:>1s")
        assert (page.jobs, page.has_ended_early, page.examined) == ((), True, 2_000)
        assert store.calls == 2
        found = list(walk(Inspector(queue), "data.to:rare", 50))
        assert len(found) == 1

    def test_a_store_that_passes_over_much_is_asked_a_few_times_for_a_page(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        store = Barren(clock=clock)
        queue = JobQueue(store)
        ids = queue.push_many([("mail", {"to": "jo"})] * 20)
        page = Inspector(queue).jobs("data.to:jo")
        assert (page.has_ended_early, store.calls) == (True, FINDS_MAX)
        assert list(walk(Inspector(queue), "data.to:jo", 50)) == sorted(ids, reverse=True)
        store.calls = 0
        assert Inspector(queue).count("data.to:jo", cap=10_000) == Count(20)
        assert Inspector(queue).count("data.to:jo prio:1..2") == Count(0)
        queue.push_many([("mail", {"to": "jo"})] * 60)
        store.calls = 0
        assert Inspector(queue).count("data.to:jo") == Count(40, is_capped=True)
        assert store.calls == 40

    @pytest.mark.parametrize("query", ["data.n:>=0", "error:luck", "state:failed data.n:>=0"])
    def test_rows_that_take_long_end_a_page_early_and_it_goes_on_behind_them(self, queue: JobQueue, query: str) -> None:
        fail(queue, 12)
        queue.clock = Hasty()
        page = Inspector(queue).jobs(query)
        assert (page.has_ended_early, len(page.jobs), page.examined) == (True, 4, 4)
        ids = [row.job_id for row in queue.failed_jobs()]
        if query == "data.n:>=0":
            ids.sort(reverse=True)
        assert list(walk(Inspector(queue), query, 50)) == ids
        assert list(walk(Inspector(queue), query, 2)) == ids

    def test_what_the_store_can_tell_alone_is_one_page_of_it(self, queue: JobQueue, clock: ManualClock) -> None:
        store = Examined(clock=clock)
        queue = JobQueue(store)
        queue.push_many([("mail", {})] * 300)
        assert len(Inspector(queue).jobs("state:pending job:mail queue:default", limit=20).jobs) == 20
        assert (store.calls, store.rows) == (1, 20)

    def test_data_is_cut_in_lists_and_whole_where_asked_for(self, queue: JobQueue, inspector: Inspector) -> None:
        queue.push("mail", {"to": "x" * 5_000})
        assert len(inspector.jobs("").jobs[0].data) == 300
        assert len(inspector.jobs("data.to:x*").jobs[0].data) == 300
        assert len(inspector.jobs("", chars_max=None).jobs[0].data) > 5_000

    def test_by_id(self, queue: JobQueue, inspector: Inspector) -> None:
        first, second, _ = push(queue, "mail", 3)
        assert [one.id for one in inspector.jobs(f"id:{first},{second},nope").jobs] == [second, first]
        assert inspector.jobs(f"id:{first} state:failed").jobs == ()

    @pytest.mark.parametrize("cursor", ["x", "", "@\x00", "a/b@nope"])
    def test_a_cursor_that_is_none(self, queue: JobQueue, inspector: Inspector, cursor: str) -> None:
        fail(queue, 1)
        try:
            inspector.jobs("state:failed", cursor=cursor)
        except OptionInvalid as error:
            assert "cursor" in str(error)

    @pytest.mark.parametrize("limit", [0, -1, 1_001])
    def test_a_limit_out_of_bounds(self, inspector: Inspector, limit: int) -> None:
        with pytest.raises(OptionInvalid):
            inspector.jobs("", limit=limit)

    def test_a_query_that_excludes_itself_finds_nothing(self, queue: JobQueue, inspector: Inspector) -> None:
        push(queue, "mail", 1)
        assert inspector.jobs("state:failed state:pending").jobs == ()
        assert inspector.count("state:failed state:pending") == Count(0)


class TestCount:
    @pytest.mark.parametrize(
        ("query", "number"),
        [
            ("", 8),
            ("state:failed", 3),
            ("state:ready", 4),
            ("state:scheduled", 1),
            ("state:pending", 5),
            ("state:pending,ready,failed", 8),
            ("queue:odd", 3),
            ("queue:odd state:pending", 0),
            ("queue:o* state:failed", 3),
            ("-state:failed", 5),
            ("data.n:>0", 2),
            ("error:luck", 3),
            ("queue:odd queue:default", 0),
        ],
    )
    def test_of_states_and_of_anything(self, queue: JobQueue, inspector: Inspector, query: str, number: int) -> None:
        fail(queue, 3)
        push(queue, "mail", 4)
        queue.later(60, "mail")
        assert inspector.count(query) == Count(number)

    def test_stops_at_its_cap(self, queue: JobQueue, inspector: Inspector) -> None:
        push(queue, "mail", 700)
        assert inspector.count("job:ma*", cap=500) == Count(500, True)
        assert inspector.count("job:ma*") == Count(700)


class TestOneJob:
    def test_with_its_attempts_and_times(self, queue: JobQueue, inspector: Inspector, clock: ManualClock) -> None:
        job_id = queue.push("twice")
        queue.work("default", 2)
        queue.leave()
        view = inspector.job(job_id)
        assert view is not None
        assert (view.job.status, view.is_known, view.failure) == (JobState.COMPLETED, True, None)
        assert [(note.attempt, note.result) for note in view.attempts] == [(1, Result.RETRIED), (2, Result.COMPLETED)]
        assert [moment.what for moment in view.timeline] == ["created", "taken", "retried", "taken", "completed"]

    def test_a_failed_one_with_its_traceback(self, queue: JobQueue, inspector: Inspector) -> None:
        fail(queue, 1)
        (row,) = queue.failed_jobs()
        view = inspector.job(row.job_id)
        assert view is not None
        assert view.failure == row
        assert view.timeline[-1].detail == "ValueError: no luck 0"
        assert inspector.failure(row.id) == inspector.failure(row.job_id) == row

    def test_one_that_is_not_there_or_not_known_here(self, queue: JobQueue, inspector: Inspector) -> None:
        assert inspector.job("nope") is None
        assert inspector.failure("nope") is None
        (pending,) = push(queue, "mail", 1)
        queue.registry._by_name.clear()
        view = inspector.job(pending)
        assert view is not None
        assert not view.is_known

    def test_one_that_is_due_later(self, queue: JobQueue, inspector: Inspector, clock: ManualClock) -> None:
        view = inspector.job(queue.later(60, "mail"))
        assert view is not None
        assert view.timeline[-1].what == "due"
        assert view.timeline[-1].at == clock.now() + timedelta(seconds=60)


class TestErrors:
    def test_grouped_by_cause(self, queue: JobQueue, inspector: Inspector, clock: ManualClock) -> None:
        fail(queue, 3)
        clock.advance(5)
        fail(queue, 2, "worse")
        refused, luck = inspector.errors()
        assert (refused.title, refused.job_name, refused.count) == (
            "ConnectionError: refused by <n>",
            "worse",
            Count(2),
        )
        assert (luck.title, luck.count, luck.sample.job_name) == ("ValueError: no luck <n>", Count(3), "bad")
        page = inspector.error(luck.fingerprint, limit=2)
        assert page.group == luck
        assert len(page.failures) == 2
        rest = inspector.error(luck.fingerprint, limit=2, cursor=page.cursor)
        assert (len(rest.failures), rest.cursor) == (1, None)
        assert inspector.error("0" * 16).group is None

    def test_found_by_the_beginning_of_the_fingerprint(self, queue: JobQueue, inspector: Inspector) -> None:
        fail(queue, 3)
        fail(queue, 2, "worse")
        marks = {group.job_name: group.fingerprint for group in inspector.errors()}
        assert inspector.count(f"fp:{marks['bad'][:8]}") == Count(3)
        assert inspector.count(f"fp:{marks['worse']}") == Count(2)
        assert inspector.count(f"fp:{marks['bad']},{marks['worse']}") == Count(5)
        assert inspector.count("fp:0000") == Count(0)


class TestQueuesAndWorkers:
    def test_queues_page_by_page_and_by_name(self, queue: JobQueue, inspector: Inspector) -> None:
        names = ["a", "b", "b ", "ba", "B", "é", "\ue000"]
        for name in names:
            queue.driver.pause(name)
        ordered = sorted(names, key=str.encode)
        assert [info.name for info in inspector.queues()] == ordered
        assert [info.name for info in inspector.queues(after=ordered[1], limit=2)] == ordered[2:4]
        for name in names:
            found = inspector.queue(name)
            assert found is not None
            assert found.name == name
        for name in ("c", "A", "bb", "", "z" * 200):
            assert inspector.queue(name) is None

    def test_workers_and_what_they_hold(self, queue: JobQueue, inspector: Inspector, clock: ManualClock) -> None:
        held = {}

        @job(name="look")
        def look(context: JobContext) -> None:
            (view,) = inspector.workers()
            held.update(view=inspector.worker(view.worker.id), overview=inspector.overview())

        job_id = queue.push("look")
        queue.work("default", 1)
        view = held["view"]
        assert ([one.id for one in view.jobs], view.is_late) == ([job_id], False)
        assert (held["overview"].busy, [one.id for one in held["overview"].running]) == (1, [job_id])
        clock.advance(61)
        (view,) = inspector.workers()
        assert view.is_late
        assert inspector.overview().workers_late == 1
        assert inspector.worker("nope") is None

    def test_the_overview(self, queue: JobQueue, inspector: Inspector, clock: ManualClock) -> None:
        fail(queue, 2)
        push(queue, "mail", 3)
        queue.pause("odd")
        clock.advance(30)
        seen = inspector.overview()
        assert (seen.stats.failed, seen.failed_24h, seen.paused) == (2, 2, ("odd",))
        assert (seen.oldest_ready_queue, seen.oldest_ready_s) == ("default", 30.0)


class TestCharts:
    def test_a_point_for_each_minute_also_for_empty_ones(
        self, queue: JobQueue, inspector: Inspector, clock: ManualClock
    ) -> None:
        push(queue, "mail", 2)
        clock.advance(4)
        queue.work("default", 2)
        queue.leave()
        series = inspector.series(60)
        assert (series.period_s, len(series.points)) == (60, 60)
        assert series.points[-1].counts == series.total.counts == {Result.COMPLETED: 2}
        assert series.total.wait_p50 == pytest.approx(4, rel=0.1)
        assert all(point.counts == {} for point in series.points[:-1])
        assert len(inspector.series(24 * 60).points) == 24
        assert inspector.series(60, queue="odd").total.counts == {}
        assert inspector.series(60, job_name="mail").total.counts == {Result.COMPLETED: 2}

    def test_rates_by_name_those_with_the_most_errors_first(self, queue: JobQueue, inspector: Inspector) -> None:
        fail(queue, 2)
        push(queue, "mail", 5)
        queue.work("default", 5)
        queue.leave()
        assert [(rate.name, rate.runs, rate.error_rate) for rate in inspector.rates()] == [
            ("bad", 2, 1.0),
            ("mail", 5, 0),
        ]
        assert [rate.name for rate in inspector.rates(by="queue")] == ["odd", "default"]

    def test_depths(self, queue: JobQueue, inspector: Inspector) -> None:
        push(queue, "mail", 2)
        assert queue.driver.sample_depths()
        (sample,) = inspector.depths()
        assert (sample.queue, sample.ready) == ("default", 2)
        assert inspector.depths(queue="odd") == []

    @pytest.mark.parametrize("minutes", [0, 7 * 24 * 60 + 1])
    def test_a_span_out_of_bounds(self, inspector: Inspector, minutes: int) -> None:
        with pytest.raises(OptionInvalid):
            inspector.series(minutes)


class TestActing:
    def test_cancel_answers_for_each(self, queue: JobQueue, inspector: Inspector) -> None:
        first, second = push(queue, "mail", 2)
        assert inspector.cancel([first, "nope"], reason="a mistake") == [CancelAnswer.CANCELLED, CancelAnswer.MISSING]
        assert queue.get(second) is not None
        (note,) = inspector.audit().actions
        assert (note.actor, note.action, note.count, note.detail) == ("cli", "cancel", 1, "a mistake")
        assert first in note.target

    def test_retry_and_forget_by_either_id(self, queue: JobQueue, inspector: Inspector) -> None:
        fail(queue, 3)
        first, second, third = queue.failed_jobs()
        assert inspector.retry([first.id, second.job_id, "nope"]) == [
            RetryAnswer.REQUEUED, RetryAnswer.REQUEUED, RetryAnswer.MISSING,
        ]  # fmt: skip
        assert inspector.forget([third.job_id, first.id]) == [ForgetAnswer.FORGOTTEN, ForgetAnswer.MISSING]
        assert (queue.stats().pending, queue.stats().failed) == (2, 0)
        assert [note.count for note in inspector.audit().actions] == [1, 2]

    def test_one_that_is_named_by_both_its_ids_is_retried_once(self, queue: JobQueue, inspector: Inspector) -> None:
        fail(queue, 1)
        (failure,) = queue.failed_jobs()
        assert inspector.retry([failure.id, failure.job_id]) == [RetryAnswer.REQUEUED] * 2
        assert inspector.audit().actions[0].count == 1

    def test_one_that_was_retried_in_between_is_not_said_to_be_forgotten(
        self, queue: JobQueue, inspector: Inspector, store: MemoryDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fail(queue, 2)
        first, second = queue.failed_jobs()
        forget = store.forget_failed

        def overtaken(ids: Sequence[str]) -> int:
            store.retry_failed([first.id])
            return forget(ids)

        monkeypatch.setattr(store, "forget_failed", overtaken)
        assert inspector.forget([first.id, second.id, second.job_id]) == [
            ForgetAnswer.MISSING, ForgetAnswer.FORGOTTEN, ForgetAnswer.FORGOTTEN,
        ]  # fmt: skip
        assert inspector.audit().actions[0].count == 1
        assert queue.get(first.job_id) is not None

    def test_queues(self, queue: JobQueue, inspector: Inspector) -> None:
        push(queue, "mail", 2)
        assert (inspector.pause("default"), inspector.pause("default")) == (True, False)
        assert (inspector.resume("default"), inspector.resume("default")) == (True, False)
        assert inspector.clear("default").total == 2
        assert [(note.action, note.count) for note in inspector.audit().actions] == [
            ("clear", 2), ("resume", 0), ("resume", 1), ("pause", 0), ("pause", 1),
        ]  # fmt: skip

    def test_schedules(self, queue: JobQueue, inspector: Inspector, clock: ManualClock) -> None:
        Scheduler(queue).every("mail", 60, id="often")
        (often,) = inspector.schedules().schedules
        assert inspector.schedule("often") == often
        assert inspector.next_times(often, 2) == [clock.now() + timedelta(seconds=s) for s in (60, 120)]
        assert queue.get(inspector.run_schedule("often")) is not None
        assert (inspector.pause_schedule("often"), inspector.resume_schedule("often")) == (True, True)
        with pytest.raises(LookupError):
            inspector.run_schedule("never")
        assert inspector.audit().actions[0].detail.startswith("failed: ScheduleUnknown")

    def test_too_many_ids(self, inspector: Inspector) -> None:
        with pytest.raises(OptionInvalid):
            inspector.cancel(["x"] * 10_001)

    def test_the_log_line_and_the_event_are_on_one_line(
        self, queue: JobQueue, inspector: Inspector, heard: Callable[..., list[object]], caplog
    ) -> None:
        seen = heard("audit.action")
        with caplog.at_level("INFO", "protojobs.audit"):
            inspector.cancel(["de\u2028fault"], reason="no\u00a0more")
        assert [record.getMessage() for record in caplog.records] == ["cli cancel de\\u2028fault (0): no\\xa0more"]
        (event,) = seen
        assert (event.action, event.count) == ("cancel", 0)  # type: ignore[attr-defined]


class TestRetryEdited:
    def test_a_new_job_takes_the_place_of_the_failed_one(self, queue: JobQueue, inspector: Inspector) -> None:
        fail(queue, 1)
        (row,) = queue.failed_jobs()
        new = queue.get(inspector.retry_edited(row.job_id, '{"n": 7}'))
        assert new is not None
        assert (new.data, new.queue, new.max_retries, new.status) == ('{"n":7}', "odd", 0, JobState.PENDING)
        assert queue.stats().failed == 0

    def test_doing_it_again_after_an_outage_in_the_middle_stores_no_second_job(
        self, queue: JobQueue, inspector: Inspector, store: MemoryDriver
    ) -> None:
        def away(ids: Sequence[str]) -> int:
            raise StoreUnavailable("away")

        fail(queue, 1)
        (row,) = queue.failed_jobs()
        forget, store.forget_failed = store.forget_failed, away  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            inspector.retry_edited(row.id, '{"n": 7}')
        store.forget_failed = forget  # type: ignore[method-assign]
        again = inspector.retry_edited(row.id, '{ "n": 7 }')
        assert [one.id for one in queue.find(JobFilter(states=(JobState.PENDING,))).jobs] == [again]
        assert queue.stats().failed == 0

    @pytest.mark.parametrize("data", ["{", '{"n": "many"}', '{"m": 1}', "[" * 200, "nan"])
    def test_data_that_does_not_fit_changes_nothing(self, queue: JobQueue, inspector: Inspector, data: str) -> None:
        fail(queue, 1)
        (row,) = queue.failed_jobs()
        with pytest.raises(PayloadError):
            inspector.retry_edited(row.id, data)
        assert (queue.stats().failed, queue.stats().pending) == (1, 0)

    def test_one_that_has_not_failed(self, queue: JobQueue, inspector: Inspector) -> None:
        with pytest.raises(JobUnknown):
            inspector.retry_edited(push(queue, "mail", 1)[0], "{}")


class TestRedaction:
    @pytest.fixture
    def secret(self, queue: JobQueue) -> Inspector:
        return Inspector(queue, redact=["PassWord", "*.token", "card.*.pin"])

    DATA = {"password": "a", "user": {"token": "b", "name": "Jo"}, "token": "c", "card": [{"x": {"pin": 1, "n": 2}}]}

    def test_named_fields_are_hidden_everywhere(self, queue: JobQueue, secret: Inspector) -> None:
        @job(name="any")
        def any_() -> None: ...

        job_id = queue.push("any")
        row = queue.driver.state.rows[job_id]
        row.job = replace(row.job, data='{"password":"a","user":{"token":"b"},"token":"c","card":[{"x":{"pin":1}}]}',
                          meta='{"password":"m","tenant":"t"}')  # fmt: skip
        hidden = (
            f'{{"password":"{HIDDEN}","user":{{"token":"{HIDDEN}"}},"token":"c","card":[{{"x":{{"pin":"{HIDDEN}"}}}}]}}'
        )
        view = secret.job(job_id)
        assert view is not None
        assert view.job.data == secret.jobs("").jobs[0].data == secret.jobs(f"id:{job_id}").jobs[0].data == hidden
        assert view.job.meta == f'{{"password":"{HIDDEN}","tenant":"t"}}'

    def test_of_failed_jobs_and_schedules_too(self, queue: JobQueue, secret: Inspector) -> None:
        @job(name="leak", queue="odd", max_retries=0)
        def leak(password: str) -> None:
            raise ValueError

        queue.push("leak", {"password": "a"})
        queue.work("odd", 1)
        queue.leave()
        Scheduler(queue).every("leak", 60, {"password": "a"}, id="often")
        (group,) = secret.errors()
        page = secret.jobs("state:failed")
        seen = [group.sample.data, page.jobs[0].data, *(row.data for row in page.failures.values())]
        seen += [row.data for row in secret.error(group.fingerprint).failures]
        seen += [one.data for one in secret.schedules().schedules]
        failure, schedule = secret.failure(page.jobs[0].id), secret.schedule("often")
        assert failure is not None
        assert schedule is not None
        assert {*seen, failure.data, schedule.data} == {f'{{"password":"{HIDDEN}"}}'}

    def test_nobody_finds_out_by_searching(self, queue: JobQueue, secret: Inspector) -> None:
        queue.push("mail", {"to": "jo", "password": "hunter2"})
        assert secret.count("data.password:h*") == Count(0)
        assert secret.count("data.to:jo") == Count(1)

    @pytest.mark.parametrize("text", ["no json", '{"password": "x', "[" * 100_000])
    def test_what_cannot_be_read_is_hidden_whole(self, queue: JobQueue, secret: Inspector, text: str) -> None:
        job_id = queue.push("mail")
        row = queue.driver.state.rows[job_id]
        row.job = replace(row.job, data=text)
        view = secret.job(job_id)
        assert view is not None
        assert "hidden" in view.job.data
        assert text not in view.job.data
        assert "hidden" in secret.jobs("").jobs[0].data

    def test_what_is_too_long_for_a_list_is_hidden_there(self, queue: JobQueue, secret: Inspector) -> None:
        queue.push("mail", {"to": "x" * 70_000, "password": "hunter2"})
        assert secret.jobs("").jobs[0].data == '"[hidden: too long]"'

    def test_edited_data_keeps_what_is_hidden(self, queue: JobQueue, secret: Inspector) -> None:
        @job(name="leak", queue="odd", max_retries=0)
        def leak(password: str, to: str) -> None:
            raise ValueError

        queue.push("leak", {"password": "hunter2", "to": "jo"})
        queue.work("odd", 1)
        (row,) = queue.failed_jobs()
        new = queue.get(secret.retry_edited(row.id, f'{{"password": "{HIDDEN}", "to": "mo"}}'))
        assert new is not None
        assert new.data == '{"password":"hunter2","to":"mo"}'

    def test_a_hidden_field_that_was_moved_is_refused(self, queue: JobQueue, secret: Inspector) -> None:
        fail(queue, 1)
        (row,) = queue.failed_jobs()
        with pytest.raises(DataInvalid, match="hidden"):
            secret.retry_edited(row.id, f'{{"n": 1, "password": "{HIDDEN}"}}')
        with pytest.raises(DataInvalid, match="hidden"):
            secret.retry_edited(row.id, f'{{"n": [{{"password": "{HIDDEN}"}}]}}')


def test_the_system_page_shows_no_secret(store: MemoryDriver) -> None:
    queue = JobQueue(store, {"url": "postgresql://app:hunter2@db/shop?password=hunter2"})
    seen = Inspector(queue).system()
    assert "hunter2" not in str(seen)
    assert seen.url.startswith("postgresql://app:***@db/shop")
    assert seen.capabilities["observing"]
    assert {"protojobs", "python"} <= set(seen.versions)


def test_a_store_without_notes_says_so_and_the_rest_works(queue: JobQueue, store: MemoryDriver) -> None:
    store.capabilities = replace(store.capabilities, observing=False)
    inspector = Inspector(queue)
    fail(queue, 1)
    assert not inspector.is_observing
    for verb in (inspector.errors, inspector.series, inspector.rates, inspector.depths, inspector.audit):
        with pytest.raises(NotSupported):
            verb()
    (row,) = queue.failed_jobs()
    assert inspector.overview().failed_24h is None
    assert inspector.count(f"fp:{row.fingerprint[:6]}") == Count(1)
    assert inspector.job(row.job_id) is not None
    assert inspector.retry([row.id]) == [RetryAnswer.REQUEUED]


def test_an_unknown_query_is_refused_everywhere(inspector: Inspector) -> None:
    for verb in (inspector.jobs, inspector.count, lambda q: inspector.start("retry", q)):
        with pytest.raises(QueryInvalid):
            verb("nonsense:1")
