"""What a run returns is kept with its job, and what it asks for next is stored, if and only if the run completes."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from msgspec.structs import replace

from protojobs import Discard, Job, JobContext, JobQueue, Retry, Snooze, job
from protojobs.errors import NotSupported, OptionInvalid, ResultInvalid
from protojobs.events import Event, JobQueued
from protojobs.jobs import codec
from protojobs.jobs.job_class import FunctionJob
from protojobs.jobs.results import result_of
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import BATCH_BYTES_MAX, BATCH_JOBS_MAX, ClaimedJob, NewJob, Settlement
from protojobs.port.results import RESULT_BYTES_MAX, JobResult
from protojobs.worker.outcome import Outcome
from protojobs.worker.trips import Trips
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
Heard = Callable[..., list[Event]]
Follower = FunctionJob[..., None]


@dataclass
class Summary:
    total: int
    at: datetime


SUMMARY = Summary(total=7, at=datetime(2026, 1, 1, tzinfo=UTC))
SUMMARY_JSON = '{"total":7,"at":"2026-01-01T00:00:00Z"}'


def kept(queue: JobQueue, job_id: str) -> JobResult:
    (found,) = queue.driver.get_results([job_id])
    return found


def names(queue: JobQueue, name: str) -> list[str]:
    return [found.job_name for found in queue.find().jobs if found.queue == name]


@pytest.fixture
def follower() -> Follower:
    @job(name="follower", queue="next", priority=5)
    def follower(n: int = 0) -> None: ...

    return follower


class TestAResult:
    def test_is_kept_where_the_job_says_so(self, queue: JobQueue) -> None:
        @job(name="plain")
        def plain() -> int:
            return 1

        @job(name="keeping", store_result=True)
        def keeping() -> Summary:
            return SUMMARY

        first, second = queue.push(plain), queue.push(keeping)
        queue.work("default", 2)
        assert (kept(queue, first).state, kept(queue, first).result) == (JobState.COMPLETED, None)
        assert json.loads(kept(queue, second).result or "") == json.loads(SUMMARY_JSON)
        assert result_of(kept(queue, second).result or "", queue.registry.find("keeping")) == SUMMARY

    def test_is_kept_of_a_class_and_of_a_coroutine(self, queue: JobQueue) -> None:
        class Keeping(Job[dict[str, int]]):
            name = "class"
            store_result = True

            async def handle(self, data: dict[str, int]) -> dict[str, int]:
                await asyncio.sleep(0)
                return {"twice": 2 * data["n"]}

        job_id = queue.push(Keeping, {"n": 4})
        queue.work("default", 1)
        assert kept(queue, job_id).result == '{"twice":8}'

    @pytest.mark.parametrize(("value", "text"), [(None, "null"), (0, "0"), ("ä", '"ä"'), ([1, [2]], "[1,[2]]")])
    def test_may_be_any_json(self, queue: JobQueue, value: object, text: str) -> None:
        @job(name="keeping", store_result=True)
        def keeping():  # type: ignore[no-untyped-def]
            return value

        job_id = queue.push(keeping)
        queue.work("default", 1)
        assert kept(queue, job_id).result == text

    @pytest.mark.parametrize("steering", [Snooze(60), Retry(60), Discard("no use")])
    def test_is_none_where_the_run_steers(self, queue: JobQueue, steering: object) -> None:
        @job(name="keeping", store_result=True)
        def keeping() -> int | Snooze | Retry | Discard:
            return steering  # type: ignore[return-value]

        assert keeping.definition.result_type is int
        job_id = queue.push(keeping)
        queue.work("default", 1)
        assert kept(queue, job_id).result is None

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (object(), "$ is a builtins.object, which would not come back as it is"),
            ({1: 2}, "has the key 1, and JSON keys are strings"),
            ("x" * RESULT_BYTES_MAX, "takes 65,538 bytes"),
            (float("nan"), "$ is nan, which JSON does not have"),
        ],
    )
    def test_that_cannot_be_kept_fails_the_job_at_once_and_says_why(
        self, queue: JobQueue, follower: Follower, value: object, said: str
    ) -> None:
        @job(name="keeping", store_result=True, max_retries=5)
        def keeping(ctx: JobContext):  # type: ignore[no-untyped-def]
            ctx.then(follower)
            return value

        job_id = queue.push(keeping)
        assert queue.work("default", 1).failed == 1
        found = kept(queue, job_id)
        assert (found.state, found.result) == (JobState.FAILED, None)
        (failure,) = queue.failed_jobs()
        assert "ResultInvalid" in failure.exception
        assert 'the result of job "keeping"' in failure.exception
        assert said in failure.exception
        assert names(queue, "next") == []

    def test_of_a_type_whose_own_code_raises_fails_the_job(
        self, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @job(name="keeping", store_result=True)
        def keeping() -> int:
            return 1

        def broken(*args: object, **kwargs: object) -> str:
            raise ZeroDivisionError("mine")

        job_id = queue.push(keeping)
        monkeypatch.setattr(codec, "encode", broken)
        queue.work("default", 1)
        assert kept(queue, job_id).error.endswith('the result of job "keeping" cannot be written as JSON: mine.')

    def test_that_is_wished_of_a_store_that_keeps_none_is_refused_at_push(
        self, make_queue: MakeQueue, follower: Follower
    ) -> None:
        queue = make_queue(Forgetful())

        @job(name="keeping", store_result=True)
        def keeping() -> int:
            return 1

        for push in (lambda: queue.push(keeping), lambda: queue.push_many([keeping]), lambda: queue.later(1, keeping)):
            with pytest.raises(NotSupported, match='"keeping" says store_result=True, and this store keeps no results'):
                push()
        assert queue.stats().total == 0

    def test_of_a_job_that_came_from_another_store_is_left_out_where_none_are_kept(self, make_queue: MakeQueue) -> None:
        driver = Forgetful()
        queue = make_queue(driver)

        @job(name="keeping", store_result=True)
        def keeping() -> int:
            return 1

        driver.enqueue([NewJob(id="0" * 8 + "-0000-0000-0000-" + "0" * 12, queue="default", job_name="keeping",
                               job_class="x", data="{}")])  # fmt: skip
        assert queue.work("default", 1).done == 1

    def test_option_is_true_or_false(self) -> None:
        with pytest.raises(OptionInvalid, match="store_result is 1"):

            @job(name="wrong", store_result=1)  # type: ignore[call-overload]
            def wrong() -> None: ...


class TestThen:
    def test_stores_what_comes_next_with_the_end_of_the_run(
        self, queue: JobQueue, follower: Follower, heard: Heard
    ) -> None:
        told = heard("job.queued")
        ids: list[str] = []

        @job(name="first")
        def first(ctx: JobContext) -> None:
            ids.append(ctx.then(follower.bind(3)))
            ids.append(ctx.then("follower", {"n": 4}, delay=60))
            assert names(queue, "next") == []

        queue.push(first)
        told.clear()
        assert queue.work("default", 1).done == 1
        one, two = [queue.get(job_id) for job_id in ids]
        assert one is not None
        assert two is not None
        assert (one.queue, one.data, one.priority, two.data) == ("next", '{"n":3}', 5, '{"n":4}')
        assert (two.available_at - one.available_at).total_seconds() == 60
        assert [(event.job_id, event.queue) for event in told if isinstance(event, JobQueued)] == [
            (ids[0], "next"),
            (ids[1], "next"),
        ]

    def test_works_in_a_coroutine(self, queue: JobQueue, follower: Follower) -> None:
        @job(name="first")
        async def first(ctx: JobContext) -> None:
            await asyncio.sleep(0)
            ctx.then(follower)

        queue.push(first)
        queue.work("default", 1)
        assert names(queue, "next") == ["follower"]

    @pytest.mark.parametrize("end", [Snooze(60), Retry(60), Discard("no use"), ValueError("no")])
    def test_stores_nothing_where_the_run_does_not_complete(
        self, queue: JobQueue, follower: Follower, end: object
    ) -> None:
        @job(name="first", max_retries=1)
        def first(ctx: JobContext) -> object:
            ctx.then(follower)
            if isinstance(end, Exception):
                raise end
            return end

        queue.push(first)
        queue.work("default", 1)
        assert names(queue, "next") == []

    def test_stores_nothing_where_the_run_obeys_a_cancel(self, queue: JobQueue, follower: Follower) -> None:
        @job(name="first")
        def first(ctx: JobContext) -> None:
            ctx.then(follower)
            ctx.request_cancel()
            assert ctx.cancelled()

        queue.push(first)
        queue.work("default", 1)
        assert names(queue, "next") == []

    def test_makes_a_chain(self, queue: JobQueue) -> None:
        seen: list[int] = []

        @job(name="step")
        def step(n: int, ctx: JobContext) -> None:
            seen.append(n)
            if n < 5:
                ctx.then(step.bind(n + 1))

        queue.push(step.bind(1))
        queue.work("default", 5)
        assert seen == [1, 2, 3, 4, 5]

    def test_refuses_what_push_would_refuse_and_the_run_may_go_on(self, queue: JobQueue, follower: Follower) -> None:
        refused: list[str] = []

        @job(name="first")
        def first(ctx: JobContext) -> None:
            for wrong in (
                lambda: ctx.then(follower, {"m": 1}),
                lambda: ctx.then("none"),
                lambda: ctx.then(follower, delay=-1),
            ):
                try:
                    wrong()
                except Exception as error:
                    refused.append(type(error).__name__)

        queue.push(first)
        assert queue.work("default", 1).done == 1
        assert refused == ["DataInvalid", "JobUnknown", "OptionInvalid"]
        assert names(queue, "next") == []

    def test_has_a_bound(self, queue: JobQueue, follower: Follower) -> None:
        @job(name="large", queue="next")
        def large(text: str) -> None: ...

        refused: list[str] = []

        @job(name="first")
        def first(ctx: JobContext) -> None:
            for _ in range(BATCH_JOBS_MAX):
                ctx.then(follower)
            with pytest.raises(OptionInvalid) as error:
                ctx.then(follower)
            refused.append(str(error.value))

        @job(name="heavy")
        def heavy(ctx: JobContext) -> None:
            for _ in range(8):
                ctx.then(large.bind("x" * 1_000_000))
            with pytest.raises(OptionInvalid):
                ctx.then(large.bind("x" * 1_000_000))

        queue.push(first)
        queue.push(heavy)
        assert queue.work("default", 2).done == 2
        assert "A run may ask for 1,000 jobs that come next, with 8,388,608 bytes of data." in refused[0]
        assert queue.stats("next").pending == BATCH_JOBS_MAX + 8

    def test_says_that_a_store_without_results_cannot(self, make_queue: MakeQueue, follower: Follower) -> None:
        queue = make_queue(Forgetful())
        refused: list[NotSupported] = []

        @job(name="first")
        def first(ctx: JobContext) -> None:
            try:
                ctx.then(follower)
            except NotSupported as error:
                refused.append(error)

        queue.push(first)
        assert queue.work("default", 1).done == 1
        assert "This store cannot store what comes next together with the end of a run." in str(refused[0])

    def test_asks_transforms_as_a_push_does(
        self, queue: JobQueue, follower: Follower, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @job(name="first")
        def first(ctx: JobContext) -> None:
            ctx.then(follower)

        queue.push(first)

        def marked(new: NewJob) -> NewJob:
            return replace(new, meta='{"marked":"yes"}')

        monkeypatch.setattr(type(queue.hooks), "before_push", lambda _self, new: marked(new))
        queue.work("default", 1)
        (found,) = [one for one in queue.find().jobs if one.queue == "next"]
        assert found.meta == '{"marked":"yes"}'


class TestBesideCompleteIn:
    @pytest.mark.parametrize("order", ["then first", "complete_in first"])
    def test_the_two_exclude_each_other(self, queue: JobQueue, follower: Follower, order: str) -> None:
        refused: list[str] = []

        @job(name="first", max_retries=0)
        def first(ctx: JobContext) -> None:
            ctx.completer = lambda _session, _fence: None
            calls = [lambda: ctx.then(follower), lambda: ctx.complete_in(object())]  # type: ignore[arg-type]
            one, two = calls if order == "then first" else reversed(calls)
            one()
            try:
                two()
            except OptionInvalid as error:
                refused.append(str(error))

        queue.push(first)
        queue.work("default", 1)
        assert len(refused) == 1
        assert "either completes its job in your transaction or asks for what comes next" in refused[0]


class TestInAChildProcess:
    @pytest.fixture
    def jobs(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """The jobs of result_jobs.py, registered for this test."""
        monkeypatch.syspath_prepend(str(Path(__file__).parent))
        if (module := sys.modules.get("result_jobs")) is None:
            return importlib.import_module("result_jobs")
        return importlib.reload(module)

    def test_both_come_with_the_outcome(self, queue: JobQueue, jobs: ModuleType) -> None:
        job_id = queue.push(jobs.in_child.bind(7))
        assert queue.work("default", 1).done == 1
        assert json.loads(kept(queue, job_id).result or "") == json.loads(SUMMARY_JSON)
        (following,) = [one for one in queue.find().jobs if one.queue == "next"]
        assert (following.job_name, following.data) == ("result_jobs.follower", '{"n":8}')
        assert (following.available_at - following.created_at).total_seconds() == 60


class TestATrip:
    """Takes no more than one call of `settle` does."""

    def test_carries_as_much_as_fits_and_the_first_in_any_case(self) -> None:
        new = NewJob(id="i", queue="q", job_name="n", job_class="c", data="x" * (BATCH_BYTES_MAX // 4))
        many = replace(new, data="{}")
        for result, then, taken in (
            (None, (new,) * 2, 2),
            (None, (new,) * 4, 1),
            (None, (new,) * 5, 1),
            (None, (many,) * 400, 2),
            ("x" * RESULT_BYTES_MAX, (), BATCH_BYTES_MAX // RESULT_BYTES_MAX),
            (None, (), 300),
        ):
            unsettled = {(str(at), 1): outcome(str(at), result=result, then=then) for at in range(300)}
            assert len(Trips(1).others(unsettled)) == taken


def outcome(job_id: str, *, result: str | None = None, then: tuple[NewJob, ...] = ()) -> Outcome:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    claimed = ClaimedJob(job_id, 1, "w", "q", "n", "c", "{}", 0, 1, 3, 1.0, None, 1.0, now, now, 0, 0, 0)
    said = Settlement(id=job_id, claim_seq=1, reserved_by="w", verb=Verb.COMPLETE, result=result, then=then)
    return Outcome(claimed=claimed, settlement=said)


class Forgetful(MemoryDriver):
    """A store without results."""

    capabilities = replace(MemoryDriver.capabilities, results=False)
    get_results = None  # type: ignore[assignment]


def test_an_error_of_a_result_is_one_of_the_job() -> None:
    assert issubclass(ResultInvalid, TypeError)
