"""Listening to what happens: `on`, `off`, and what an event knows."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from protojobs import Job, JobQueue, events, job
from protojobs.errors import OptionInvalid
from protojobs.events import EVENTS, Event, JobFailed, JobQueued, JobRetrying
from protojobs.testing import ManualClock


def test_on_works_as_a_call_and_returns_the_listener_unchanged() -> None:
    seen: list[Event] = []
    listener = seen.append
    assert events.on("job.failed", listener) is listener
    assert events.listeners("job.failed") == (listener,)


def test_on_works_as_a_decorator_and_returns_the_function_unchanged() -> None:
    def tell(event: Event) -> None: ...

    assert events.on("job.failed")(tell) is tell
    assert events.listeners("job.failed") == (tell,)


def test_off_undoes_on_and_passes_over_what_is_not_registered() -> None:
    def tell(event: Event) -> None: ...

    events.on("job.failed", tell)
    events.off("job.failed", tell)
    events.off("job.failed", tell)
    events.off("no.such.event", tell)
    assert events.listeners("job.failed") == ()


def test_listeners_are_called_in_the_order_of_registration(queue: JobQueue) -> None:
    class Plain(Job):
        name = "plain"

        def handle(self, data: object) -> None: ...

    order: list[int] = []
    for number in range(3):
        events.on("job.queued", lambda event, number=number: order.append(number))
    queue.push(Plain)
    assert order == [0, 1, 2]


def test_an_unknown_event_is_refused_with_a_suggestion() -> None:
    with pytest.raises(OptionInvalid, match=r'Did you mean "job\.failed"'):
        events.on("job.faild", print)
    with pytest.raises(OptionInvalid, match=r"Known: .*job\.queued"):
        events.on("xyzzy", print)


def test_async_listeners_and_what_cannot_be_called_are_refused() -> None:
    async def tell(event: Event) -> None: ...

    with pytest.raises(OptionInvalid, match="plain function"):
        events.on("job.failed", tell)
    with pytest.raises(OptionInvalid, match="plain function"):
        events.on("job.failed", 3)  # type: ignore[call-overload]  # what an unchecked caller may pass
    assert events.listeners("job.failed") == ()


def test_get_reads_a_field_by_name_as_documented_and_nothing_else() -> None:
    event = JobFailed(job_id="1", job_name="mail", job_class="shop.Mail", queue="emails", attempt=4, error="boom")
    assert (event.get("job_class"), event.get("error"), event.get("attempt")) == ("shop.Mail", "boom", 4)
    assert (event.get("missing"), event.get("missing", 7), event.get("__class__")) == (None, 7, None)


def test_every_documented_event_is_there_and_named_as_its_class_says() -> None:
    assert {"job.queuing", "job.queued", "job.processing", "job.processed", "job.failed"} <= set(EVENTS)
    assert {"worker.starting", "worker.stopped", "worker.memory_exceeded", "worker.degraded"} <= set(EVENTS)
    assert all(kind.event_name == name for name, kind in EVENTS.items())


def test_pushing_tells_queuing_before_and_queued_after_the_job_is_stored(queue: JobQueue) -> None:
    class Plain(Job):
        name = "plain"

        def handle(self, data: object) -> None: ...

    totals: list[tuple[str, int]] = []
    for name in ("job.queuing", "job.queued"):
        events.on(name, lambda event: totals.append((event.event_name, queue.stats().total)))
    queue.push(Plain)
    assert totals == [("job.queuing", 0), ("job.queued", 1)]


def test_a_push_sent_again_says_of_which_job_it_is_the_duplicate(queue: JobQueue) -> None:
    class Plain(Job):
        name = "plain"

        def handle(self, data: object) -> None: ...

    seen: list[JobQueued] = []
    events.on("job.queued", seen.append)
    first = queue.push(Plain)
    queue.push(Plain, id=first)
    assert [event.duplicate_of for event in seen] == [None, first]


def test_a_run_says_how_long_its_job_was_due_and_how_long_it_took_however_it_ended(
    make_queue: Callable[..., JobQueue], clock: ManualClock, heard: Callable[..., list[Event]]
) -> None:
    queue = make_queue(retry_delay=10.0, concurrency=1)
    found = heard("job.processing", "job.retrying", "job.failed")

    @job(name="broken", max_retries=1)
    def broken() -> None:
        threading.Event().wait(0.01)
        raise ValueError

    queue.later(60, broken)
    clock.advance(63)
    queue.work("default", 1)
    clock.advance(14)
    queue.work("default", 1)
    first, retrying, second, failed = found
    assert isinstance(retrying, JobRetrying)
    assert isinstance(failed, JobFailed)
    assert first.get("wait_s") == 3.0
    assert retrying.available_at is not None
    assert second.get("wait_s") == (clock.now() - retrying.available_at).total_seconds()
    assert min(retrying.duration_s, failed.duration_s) >= 0.01
