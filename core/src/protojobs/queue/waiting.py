"""Waiting for jobs: for their end and their result, or for each change.

The store is asked, again and again: nothing is registered there, so nothing can leak, and it works on every driver. Who
waits looks again after a tenth of the time that has passed: an answer comes a tenth late at most, or a millisecond, and
half a minute of waiting costs some ninety looks. One thread of the process looks for all who wait in it, up to a
thousand jobs in one call, and rests between two looks as long as the last one took.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING

from protojobs.clock import SYSTEM_CLOCK, within
from protojobs.errors import (
    JobHasFailed,
    JobMissing,
    JobUnfinished,
    JobWasCancelled,
    OptionInvalid,
    ProtojobsError,
    ResultNotKept,
    StoreUnavailable,
    WaitInsideJob,
    WaitTimeout,
    one_line,
    shown,
)
from protojobs.jobs.definition import Registry
from protojobs.jobs.results import result_of
from protojobs.logs import RUNNING
from protojobs.names import check_seconds
from protojobs.port.driver import Store
from protojobs.port.lifecycle import FINISHED, JobState
from protojobs.port.records import BATCH_JOBS_MAX, JobRecord
from protojobs.port.results import JobResult, Results
from protojobs.queue.coroutines import offload

if TYPE_CHECKING:
    import asyncio

__all__ = ["Waiting", "achanges", "changes", "look"]

PAUSE_MIN_S, PAUSE_MAX_S = 0.001, 1.0  # between two looks for one job
LATE_SHARE = 0.1  # of the time that has passed: when to look again
LOOK_S = 5.0  # for one look; who waits does not wait for it beyond the own timeout
IDLE_S = 5.0  # the thread ends when nobody has waited for so long
WATCH_MIN_S, WATCH_MAX_S = 0.05, 1.0  # between two looks of `watch`


def look(driver: Store, ids: Sequence[str]) -> dict[str, JobResult]:
    """How these jobs stand, by id. A store that keeps no results says no more than their states."""
    if isinstance(driver, Results) and driver.capabilities.results:
        return {found.id: found for found in driver.get_results(ids)}
    return {
        job.id: JobResult(
            id=job.id, job_name=job.job_name, state=job.status, reason=job.reason, ended_at=job.processed_at
        )
        for job in driver.get(ids)
    }


class Waiting:
    """Who waits for the end of jobs in one JobQueue. Thread-safe; in a forked child it starts afresh."""

    def __init__(self, driver: Store, registry: Registry) -> None:
        self._driver = driver
        self._registry = registry
        self._looker = _Looker(driver)

    def result(self, job_id: str) -> object:
        """The result as it stands now. Raises a NoResult where there is none."""
        found = look(self._driver, [_checked(job_id)]).get(job_id)
        if found is not None and found.state is JobState.COMPLETED and found.result is None:
            raise ResultNotKept(f"Job {job_id} has completed, and its result was not kept.")
        return self._value(job_id, found)

    def wait_for(self, job_id: str, timeout: float) -> object:
        """The result once the job has ended; None of one that keeps none. Raises WaitTimeout, or a NoResult."""
        waiter = _Waiter(_checked(job_id), event := threading.Event())
        seconds = _seconds(timeout)
        self._looker.add(waiter)
        try:
            has_ended = event.wait(seconds)
        finally:
            waiter.is_done = True
        return self._end(waiter, seconds, has_ended=has_ended)

    async def await_for(self, job_id: str, timeout: float) -> object:
        """`wait_for` for coroutines: no thread is held meanwhile."""
        import asyncio  # loaded already where a coroutine runs

        loop, event = asyncio.get_running_loop(), asyncio.Event()
        waiter = _Waiter(_checked(job_id), _LoopEvent(loop, event))
        seconds = _seconds(timeout)
        self._looker.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return self._end(waiter, seconds, has_ended=False)
        finally:
            waiter.is_done = True
        return self._end(waiter, seconds, has_ended=True)

    def _end(self, waiter: _Waiter, seconds: float, *, has_ended: bool) -> object:
        has_ended = has_ended or (waiter.found is not None and waiter.found.state in FINISHED)  # at the last moment
        if waiter.error is not None and (has_ended or waiter.found is None):
            if not has_ended:  # the store was away all the time
                raise WaitTimeout(
                    f"Job {waiter.job_id}: the store did not say within {seconds:g} s how it stands."
                ) from waiter.error
            raise waiter.error
        if not has_ended:
            state = f"it is {waiter.found.state}" if waiter.found is not None else "the store has not answered yet"
            raise WaitTimeout(f"Job {waiter.job_id} has not ended within {seconds:g} s: {state}.")
        return self._value(waiter.job_id, waiter.found)

    def _value(self, job_id: str, found: JobResult | None) -> object:
        if found is None:
            raise JobMissing(
                f"The store has no job {one_line(job_id)}.",
                mend="Was it pushed with session=, and not committed yet? Completed jobs are kept for"
                " `completed_job_retention` hours.",
            )
        match found.state:
            case JobState.COMPLETED:
                return None if found.result is None else result_of(found.result, self._registry.find(found.job_name))
            case JobState.FAILED:
                error = one_line(found.error, 500) or "no error was kept"
                raise JobHasFailed(f"Job {job_id} has failed: {error}", error=found.error)
            case JobState.CANCELLED:
                why = f": {one_line(found.reason, 500)}" if found.reason else "."
                raise JobWasCancelled(f"Job {job_id} was cancelled{why}", reason=found.reason or "")
            case _:
                raise JobUnfinished(f"Job {job_id} has not ended: it is {found.state}.", mend="Use wait_for.")


class _Waiter:
    """One who waits for one job."""

    __slots__ = ("began", "error", "event", "found", "is_done", "job_id")

    def __init__(self, job_id: str, event: threading.Event | _LoopEvent) -> None:
        self.job_id = job_id
        self.event = event
        self.began = SYSTEM_CLOCK.monotonic()
        self.is_done = False
        self.found: JobResult | None = None  # at the last look
        self.error: ProtojobsError | None = None  # of the last look

    def next_look(self, now: float, took_s: float) -> float:
        pause = min((now - self.began) * LATE_SHARE, PAUSE_MAX_S)
        return now + max(pause, PAUSE_MIN_S, took_s)


class _LoopEvent:
    """An asyncio.Event that another thread sets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
        self._loop, self._event = loop, event

    def set(self) -> None:
        """Set it, if its loop still runs."""
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
            return


