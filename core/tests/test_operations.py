"""Acting on all that match: chunk by chunk, with progress, to an end; stopped, failed and refused ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from protojobs import JobQueue, create_driver, job
from protojobs.errors import OptionInvalid, QueryInvalid, StoreUnavailable
from protojobs.inspector import Count, Inspector, Operation, OperationState, Role, Viewer
from protojobs.inspector.redaction import Redaction
from protojobs.inspector.search import PAGES_MAX, Search
from protojobs.port.observing import ActionNote, FailureGroup
from protojobs.port.records import CancelAnswer, JobFilter, JobPage, RetryAnswer
from protojobs.querying import parse
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver


class Held(MemoryDriver):
    """Lets a retry go on only when it is told to, once it has been asked to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go, self.has_come = threading.Event(), threading.Event()
        self.may_go.set()
        self.is_away = False

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        self.has_come.set()
        assert self.may_go.wait(10)
        if self.is_away:
            raise StoreUnavailable("the store is away")
        return super().retry_failed(ids)


@pytest.fixture
def store() -> Iterator[Held]:
    held = Held()
    yield held
    held.may_go.set()


@pytest.fixture
def queue(store: Held) -> JobQueue:
    return failing(JobQueue(store, {"concurrency": 4}))


def failing(queue: JobQueue) -> JobQueue:
    @job(name="bad", queue="odd", max_retries=0)
    def bad(n: int) -> None:
        raise ValueError(f"no luck {n}")

    return queue


def fail(queue: JobQueue, number: int) -> None:
    queue.push_many([("bad", {"n": n}) for n in range(number)])
    queue.work("odd", number)
    queue.leave()


def ended(inspector: Inspector, started: Operation) -> Operation:
    operation: Operation | None = started
    for _ in range(600):
        assert operation is not None
        if operation.state is not OperationState.RUNNING:
            return operation
        operation = inspector.wait(started.id, 0.1)
    raise AssertionError("it does not end")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_all_that_match_and_no_other(kind: str, tmp_path: Path) -> None:
    driver = MemoryDriver() if kind == "memory" else create_driver(f"sqlite:///{tmp_path / 'jobs.db'}")
    driver.setup()
    with failing(JobQueue(driver, {"concurrency": 4})) as queue:
        fail(queue, 600)
        inspector = Inspector(queue)
        started = inspector.start("retry", "data.n:<550")
        assert started.total == Count(550)
        done = ended(inspector, started)
        assert (done.state, done.done, done.refused, done.examined, done.error) == ("done", 550, 0, 600, "")
        assert done.ended_at is not None
        assert (queue.stats().pending, queue.stats().failed) == (550, 50)
        cancelled = ended(inspector, inspector.start("cancel", "queue:odd"))
        assert (cancelled.done, queue.stats().cancelled, queue.stats().failed) == (550, 550, 50)
        assert ended(inspector, inspector.start("forget", "")).done == 50
        assert queue.stats().total == 550


def test_what_fails_again_meanwhile_is_not_met(queue: JobQueue) -> None:
    fail(queue, 3)
    inspector = Inspector(queue)
    assert ended(inspector, inspector.start("retry", "")).done == 3
    queue.work("odd", 3)
    assert queue.stats().failed == 3


def test_progress_and_a_stop_after_the_chunk(queue: JobQueue, store: Held) -> None:
    fail(queue, 1_200)
    inspector = Inspector(queue)
    store.may_go.clear()
    started = inspector.start("retry", "")
    assert store.has_come.wait(10)
    assert inspector.stop_operation(started.id)
    store.may_go.set()
    stopped = ended(inspector, started)
    assert (stopped.state, stopped.done, stopped.total) == (OperationState.STOPPED, 500, Count(1_200))
    assert queue.stats().failed == 700
    assert not inspector.stop_operation(started.id)
    assert ended(inspector, inspector.start("retry", "")).done == 700, "and it may be started again"


def test_those_that_changed_before_their_turn_are_refused(queue: JobQueue, store: Held) -> None:
    fail(queue, 5)
    inspector = Inspector(queue)
    store.may_go.clear()
    started = inspector.start("retry", "")
    assert store.has_come.wait(10)
    (first, *_) = queue.failed_jobs()
    queue.forget_failed(first.id)
    store.may_go.set()
    done = ended(inspector, started)
    assert (done.done, done.refused) == (4, 1)


def test_a_store_that_goes_away_ends_it_with_the_reason(queue: JobQueue, store: Held) -> None:
    fail(queue, 5)
    store.is_away = True
    inspector = Inspector(queue)
    done = ended(inspector, inspector.start("retry", ""))
    assert (done.state, done.done, done.error) == (OperationState.FAILED, 0, "the store is away")
    assert "the store is away" in inspector.audit().actions[0].detail


def test_its_beginning_and_its_end_are_noted(queue: JobQueue) -> None:
    fail(queue, 2)
    inspector = Inspector(queue, Viewer(name="ana", address="10.0.0.9"))
    operation = ended(inspector, inspector.start("forget", "queue:odd"))
    last, first = inspector.audit().actions
    assert (first.count, last.count, last.actor, last.address) == (0, 2, "ana", "10.0.0.9")
    assert first.target == last.target == "all that match 'queue:odd'"
    assert (first.detail, last.detail) == (f"operation {operation.id} running", f"operation {operation.id} done")


