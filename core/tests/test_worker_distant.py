"""A store that takes its time to answer: what there is to do is done meanwhile, and nothing of it is lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from protojobs import JobQueue, job
from protojobs.port.records import ClaimReply, Settlement
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
Eventually = Callable[[Callable[[], object]], None]
Working = Callable[..., AbstractContextManager[Any]]

KNOWN = 60  # runs after which jobs are known to be short, and some are fetched ahead
MANY = 1_000


class Distant(MemoryDriver):
    """Settles and claims, and answers a claim when it may."""

    def __init__(self, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.under_way = 0
        self.most_under_way = 0
        self.results: list[int] = []
        self.brought: list[int] = []  # numbers of the jobs in the answer that it may not give

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.results.append(len(settlements))
        reply = super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)
        if reply.claimed and not self.may_answer.is_set():
            self.brought = [json.loads(claim.data)["number"] for claim in reply.claimed]
            assert self.may_answer.wait(20)
        self.under_way -= 1
        return reply


class Short:
    """Jobs that are short; one of them shuts the door of the store behind it."""

    def __init__(self, store: Distant) -> None:
        self.ran: list[int] = []

        @job(name="short", timeout=0, max_retries=1)
        def short(number: int) -> None:
            time.sleep(0.002)
            if number == KNOWN:
                store.may_answer.clear()
            self.ran.append(number)

        self.job = short

    def push(self, queue: JobQueue, count: int) -> None:
        queue.push_many([self.job.bind(number) for number in range(count)])


@pytest.fixture
def store(clock: ManualClock) -> Iterator[Distant]:
    made = Distant(clock=clock)
    yield made
    made.may_answer.set()


@pytest.fixture
def short(store: Distant) -> Short:
    return Short(store)


def test_jobs_that_were_fetched_ahead_run_while_the_store_takes_its_time(
    make_queue: MakeQueue, store: Distant, short: Short, working: Working, eventually: Eventually
) -> None:
    queue = make_queue(store, concurrency=2)
    short.push(queue, MANY)
    with working(queue) as found:
        eventually(lambda: store.brought)
        ran = len(short.ran)
        eventually(lambda: len(short.ran) >= ran + 4)  # more than there are slots: their places were taken anew
        store.may_answer.set()
        eventually(lambda: queue.stats().completed == MANY)
    assert sorted(short.ran) == list(range(MANY))
    assert (found.report.done, found.report.late) == (MANY, 0)


def test_one_call_is_under_way_at_a_time(
    make_queue: MakeQueue, store: Distant, short: Short, working: Working, eventually: Eventually
) -> None:
    queue = make_queue(store, concurrency=4)
    short.push(queue, KNOWN)
    with working(queue):
        eventually(lambda: queue.stats().completed == KNOWN)
    assert store.most_under_way == 1
    assert sum(store.results) == KNOWN, "each result was sent once"


def test_a_stop_does_not_wait_for_an_answer_beyond_its_bound(
    make_queue: MakeQueue, store: Distant, short: Short, working: Working, eventually: Eventually
) -> None:
    queue = make_queue(store, concurrency=2, shutdown_grace=0.2, exit_bound=0.3, lease=30.0)
    short.push(queue, MANY)
    with working(queue) as found:
        eventually(lambda: store.brought)
        eventually(lambda: len(short.ran) > KNOWN + 2)
        began = time.monotonic()
        found.token.stop()
        eventually(lambda: found.report is not None)
        assert time.monotonic() - began < 2.0
    assert found.report.reason == "stopped"
    assert len(store.workers()) == 1, "what the call has brought meanwhile is not said to be free: its lease ends"


def test_what_a_lost_lease_had_brought_does_not_run(
    make_queue: MakeQueue, store: Distant, short: Short, working: Working, eventually: Eventually
) -> None:
    queue = make_queue(store, concurrency=2, lease=1.2)
    short.push(queue, MANY)
    with working(queue):
        eventually(lambda: store.brought)
        (worker,) = [row.id for row in store.workers()]
        store.leave(worker)
        store.reclaim(1_000)
        eventually(lambda: {row.id for row in store.workers()} not in (set(), {worker}))  # it has become a new one
        store.may_answer.set()
        eventually(lambda: queue.stats().completed == MANY)
    assert set(short.ran) == set(range(MANY))
    assert {short.ran.count(number) for number in store.brought} == {1}