class _Looker:
    """The thread that looks, while somebody waits."""

    def __init__(self, driver: Store) -> None:
        self._driver = driver
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiters: list[tuple[float, int, _Waiter]] = []  # a heap, by when to look
        self._numbers = itertools.count()
        self._is_running = False

    def add(self, waiter: _Waiter) -> None:
        """Look for it from now on, until it is done."""
        if self._pid != os.getpid():  # the thread is the parent's, and so is whatever it may have locked
            self._start_afresh()
        with self._changed:
            heapq.heappush(self._waiters, (waiter.began, next(self._numbers), waiter))
            if self._is_running:
                self._changed.notify()
                return
            self._is_running = True
        threading.Thread(target=self._run, name="protojobs-results", daemon=True).start()

    def _run(self) -> None:
        while (waiters := self._due()) is not None:
            self._look(waiters)

    def _due(self) -> list[_Waiter] | None:
        """Wait for the next ones to look for; None when nobody has waited for a while."""
        with self._changed:
            while True:
                while self._waiters and self._waiters[0][2].is_done:
                    heapq.heappop(self._waiters)
                if not self._waiters:
                    if not self._changed.wait(IDLE_S) and not self._waiters:
                        self._is_running = False
                        return None
                    continue
                wait_s = self._waiters[0][0] - SYSTEM_CLOCK.monotonic()
                if wait_s <= 0:
                    return self._pop_due()
                self._changed.wait(wait_s)

    def _pop_due(self) -> list[_Waiter]:
        now, due, ids = SYSTEM_CLOCK.monotonic(), list[_Waiter](), set[str]()
        while self._waiters and self._waiters[0][0] <= now and len(ids) < BATCH_JOBS_MAX:
            waiter = heapq.heappop(self._waiters)[2]
            if not waiter.is_done:
                due.append(waiter)
                ids.add(waiter.job_id)
        return due

    def _look(self, waiters: Sequence[_Waiter]) -> None:
        began = SYSTEM_CLOCK.monotonic()
        found, error = dict[str, JobResult](), None
        try:
            with within(LOOK_S):
                found = look(self._driver, list({waiter.job_id for waiter in waiters}))
        except ProtojobsError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001  (a driver that lets a foreign exception out: it must not end the thread)
            error = ProtojobsError(f"The store could not be asked: {type(raised).__name__}: {one_line(str(raised))}")
        now = SYSTEM_CLOCK.monotonic()
        with self._changed:
            for waiter in waiters:
                waiter.error = error
                if error is None:
                    waiter.found = found.get(waiter.job_id)
                if self._has_answer(waiter):
                    waiter.is_done = True
                    waiter.event.set()
                else:
                    place = (waiter.next_look(now, now - began), next(self._numbers), waiter)
                    heapq.heappush(self._waiters, place)

    def _has_answer(self, waiter: _Waiter) -> bool:
        """An outage is sat out; every other error is the answer, and so is a job that is not there."""
        if waiter.error is not None:
            return not isinstance(waiter.error, StoreUnavailable)
        return waiter.found is None or waiter.found.state in FINISHED


