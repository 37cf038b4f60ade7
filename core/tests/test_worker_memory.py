"""An idle worker keeps nothing of the jobs that it has run: neither their results, nor their locals, nor their data."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from protojobs import JobQueue, job
from protojobs.events import Event, JobFailed

Working = Callable[..., AbstractContextManager[object]]
Eventually = Callable[[Callable[[], object]], None]


class Large:
    """What a job works on."""


@pytest.mark.parametrize("ends", ["with a result", "with an exception"])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_job_returned_or_held_is_gone_while_the_worker_waits(
    queue: JobQueue, working: Working, eventually: Eventually, ends: str, is_async: bool
) -> None:
    held: list[weakref.ref[Large]] = []

    def body() -> object:
        large = Large()
        held.append(weakref.ref(large))
        if ends == "with an exception":
            raise ValueError("boom")
        return large

    @job(name="plain", max_retries=0)
    def plain() -> object:
        return body()

    @job(name="async", max_retries=0)
    async def on_the_loop() -> object:
        return body()

    queue.push((on_the_loop if is_async else plain).bind())
    with working(queue, "default"):
        eventually(lambda: queue.stats().pending + queue.stats().processing == 0)
        eventually(lambda: gc.collect() >= 0 and held[0]() is None)


def test_an_exception_that_an_observer_keeps_holds_no_locals(
    queue: JobQueue, heard: Callable[..., list[Event]]
) -> None:
    held: list[weakref.ref[Large]] = []
    failed = heard("job.failed")

    @job(name="fails", max_retries=0)
    def fails() -> None:
        large = Large()
        held.append(weakref.ref(large))
        try:
            {}["key"]  # type: ignore[index]
        except KeyError as error:
            raise ValueError("boom") from error

    queue.push(fails.bind())
    queue.work("default", 1)
    gc.collect()
    assert held[0]() is None
    (event,) = failed
    assert isinstance(event, JobFailed)
    assert str(event.exception) == "boom"
    assert event.exception is not None
    assert event.exception.__traceback__ is not None
