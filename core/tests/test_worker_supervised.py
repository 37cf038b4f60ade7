"""Threads of the worker: what raises where nothing should neither ends one of them silently nor takes a slot along."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from protojobs import Discard, JobQueue, job
from protojobs.worker import wakeup
from protojobs.worker.lease import maintenance
from protojobs.worker.outcome import Outcome
from protojobs.worker.runs.run import Run
from protojobs_memory import MemoryDriver

Eventually = Callable[[Callable[[], object]], None]
Working = Callable[..., AbstractContextManager[Any]]


def on(driver: MemoryDriver, **settings: object) -> JobQueue:
    return JobQueue(driver, {"poll_interval": 0.02, "concurrency": 1, **settings})


class Unprintable:
    def __str__(self) -> str:
        raise ValueError


class Untraceable(Exception):
    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        raise TypeError


class TestSlots:
    """One slot only: if it were lost, nothing would run any more."""

    def test_what_cannot_be_told_of_a_run_leaves_its_slot_to_the_next(
        self, working: Working, eventually: Eventually
    ) -> None:
        @job(name="discarded", timeout=0)
        def discarded() -> Discard:
            return Discard(Unprintable())  # type: ignore[arg-type]

        @job(name="raised", timeout=0, max_retries=0)
        def raised() -> None:
            raise Untraceable

        @job(name="plain", timeout=0)
        def plain() -> None: ...

        store = MemoryDriver()
        queue = on(store)
        ids = [queue.push(bound) for bound in (discarded.bind(), raised.bind(), plain.bind())]
        with working(queue):
            eventually(lambda: store.get(ids)[2].status == "completed")
        first, second, _ = store.get(ids)
        assert (first.status, second.status) == ("cancelled", "failed")
        assert "Unprintable whose text cannot be had" in first.reason
        (failed,) = store.failed(limit=10).jobs
        assert "Untraceable" in failed.exception

    @pytest.mark.parametrize("kind", ["thread", "async"])
    def test_a_run_whose_end_cannot_be_judged_at_all_goes_back_and_is_told(
        self,
        working: Working,
        eventually: Eventually,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        kind: str,
    ) -> None:
        judge, seen = Run.returned, []

        def misjudged(run: Run, result: object) -> Outcome:
            seen.append(run.key)
            if len(seen) == 1:
                raise TypeError("a mistake of ours")
            return judge(run, result)

        monkeypatch.setattr(Run, "returned", misjudged)

        @job(name="plain", timeout=0)
        def plain() -> None: ...

        @job(name="on_the_loop", timeout=0)
        async def on_the_loop() -> None: ...

        store = MemoryDriver()
        queue = on(store)
        job_id = queue.push(plain.bind() if kind == "thread" else on_the_loop.bind())
        with working(queue), caplog.at_level(logging.ERROR):
            eventually(lambda: store.get([job_id])[0].status == "completed")
        assert seen == [(job_id, 1), (job_id, 2)]
        assert "a mistake of ours" in caplog.text

    def test_a_task_that_a_job_left_behind_and_that_exits_does_not_end_the_event_loop(
        self, working: Working, eventually: Eventually, caplog: pytest.LogCaptureFixture
    ) -> None:
        tasks: list[asyncio.Task[None]] = []
        may_exit = threading.Event()

        async def leave() -> None:
            while not may_exit.is_set():
                await asyncio.sleep(0.001)
            sys.exit("enough")

        @job(name="careless", timeout=0)
        async def careless() -> None:
            tasks.append(asyncio.create_task(leave()))

        @job(name="next", timeout=0)
        async def following() -> None:
            await asyncio.sleep(0.001)

        store = MemoryDriver()
        queue = on(store)
        first = queue.push(careless.bind())
        with working(queue):
            eventually(lambda: store.get([first])[0].status == "completed")
            may_exit.set()
            eventually(lambda: "wanted to end it" in caplog.text)
            second = queue.push(following.bind())
            eventually(lambda: store.get([second])[0].status == "completed")


class Mistaken(MemoryDriver):
    """Raises what no driver should, in one verb, `times` times."""

    def __init__(self, verb: str, times: int = 1) -> None:
        super().__init__()
        self.verb, self.left, self.hit = verb, times, 0
        original = getattr(self, verb)

        def mistaken(*arguments: object, **options: object) -> object:
            if self.left:
                self.left -= 1
                self.hit += 1
                raise TypeError(f"a mistake in {verb}")
            return original(*arguments, **options)

        setattr(self, verb, mistaken)


class TestDriversMistakes:
    @pytest.mark.parametrize("verb", ["wait", "heartbeat", "reclaim", "held", "prune"])
    def test_beside_the_claim_loop_is_logged_and_the_worker_goes_on(
        self,
        working: Working,
        eventually: Eventually,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        verb: str,
    ) -> None:
        monkeypatch.setattr(maintenance, "COMPARE_EVERY_S", 0.01)
        monkeypatch.setattr(maintenance, "PRUNE_EVERY_S", 0.01)
        monkeypatch.setattr(wakeup, "LISTEN_S", 0.05)

        @job(name="plain", timeout=0)
        def plain() -> None: ...

        store = Mistaken(verb)
        queue = on(store, lease=1.0)
        with working(queue) as worker:
            eventually(lambda: store.hit)
            job_id = queue.push(plain.bind())
            eventually(lambda: store.get([job_id])[0].status == "completed")
            assert worker.thread.is_alive()
            eventually(lambda: f"a mistake in {verb}" in caplog.text)

    def test_in_the_claim_loop_ends_the_worker_with_that_error_and_not_silently(self) -> None:
        with pytest.raises(TypeError, match="a mistake in settle_and_claim"):
            on(Mistaken("settle_and_claim")).work("default", 1)
