"""What a job costs, counted where noise cannot move it: calls of the interpreter, and round trips to the store."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

import pytest

from protojobs import Job, JobQueue, job
from protojobs.port.records import ClaimReply, Enqueued, NewJob, Settlement
from protojobs_memory import MemoryDriver

JOBS = 2_000
# Calls of Python functions of core for one short job that succeeds, from its claim to its settlement, in all threads of
# the worker; those of the store are not counted. 26 in fact. The rest is for what a run of them cannot decide: how many
# jobs each turn of the claim loop finds.
CALLS_MAX = 42  # 12 of them since a run has a context of its own, is looked at for a fork, and keeps nothing
ASYNC_CALLS_MAX = 38  # the same for one on the event loop; calls of asyncio itself are not counted
PUSH_CALLS_MAX = 33  # of core, for one push; 30 in fact
BULK_CALLS_MAX = 15  # of core, for each job of a push_many; 13 or 14 in fact
BULK_RECORD_CALLS_MAX = 27  # the same for a record of three fields; 26 in fact
# Each trip settles and claims for 200 jobs where there are as many; the first ones are smaller, until runs have told
# how short the jobs are.
TRIPS_MAX = JOBS // 200 + 12


class Counting(MemoryDriver):
    """Counts the round trips that a store elsewhere would cost."""

    def __init__(self) -> None:
        super().__init__()
        self.trips: Counter[str] = Counter()

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        self.trips["enqueue"] += 1
        return super().enqueue(jobs)

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        self.trips["turn"] += 1
        return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)


class CallsOfCore:
    """Counts calls of functions in core's modules, in this thread and in those that begin in the block."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> CallsOfCore:
        threading.setprofile(self._seen)
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]

    def _seen(self, frame: FrameType, what: str, _argument: object) -> None:
        if what == "call" and frame.f_globals.get("__name__", "").startswith("protojobs."):
            self.calls[f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}"] += 1

    @property
    def total(self) -> int:
        return sum(self.calls.values())


@pytest.fixture
def queue() -> JobQueue:
    @job(name="short")
    def short() -> None: ...

    return JobQueue(Counting(), {"concurrency": 4})


def trips_of(queue: JobQueue) -> Counter[str]:
    assert isinstance(queue.driver, Counting)
    return queue.driver.trips


def test_a_short_job_costs_few_calls_and_a_share_of_a_round_trip(queue: JobQueue) -> None:
    queue.push_many([("short", {})] * JOBS)
    with CallsOfCore() as counted:
        assert queue.work(max_jobs=JOBS).done == JOBS
    dearest = {name: round(calls / JOBS, 2) for name, calls in counted.calls.most_common(45)}
    assert counted.total / JOBS <= CALLS_MAX, dearest
    assert trips_of(queue)["turn"] <= TRIPS_MAX


def test_an_async_job_costs_no_more_calls_of_ours() -> None:
    @job(name="short")
    async def short() -> None: ...

    queue = JobQueue(Counting(), {"concurrency": 100})
    queue.push_many([("short", {})] * JOBS)
    with CallsOfCore() as counted:
        assert queue.work(max_jobs=JOBS).done == JOBS
    dearest = {name: round(calls / JOBS, 2) for name, calls in counted.calls.most_common(45)}
    assert counted.total / JOBS <= ASYNC_CALLS_MAX, dearest


def test_a_push_is_one_round_trip_and_few_calls(queue: JobQueue) -> None:
    queue.push("short")  # the first one loads the plugins, and reads the function's annotations
    with CallsOfCore() as counted:
        for _ in range(100):
            queue.push("short")
    assert counted.total / 100 <= PUSH_CALLS_MAX, counted.calls.most_common(45)
    assert trips_of(queue)["enqueue"] == 101


def test_many_are_pushed_in_chunks(queue: JobQueue) -> None:
    queue.push_many(("short", {}) for _ in range(3_200))
    assert trips_of(queue)["enqueue"] == 4


def test_each_of_many_costs_fewer_calls_than_a_push(queue: JobQueue) -> None:
    @job(name="greet")
    def greet(name: str, times: int) -> None: ...

    @dataclass
    class Letter:
        to: str
        pages: int
        price: float

    class Send(Job[Letter]):
        name = "send"

        def handle(self, data: Letter) -> None: ...

    forms: list[tuple[Callable[[int], object], int]] = [
        (lambda _: ("short", {}), BULK_CALLS_MAX),
        (lambda n: (greet, {"name": "Jo", "times": n}), BULK_CALLS_MAX),
        (lambda n: greet.bind("Jo", times=n), BULK_CALLS_MAX),
        (lambda n: (Send, Letter("Jo", n, 0.85)), BULK_RECORD_CALLS_MAX),
    ]
    for made, calls_max in forms:
        queue.push_many([made(0)])  # annotations are read, the decoder is made
        with CallsOfCore() as counted:
            queue.push_many(made(n) for n in range(1_000))
        assert counted.total / 1_000 <= calls_max, counted.calls.most_common(20)