def test_a_driver_that_breaks_while_it_notes_changes_nothing(
    queue: JobQueue, store: Held, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(action: ActionNote) -> None:
        raise ZeroDivisionError

    fail(queue, 1)
    store.note_action = broken  # type: ignore[method-assign]
    inspector = Inspector(queue)
    done = ended(inspector, inspector.start("retry", ""))
    assert (done.state, done.done) == (OperationState.DONE, 1)
    assert caplog.text.count("the audit log of the store misses") == 2


def test_the_beginning_of_a_fingerprint_is_looked_up_once(queue: JobQueue, store: Held) -> None:
    asked: list[int] = []
    groups = store.failure_groups

    def noted(**bounds: int) -> list[FailureGroup]:
        asked.append(bounds["chars_max"])
        return groups(**bounds)

    fail(queue, 5)
    (failure, *_) = queue.failed_jobs()
    store.failure_groups = noted  # type: ignore[method-assign,assignment]
    search = Search(store, parse(f"fp:{failure.fingerprint[:6]}"), Redaction())
    assert [len(batch.found) for batch in search.batches(page=2)] == [2, 2, 1]
    assert asked == [1]


def test_all_viewers_see_the_same_operations(queue: JobQueue) -> None:
    fail(queue, 2)
    ana = Inspector(queue, Viewer(name="ana"))
    done = ended(ana, ana.start("retry", ""))
    reader = ana.seen_by(Viewer(name="mo", role=Role.READ))
    assert reader.operations() == [done]
    assert reader.operation(done.id) == done
    assert done.actor == "ana"


def test_four_at_a_time_and_a_hundred_are_remembered(queue: JobQueue, store: Held) -> None:
    fail(queue, 1)
    inspector = Inspector(queue)
    store.may_go.clear()
    running = [inspector.start("retry", "") for _ in range(4)]
    with pytest.raises(OptionInvalid, match="4 operations are running"):
        inspector.start("retry", "")
    store.may_go.set()
    for operation in running:
        ended(inspector, operation)
    for _ in range(100):
        ended(inspector, inspector.start("retry", ""))
    assert len(inspector.operations()) == 100
    assert inspector.operation(running[0].id) is None


@pytest.mark.parametrize(
    ("action", "query"), [("retry", "state:pending"), ("cancel", "error:x"), ("forget", "state:completed")]
)
def test_a_query_that_leaves_nothing_to_act_on_is_refused(queue: JobQueue, action: str, query: str) -> None:
    with pytest.raises(QueryInvalid, match="the query leaves none"):
        Inspector(queue).start(action, query)  # type: ignore[arg-type]


def test_an_unknown_action(queue: JobQueue) -> None:
    with pytest.raises(OptionInvalid, match="no operation"):
        Inspector(queue).start("explode", "")  # type: ignore[arg-type]


def test_a_preview_counts_and_shows_some(queue: JobQueue) -> None:
    fail(queue, 7)
    preview = Inspector(queue).preview("retry", "error:luck")
    assert preview.total == Count(7)
    assert len(preview.sample.jobs) == len(preview.sample.failures) == 5
    assert queue.stats().failed == 7
    assert Inspector(queue).preview("cancel", "").total == Count(0)


def test_what_comes_after_the_preview_is_not_met() -> None:
    clock = ManualClock()
    queue = failing(JobQueue(MemoryDriver(clock=clock)))
    fail(queue, 2)
    first, again = queue.failed_jobs()
    queue.later(60, "bad", {"n": 7})
    inspector = Inspector(queue)
    previews = inspector.preview("forget", ""), inspector.preview("cancel", "job:bad")
    clock.advance(1)
    queue.retry_failed(again.id)
    queue.work("odd", 1)
    fail(queue, 3)
    late = queue.later(60, "bad", {"n": 8})
    forgotten = ended(inspector, inspector.start("forget", "", at=previews[0].at))
    assert (forgotten.done, forgotten.refused) == (1, 0)
    assert queue.get(first.job_id) is None
    assert queue.stats().failed == 4
    assert ended(inspector, inspector.start("cancel", "job:bad", at=previews[1].at)).done == 1
    assert queue.cancel(late) is CancelAnswer.CANCELLED
    assert ended(inspector, inspector.start("forget", "")).done == 4, "and without a preview all are"


class Fleeting(MemoryDriver):
    """Shows a job once, and then pages with nothing in them, without end."""

    calls = 0

    def find(
        self, which: JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> JobPage:
        self.calls += 1
        page = super().find(which, limit=limit, chars_max=chars_max)
        return JobPage(jobs=page.jobs if self.calls == 1 else (), cursor="further down")


def test_a_preview_of_what_is_gone_meanwhile_ends() -> None:
    store = Fleeting()
    failing(JobQueue(store)).push("bad", {"n": 1})
    preview = Inspector(JobQueue(store)).preview("cancel", "data.n:1")
    assert (preview.total, preview.sample.jobs) == (Count(1, is_capped=True), ())
    assert store.calls <= 2 * PAGES_MAX + 1


def test_a_preview_looks_for_what_it_has_counted_no_longer_than_it_counted() -> None:
    class Hasty(ManualClock):
        def monotonic(self) -> float:
            self.advance(0.1)
            return super().monotonic()

    store = Fleeting()
    queue = JobQueue(store)
    failing(queue).push("bad", {"n": 1})
    queue.clock = Hasty()
    preview = Inspector(queue).preview("cancel", "data.n:1")
    assert (preview.total, preview.sample.jobs) == (Count(1, is_capped=True), ())
    assert store.calls < PAGES_MAX


def test_cancelling_asks_those_that_run(queue: JobQueue) -> None:
    answers: list[Operation] = []

    @job(name="long", queue="odd")
    def long() -> None:
        inspector = Inspector(queue)
        answers.append(ended(inspector, inspector.start("cancel", "job:long")))

    first = queue.push("long")
    queue.later(60, "long")
    queue.work("odd", 1)
    (operation,) = answers
    assert operation.done == 2
    assert queue.cancel(first) is CancelAnswer.FINISHED