def changes(driver: Store, job_id: str, timeout: float | None) -> Iterator[JobRecord]:
    """The job as it stands, and again after each change, until it has ended or the time is over."""
    watch = _Watch(job_id, timeout)
    while True:
        try:
            found = driver.get([job_id])
        except StoreUnavailable:
            found = None
        if (job := watch.changed(found)) is not None:
            yield job
        if (pause := watch.pause()) is None:
            return
        SYSTEM_CLOCK.sleep(pause)


async def achanges(driver: Store, job_id: str, timeout: float | None) -> AsyncIterator[JobRecord]:
    """`changes` for coroutines."""
    import asyncio  # loaded already where a coroutine runs

    watch = _Watch(job_id, timeout)
    while True:
        try:
            found = await offload(driver.get, [job_id])
        except StoreUnavailable:
            found = None
        if (job := watch.changed(found)) is not None:
            yield job
        if (pause := watch.pause()) is None:
            return
        await asyncio.sleep(pause)


class _Watch:
    """What a `watch` has seen so far."""

    def __init__(self, job_id: str, timeout: float | None) -> None:
        self._job_id = _checked(job_id)
        seconds = None if timeout is None else _seconds(timeout)
        self._ends_at = None if seconds is None else SYSTEM_CLOCK.monotonic() + seconds
        self._seen: JobRecord | None = None
        self._is_over = False
        self._pause = WATCH_MIN_S

    def changed(self, found: Sequence[JobRecord] | None) -> JobRecord | None:
        """The job, if it is not as it was. `found` is None while the store is away."""
        self._pause = min(2 * self._pause, WATCH_MAX_S)
        if found is None:
            return None
        if not found:
            if self._seen is None:
                raise JobMissing(f"The store has no job {one_line(self._job_id)}.")
            self._is_over = True  # it was pruned or cleared meanwhile
            return None
        (job,) = found
        self._is_over = job.status in FINISHED
        if job == self._seen:
            return None
        self._seen, self._pause = job, WATCH_MIN_S
        return job

    def pause(self) -> float | None:
        """Seconds until the next look; None when it is over."""
        if self._is_over:
            return None
        if self._ends_at is None:
            return self._pause
        left = self._ends_at - SYSTEM_CLOCK.monotonic()
        return min(self._pause, left) if left > 0 else None


def _checked(job_id: object) -> str:
    if isinstance(job_id, str):
        return job_id
    raise OptionInvalid(f"{shown(job_id)} is no id of a job.", mend="Give what push has returned.")


def _seconds(timeout: object) -> float:
    if (running := RUNNING.get()) is not None:
        raise WaitInsideJob(
            f"Job {running.id} ({running.job_name}) wants to wait for another one while it runs: where all slots do"
            " that, nobody is left to run what they wait for.",
            mend="Ask for what comes next by ctx.then(...), and hand over what it needs.",
        )
    return check_seconds("timeout", timeout, maximum=86_400.0)
