"""Executors run what they are given, report each run once, and end one from outside without touching another."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType

import pytest

from protojobs.clock import SYSTEM_CLOCK
from protojobs.interrupts import Interrupted
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, Settlement
from protojobs.testing import ManualClock
from protojobs.worker.lease.validity import LeaseValidity
from protojobs.worker.outcome import Outcome
from protojobs.worker.runs import timeouts
from protojobs.worker.runs.event_loop import AsyncExecutor
from protojobs.worker.runs.executor import NOT_BEGUN, Executor, NotBegun
from protojobs.worker.runs.threads import ThreadExecutor
from protojobs.worker.runs.timeouts import SWEEP_S, Timeouts


def outcome(name: str, verb: Verb) -> Outcome:
    now = SYSTEM_CLOCK.now()
    claimed = ClaimedJob(
        id=name, claim_seq=1, reserved_by="w", queue="q", job_name="j", job_class="j", data="{}", priority=0,
        attempts=1, max_retries=0, retry_delay=0, retry_policy=None, timeout=0, available_at=now, reserved_at=now,
        crashes=0, returns=0, reclaims=0,
    )  # fmt: skip
    return Outcome(claimed=claimed, settlement=Settlement(id=name, claim_seq=1, reserved_by="w", verb=verb))


class Fake:
    """A run whose body is the test's."""

    def __init__(
        self, name: str, body: Callable[[], object], *, is_async: bool = False, is_short: bool = False
    ) -> None:
        self.key, self.cut_by, self.is_async, self.exclusive_holder = (name, 1), "", is_async, ""
        self.name, self.body = name, body
        self.claimed = outcome(name, Verb.COMPLETE).claimed
        self.told, self.begins_by = False, 1e12 if is_short else math.inf
        self.began_at, self.timeout = -math.inf, 0.0

    def execute(self) -> Outcome | None:
        self.body()
        return outcome(self.name, Verb.COMPLETE)

    async def aexecute(self) -> Outcome | None:
        self.body()
        await asyncio.sleep(60)
        return outcome(self.name, Verb.COMPLETE)

    def tell_stopping(self) -> None: ...

    def tell_cancelled(self) -> None:
        self.told = True

    def cut(self, where: TracebackType | None = None, *, ended: bool = True, exit_bound: float = 0.0) -> Outcome | None:
        return outcome(self.name, Verb.RELEASE)


class Reported:
    def __init__(self) -> None:
        self.inbox: SimpleQueue[tuple[tuple[str, int], Outcome | NotBegun | None]] = SimpleQueue()

    def __call__(self, key: tuple[str, int], result: Outcome | NotBegun | None) -> None:
        self.inbox.put((key, result))

    def next(self) -> tuple[str, Verb]:
        (name, _), result = self.inbox.get(timeout=5)
        assert isinstance(result, Outcome)
        return name, result.settlement.verb


@pytest.fixture
def reported() -> Reported:
    return Reported()


@pytest.fixture
def threads(reported: Reported) -> Iterator[ThreadExecutor]:
    executor = ThreadExecutor(1, reported)
    yield executor
    executor.close()


@pytest.fixture
def loop(reported: Reported) -> Iterator[AsyncExecutor]:
    executor = AsyncExecutor(5, reported)
    yield executor
    executor.close()


def spin() -> None:
    while True:
        time.sleep(0.001)


def interrupt(executor: Executor, run: Fake) -> None:
    run.cut_by = "timeout"
    executor.interrupt(run)


class TestThreads:
    def test_a_run_is_ended_from_outside_and_the_next_has_a_fresh_thread(
        self, threads: ThreadExecutor, reported: Reported
    ) -> None:
        started = threading.Event()
        idents: list[int] = []

        def body() -> None:
            started.set()
            spin()

        first = Fake("first", body)
        threads.start(first)
        assert started.wait(5)
        interrupt(threads, first)
        assert reported.next() == ("first", Verb.RELEASE)
        threads.start(Fake("second", lambda: idents.append(threading.get_ident())))
        assert reported.next() == ("second", Verb.COMPLETE)

    def test_a_run_that_is_cut_while_it_waits_for_its_thread_never_begins(
        self, threads: ThreadExecutor, reported: Reported
    ) -> None:
        may_go, ran = threading.Event(), threading.Event()
        first, second = Fake("first", lambda: may_go.wait(5)), Fake("second", ran.set)
        threads.start(first)
        threads.start(second)
        interrupt(threads, second)
        may_go.set()
        assert [reported.next(), reported.next()] == [("first", Verb.COMPLETE), ("second", Verb.RELEASE)]
        assert not ran.is_set()

    def test_to_interrupt_a_run_that_has_ended_harms_nobody(self, threads: ThreadExecutor, reported: Reported) -> None:
        first = Fake("first", lambda: None)
        threads.start(first)
        assert reported.next() == ("first", Verb.COMPLETE)
        interrupt(threads, first)
        threads.start(Fake("second", lambda: time.sleep(0.01)))
        assert reported.next() == ("second", Verb.COMPLETE)

    def test_an_interrupt_at_any_moment_of_a_run_is_reported_once_and_strikes_no_other(self) -> None:
        reported = Reported()
        threads = ThreadExecutor(1, reported)
        for number in range(300):
            run = Fake(f"run-{number}", lambda: sum(range(200)))
            threads.start(run)
            for _ in range(number % 30):
                pass
            interrupt(threads, run)
            assert reported.next()[0] == f"run-{number}"
            after = Fake(f"after-{number}", lambda: sum(range(200)))
            threads.start(after)
            assert reported.next() == (f"after-{number}", Verb.COMPLETE)
        assert reported.inbox.empty()
        threads.close()

    def test_a_run_that_swallows_its_end_keeps_its_own_result_and_its_thread_retires(
        self, threads: ThreadExecutor, reported: Reported
    ) -> None:
        started = threading.Event()

        def deaf() -> None:
            try:
                started.set()
                spin()
            except Interrupted:
                pass

        first = Fake("first", deaf)
        threads.start(first)
        assert started.wait(5)
        interrupt(threads, first)
        assert reported.next() == ("first", Verb.COMPLETE)
        threads.start(Fake("second", lambda: None))
        assert reported.next() == ("second", Verb.COMPLETE)

    def test_no_more_threads_than_slots_are_made(self, reported: Reported) -> None:
        threads = ThreadExecutor(3, reported)
        names: set[str] = set()
        for number in range(50):
            threads.start(Fake(str(number), lambda: names.add(str(threading.get_ident()))))
        for _ in range(50):
            reported.next()
        assert len(names) <= 3
        threads.close()


class TestWithdrawing:
    """What lies ready in front of the threads can be taken back until one of them has begun it."""

    class Held:
        """The only thread is busy with `first` until it is let go."""

        def __init__(self, threads: ThreadExecutor) -> None:
            self.started, self.may_go = threading.Event(), threading.Event()
            self.run = Fake("first", self._hold)
            threads.start(self.run)
            assert self.started.wait(5)

        def _hold(self) -> None:
            self.started.set()
            while not self.may_go.is_set():
                time.sleep(0.001)

    @pytest.fixture
    def held(self, threads: ThreadExecutor) -> Iterator[Held]:
        made = self.Held(threads)
        yield made
        made.may_go.set()

    def test_those_that_were_not_begun_never_run_and_are_never_reported(
        self, threads: ThreadExecutor, reported: Reported, held: Held
    ) -> None:
        ran: list[str] = []
        for name in ("a", "b", "c", "d"):
            threads.start(Fake(name, lambda name=name: ran.append(name)))
        wanted = [("d", 1), ("first", 1), ("unknown", 1), ("a", 1), ("b", 1)]
        assert threads.withdraw(wanted) == [("a", 1), ("b", 1), ("d", 1)]  # as they were handed over
        assert threads.withdraw(wanted) == []
        held.may_go.set()
        assert [reported.next(), reported.next()] == [("first", Verb.COMPLETE), ("c", Verb.COMPLETE)]
        threads.start(Fake("last", lambda: None))
        assert reported.next() == ("last", Verb.COMPLETE)
        assert (ran, reported.inbox.empty()) == (["c"], True)

    def test_one_that_is_handed_over_again_runs_as_what_it_is_now(
        self, threads: ThreadExecutor, reported: Reported, held: Held
    ) -> None:
        """Under its old key: the object of the first time still stands in the line, and no deadline knows it."""
        ran: list[str] = []
        threads.start(Fake("again", lambda: ran.append("old")))
        assert threads.withdraw([("again", 1)]) == [("again", 1)]
        threads.start(Fake("again", lambda: ran.append("new")))
        held.may_go.set()
        assert [reported.next(), reported.next()] == [("first", Verb.COMPLETE), ("again", Verb.COMPLETE)]
        threads.start(Fake("last", lambda: None))
        assert reported.next() == ("last", Verb.COMPLETE)
        assert ran == ["new"]

    @pytest.mark.parametrize("is_short", [False, True])
    def test_each_is_either_run_or_taken_back_whoever_is_quicker(self, reported: Reported, is_short: bool) -> None:
        threads, ran, taken = ThreadExecutor(2, reported), list[str](), list[str]()
        for number in range(1_000):
            threads.start(Fake(str(number), lambda number=number: ran.append(str(number)), is_short=is_short))
            if number % 3 == 0:
                taken += [name for name, _ in threads.withdraw([(str(n), 1) for n in range(number + 1)])]
        told = [reported.next()[0] for _ in range(1_000 - len(taken))]
        assert sorted(told) == sorted(ran)
        assert sorted(ran + taken) == sorted(map(str, range(1_000)))
        threads.close()

    def test_one_that_is_overdue_is_reported_as_not_begun_even_if_somebody_wanted_to_end_it(
        self, threads: ThreadExecutor, reported: Reported, held: Held
    ) -> None:
        ran = threading.Event()
        for name, cut_by in (("late", ""), ("later", "timeout")):
            late = Fake(name, ran.set)
            late.begins_by, late.cut_by = 0.0, cut_by
            threads.start(late)
        held.may_go.set()
        assert reported.next() == ("first", Verb.COMPLETE)
        assert [reported.inbox.get(timeout=5) for _ in range(2)] == [
            (("late", 1), NOT_BEGUN),
            (("later", 1), NOT_BEGUN),  # a timeout counts as an attempt, and this one was none
        ]
        assert not ran.is_set()

    @pytest.mark.parametrize("how", ["interrupted", "exit"])
    def test_what_lies_ready_behind_a_run_that_takes_its_thread_with_it_runs_all_the_same(
        self, threads: ThreadExecutor, reported: Reported, how: str
    ) -> None:
        started, may_go = threading.Event(), threading.Event()

        def body() -> None:
            started.set()
            while how == "interrupted" or not may_go.is_set():
                time.sleep(0.001)
            raise SystemExit

        first = Fake("first", body)
        threads.start(first)
        assert started.wait(5)
        for name in ("second", "third"):
            threads.start(Fake(name, lambda: None))
        may_go.set()
        if how == "interrupted":
            interrupt(threads, first)
        assert reported.next() == ("first", Verb.RELEASE)
        assert [reported.next(), reported.next()] == [("second", Verb.COMPLETE), ("third", Verb.COMPLETE)]

    def test_the_thread_that_takes_over_does_so_when_the_other_has_ended_and_not_before(
        self, threads: ThreadExecutor, reported: Reported
    ) -> None:
        """Else more would run at once than there are slots."""
        started, cleaning, may_end, overlapped = (threading.Event() for _ in range(4))

        def body() -> None:
            started.set()
            try:
                spin()
            finally:
                cleaning.set()
                may_end.wait(5)

        first = Fake("first", body)
        threads.start(first)
        assert started.wait(5)
        threads.start(Fake("second", lambda: None if may_end.is_set() else overlapped.set()))
        interrupt(threads, first)
        assert cleaning.wait(5)
        threads.start(Fake("third", lambda: None if may_end.is_set() else overlapped.set()))
        assert not overlapped.wait(0.1)
        may_end.set()
        told = [reported.next() for _ in range(3)]
        assert told == [("first", Verb.RELEASE), ("second", Verb.COMPLETE), ("third", Verb.COMPLETE)]

    def test_beside_one_that_was_given_up_the_next_has_a_thread(
        self, threads: ThreadExecutor, reported: Reported
    ) -> None:
        started, may_end = threading.Event(), threading.Event()

        def body() -> None:
            try:
                started.set()
                spin()
            finally:
                may_end.wait(5)

        first = Fake("first", body)
        threads.start(first)
        assert started.wait(5)
        interrupt(threads, first)
        threads.give_up()
        threads.start(Fake("second", lambda: None))
        assert reported.next() == ("second", Verb.COMPLETE)
        may_end.set()
        assert reported.next() == ("first", Verb.RELEASE)

    def test_what_lies_ready_when_the_worker_ends_does_not_begin(
        self,
        threads: ThreadExecutor,
        reported: Reported,
        held: Held,
        eventually: Callable[[Callable[[], object]], None],
    ) -> None:
        """Nobody is there any more to store its result."""
        ran = threading.Event()
        threads.start(Fake("second", ran.set))
        (slot,) = threads._slots
        threads.close()
        held.may_go.set()
        eventually(lambda: not slot._thread.is_alive())
        assert reported.next() == ("first", Verb.COMPLETE)
        assert not ran.is_set()


class TestInterruptsThatAreLost:
    """Python drops an exception that strikes in a `__del__`, and a bare `except:` swallows it."""

    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timeouts, "SWEEP_S", 0.002)

    @pytest.fixture
    def deadlines(self) -> Iterator[tuple[Timeouts, list[object]]]:
        stuck: list[object] = []
        table = Timeouts(SYSTEM_CLOCK, LeaseValidity(60.0), stuck.append)
        yield table, stuck
        table.close()

    def test_a_run_that_has_swallowed_one_is_ended_by_the_next(
        self, threads: ThreadExecutor, reported: Reported, deadlines: tuple[Timeouts, list[object]]
    ) -> None:
        swallowed: list[BaseException] = []
        has_begun = threading.Event()

        def body() -> None:
            try:
                has_begun.set()
                spin()
            except BaseException as error:
                swallowed.append(error)
            spin()

        run = Fake("run", body)
        threads.start(run)
        assert has_begun.wait(30)  # one that has not begun is not interrupted
        deadlines[0].add(run, threads, 0.01)
        assert reported.next() == ("run", Verb.RELEASE)
        assert [type(error) for error in swallowed] == [Interrupted]
        assert deadlines[1] == []

    def test_a_run_that_cleans_up_is_left_to_it(
        self, threads: ThreadExecutor, reported: Reported, deadlines: tuple[Timeouts, list[object]]
    ) -> None:
        cleaned: list[int] = []
        has_begun = threading.Event()

        def body() -> None:
            try:
                has_begun.set()
                spin()
            finally:
                for turn in range(100):  # fifty sweeps and more
                    time.sleep(0.002)
                    with suppress(KeyError):  # one exception that is handled hides the other
                        cleaned.append({}[turn])
                cleaned.append(1)

        run = Fake("run", body)
        threads.start(run)
        assert has_begun.wait(30)
        deadlines[0].add(run, threads, 0.01)
        assert reported.next() == ("run", Verb.RELEASE)
        assert (cleaned, deadlines[1]) == ([1], [])


PROFILED = """
import sys
from protojobs import JobQueue, job
from protojobs_memory import MemoryDriver

@job(name="long", timeout=0.1, max_retries=0)
def long() -> None:
    while True:
        pass

@job(name="deaf", timeout=0.1, max_retries=0)
def deaf() -> None:
    try:
        while True:
            pass
    except BaseException:
        pass

queue = JobQueue(MemoryDriver())
queue.push(long)
queue.push(deaf)
assert queue.work("default", 2).runs == 2
sys.setprofile(lambda *_: None)
len(list(map(lambda number: number + 1, range(100))))
sys.setprofile(None)
print("went on")
"""


def test_where_runs_were_interrupted_a_profiler_can_be_set() -> None:
    ran = subprocess.run([sys.executable, "-c", PROFILED], timeout=30, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "went on\n"), ran.stderr


class TestShortRuns:
    """Few threads take them, and more as soon as those do not keep up."""

    @pytest.fixture
    def eight(self, reported: Reported) -> Iterator[ThreadExecutor]:
        executor = ThreadExecutor(8, reported)
        yield executor
        executor.close()

    @pytest.mark.parametrize(
        ("busy", "each_s", "cores", "is_helped"),
        [
            (2, 0.00025, 0.1, True),  # 0.5 ms each, waiting for something outside
            (7, 0.00003, 0.3, True),
            (2, 0.00003, 0.3, False),
            (2, 0.00003, 1.0, False),  # they wait for the interpreter's lock
            (7, 0.00005, 1.4, False),
            (2, 0.0003, 1.0, True),  # or they are not so short
            (2, 0.002, 2.0, True),  # nothing was taken
        ],
    )
    def test_one_more_helps_only_where_that_helps(
        self, eight: ThreadExecutor, busy: int, each_s: float, cores: float, is_helped: bool
    ) -> None:
        eight._width = 5
        assert eight._helps(busy, each_s, cores) is is_helped
        assert eight._width == (4 if cores >= 1 and not is_helped else 5)

    def test_those_behind_runs_that_do_not_end_run_all_the_same(
        self, eight: ThreadExecutor, reported: Reported
    ) -> None:
        may_go = threading.Event()
        for number in range(7):
            eight.start(Fake(f"held-{number}", lambda: may_go.wait(30), is_short=True))
        for number in range(50):
            eight.start(Fake(f"short-{number}", lambda: None, is_short=True))
        told = [reported.next()[0] for _ in range(50)]
        assert sorted(told) == sorted(f"short-{number}" for number in range(50))
        may_go.set()
        assert sorted(reported.next()[0] for _ in range(7)) == [f"held-{number}" for number in range(7)]

    def test_as_many_run_at_once_as_there_are_slots_if_that_is_what_they_need(
        self, eight: ThreadExecutor, reported: Reported
    ) -> None:
        together = threading.Barrier(8)
        for number in range(16):
            eight.start(Fake(str(number), lambda: together.wait(10), is_short=True))
        assert {reported.next()[1] for _ in range(16)} == {Verb.COMPLETE}

    def test_those_that_look_on_follow_each_other_until_every_slot_is_busy(
        self, eight: ThreadExecutor, reported: Reported
    ) -> None:
        """Also where there is no idle thread yet."""
        may_go, begun = threading.Event(), SimpleQueue[None]()

        def hold() -> None:
            begun.put(None)
            may_go.wait(30)

        for number in range(20):
            eight.start(Fake(str(number), hold, is_short=True))
        for _ in range(8):
            begun.get(timeout=10)
        may_go.set()
        assert len({reported.next()[0] for _ in range(20)}) == 20

    def test_one_that_is_not_short_begins_beside_them_at_once(self, eight: ThreadExecutor, reported: Reported) -> None:
        may_go, began = threading.Event(), threading.Event()
        for number in range(4):
            eight.start(Fake(str(number), lambda: may_go.wait(10), is_short=True))
        eight.start(Fake("long", began.set))
        assert began.wait(5)
        may_go.set()
        assert len({reported.next()[0] for _ in range(5)}) == 5

    def test_whatever_comes_whenever_each_runs_once(self, eight: ThreadExecutor, reported: Reported) -> None:
        """Bursts of every size with pauses between them, so that threads go idle and are called at any moment."""
        ran: list[int] = []
        sizes = [1, 2, 3, 9, 40, 1, 1, 200, 5] * 40
        number = 0
        for size in sizes:
            for _ in range(size):
                eight.start(Fake(str(number), lambda number=number: ran.append(number), is_short=number % 7 > 0))
                number += 1
            if size < 4:
                for _ in range(number - len(ran)):
                    reported.inbox.get(timeout=5)
        while len(ran) < number:
            reported.inbox.get(timeout=5)
        assert sorted(ran) == list(range(number))

    def test_threads_that_are_interrupted_are_replaced_whoever_looks_on(
        self, eight: ThreadExecutor, reported: Reported
    ) -> None:
        begun: SimpleQueue[None] = SimpleQueue()

        def body() -> None:
            begun.put(None)
            spin()

        spinning = [Fake(f"spin-{number}", body, is_short=True) for number in range(8)]
        for run in spinning:
            eight.start(run)
        for _ in spinning:
            begun.get(timeout=10)
        for number in range(20):
            eight.start(Fake(str(number), lambda: None, is_short=True))
        for run in spinning:
            interrupt(eight, run)
        told = [reported.next() for _ in range(28)]
        assert sum(verb is Verb.RELEASE for _, verb in told) == 8


class TestLoop:
    def test_a_task_is_cancelled_from_outside(self, loop: AsyncExecutor, reported: Reported) -> None:
        started = threading.Event()
        run = Fake("first", started.set, is_async=True)
        loop.start(run)
        assert started.wait(5)
        interrupt(loop, run)
        assert reported.next() == ("first", Verb.RELEASE)

    def test_one_that_is_cancelled_before_its_first_step_is_reported_too(
        self, loop: AsyncExecutor, reported: Reported
    ) -> None:
        entered, may_go, ran = threading.Event(), threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            may_go.wait(5)

        holding = Fake("holding", hold, is_async=True)
        late = Fake("late", ran.set, is_async=True)
        loop.start(holding)
        assert entered.wait(5)
        loop.start(late)
        interrupt(loop, late)  # both arrive while the loop is held up: the task is cancelled as soon as it is made
        may_go.set()
        assert reported.next() == ("late", Verb.RELEASE)
        assert not ran.is_set()

    def test_what_has_not_begun_when_it_closes_never_does(
        self, reported: Reported, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        executor = AsyncExecutor(5, reported)
        entered, may_go, ran = threading.Event(), threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            may_go.wait(5)

        executor.start(Fake("holding", hold, is_async=True))
        assert entered.wait(5)
        executor.start(Fake("late", ran.set, is_async=True))
        executor.close()
        may_go.set()
        eventually(lambda: not executor._where.thread.is_alive())
        assert not ran.is_set()

    def test_the_thread_ends_with_it_and_cancels_what_still_runs(
        self, reported: Reported, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        executor, begun = AsyncExecutor(5, reported), threading.Event()
        executor.start(Fake("endless", begun.set, is_async=True))
        assert begun.wait(5)
        executor.close()
        eventually(lambda: not executor._where.thread.is_alive())
        other = AsyncExecutor(5, reported)
        assert other._where is not executor._where
        other.close()

    def test_the_loop_stays_where_all_has_ended(self, reported: Reported) -> None:
        executor = AsyncExecutor(5, reported)
        executor.start(run := Fake("first", lambda: None, is_async=True))
        interrupt(executor, run)
        assert reported.next() == ("first", Verb.RELEASE)
        executor.close()
        other = AsyncExecutor(5, reported)
        assert other._where is executor._where
        other.close()

    def test_a_loop_that_is_held_up_serves_no_further_worker_and_stays_for_those_that_it_has(
        self, reported: Reported, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        first, entered, may_go = AsyncExecutor(5, reported), threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            may_go.wait(20)

        first.start(holding := Fake("holding", hold, is_async=True))
        assert entered.wait(5)
        second, begun = AsyncExecutor(5, reported), threading.Event()
        second.start(other := Fake("other", begun.set, is_async=True))
        assert begun.wait(5)
        may_go.set()
        for executor, run in ((second, other), (first, holding)):
            interrupt(executor, run)
            assert reported.next() == (run.name, Verb.RELEASE)
        first.close()
        eventually(lambda: not first._where.thread.is_alive())
        assert second._where.thread.is_alive()
        second.close()

    def test_no_more_run_at_once_than_it_has_room_for(self, reported: Reported) -> None:
        executor, begun = AsyncExecutor(1, reported), SimpleQueue[str]()
        first, back, second = (
            Fake(name, lambda name=name: begun.put(name), is_async=True) for name in ("first", "back", "second")
        )
        for run in (first, back, second):
            executor.start(run)
        assert begun.get(timeout=5) == "first"
        assert executor.withdraw([first.key, back.key]) == [back.key]  # the first has begun
        for run in (second, first):
            interrupt(executor, run)
            assert reported.next() == (run.name, Verb.RELEASE)
        assert begun.empty()  # the second lay ready, and was told to end before there was room
        executor.start(third := Fake("third", lambda: begun.put("third"), is_async=True))
        assert begun.get(timeout=5) == "third"
        interrupt(executor, third)
        assert reported.next() == ("third", Verb.RELEASE)
        executor.close()

    def test_one_that_lay_ready_for_too_long_goes_back_unrun(self, loop: AsyncExecutor, reported: Reported) -> None:
        ran = threading.Event()
        late = Fake("late", ran.set, is_async=True)
        late.begins_by = -math.inf
        loop.start(late)
        assert reported.inbox.get(timeout=5) == (late.key, NOT_BEGUN)
        assert not ran.is_set()

    def test_a_task_that_does_not_end_keeps_no_place_once_it_is_given_up(self, reported: Reported) -> None:
        executor, begun, told = AsyncExecutor(1, reported), SimpleQueue[str](), threading.Event()

        class Deaf(Fake):
            async def aexecute(self) -> Outcome | None:
                begun.put("deaf")
                try:
                    await asyncio.sleep(60)
                finally:
                    told.set()
                    await asyncio.sleep(60)

        deaf, other = (
            Deaf("deaf", lambda: None, is_async=True),
            Fake("other", lambda: begun.put("other"), is_async=True),
        )
        executor.start(deaf)
        assert begun.get(timeout=5) == "deaf"
        interrupt(executor, deaf)
        assert told.wait(5)
        executor.start(other)
        executor.give_up()
        assert begun.get(timeout=5) == "other"
        interrupt(executor, other)
        assert reported.next() == ("other", Verb.RELEASE)
        executor.close()


class TestDeadlines:
    class Recorder:
        keeps_time = False

        def interrupt_again(self, run: object) -> None: ...

        def __init__(self) -> None:
            self.interrupted: list[object] = []

        def start(self, run: object) -> None: ...
        def interrupt(self, run: object) -> None:
            self.interrupted.append(run)

        def close(self) -> None: ...

    def test_a_run_is_interrupted_once_when_its_time_is_over_and_called_stuck_once_if_it_stays(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        stuck: list[object] = []
        deadlines, executor = Timeouts(clock, LeaseValidity(60.0), stuck.append), self.Recorder()
        run, other = Fake("run", spin), Fake("other", spin)
        deadlines.add(run, executor, 5.0)
        deadlines.add(other, executor, 0)
        clock.advance(5.0)
        eventually(lambda: executor.interrupted == [run])
        assert run.cut_by == "timeout"
        clock.advance(1.9)
        assert stuck == []
        clock.advance(0.2)
        eventually(lambda: stuck == [run])
        assert (executor.interrupted, other.cut_by) == ([run], "")
        deadlines.close()

    def test_a_run_that_ended_in_time_is_forgotten(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        stuck: list[object] = []
        deadlines, executor = Timeouts(clock, LeaseValidity(60.0), stuck.append), self.Recorder()
        run, later = Fake("run", spin), Fake("later", spin)
        deadlines.add(run, executor, 5.0)
        deadlines.add(later, executor, 6.0)
        deadlines.remove(run.key)
        clock.advance(7.0)
        eventually(lambda: executor.interrupted == [later])
        deadlines.close()

    def test_cancel_stops_async_runs_and_only_tells_plain_ones(self, clock: ManualClock) -> None:
        deadlines, executor = Timeouts(clock, LeaseValidity(60.0), lambda run: None), self.Recorder()
        plain, waiting = Fake("plain", spin), Fake("waiting", spin, is_async=True)
        for run in (plain, waiting):
            deadlines.add(run, executor, 0)
            deadlines.cancel(run.key)
        deadlines.cancel(("unknown", 1))
        assert executor.interrupted == [waiting]
        assert (plain.told, waiting.told, plain.cut_by, waiting.cut_by) == (True, True, "", "cancel")
        deadlines.close()

    def exclusive(self, name: str, holder: str = "w") -> Fake:
        run = Fake(name, spin)
        run.exclusive_holder = holder
        return run

    def test_an_exclusive_run_ends_two_thirds_of_a_lease_after_the_last_good_beat_and_no_other_does(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        standing, stuck = LeaseValidity(60.0), list[object]()
        standing.good_beat("w", 0.0)
        deadlines, executor = Timeouts(clock, standing, stuck.append), self.Recorder()
        run, other = self.exclusive("run"), Fake("other", spin)
        deadlines.add(other, executor, 0)
        deadlines.add(run, executor, 0)
        clock.advance(30.0)
        standing.good_beat("w", 25.0)
        clock.advance(34.9)  # 39.9 s after that beat
        time.sleep(3 * SWEEP_S)
        assert executor.interrupted == []
        clock.advance(0.2)
        eventually(lambda: executor.interrupted == [run])
        assert (run.cut_by, other.cut_by) == ("lease in doubt", "")
        standing.good_beat("w", 65.0)  # too late for a run that was told to end
        clock.advance(2.1)
        eventually(lambda: stuck == [run])
        assert executor.interrupted == [run]
        deadlines.close()

    def test_after_a_freeze_it_is_cut_at_once_if_the_lease_may_have_ended(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        standing = LeaseValidity(60.0)
        standing.good_beat("w", 0.0)
        deadlines, executor = Timeouts(clock, standing, lambda run: None), self.Recorder()
        run = self.exclusive("run")
        deadlines.add(run, executor, 0)
        clock.advance(3600.0)
        eventually(lambda: executor.interrupted == [run])
        deadlines.close()

    def test_the_lease_of_one_identity_says_nothing_of_the_runs_of_another(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        standing = LeaseValidity(60.0)
        standing.good_beat("first", 0.0)
        deadlines, executor = Timeouts(clock, standing, lambda run: None), self.Recorder()
        old, new = self.exclusive("old", "first"), self.exclusive("new", "second")
        deadlines.add(old, executor, 0)
        standing.lost("first")
        standing.good_beat("second", 0.0)
        deadlines.add(new, executor, 0)
        standing.good_beat("first", 0.0)  # an answer that was long under way
        eventually(lambda: executor.interrupted == [old])
        time.sleep(3 * SWEEP_S)
        assert new.cut_by == ""
        deadlines.close()

    def test_where_the_lease_is_short_a_run_has_less_time_to_end(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        standing, stuck = LeaseValidity(6.0), list[object]()
        standing.good_beat("w", 0.0)
        deadlines, executor = Timeouts(clock, standing, stuck.append), self.Recorder()
        run = self.exclusive("run")
        deadlines.add(run, executor, 0)
        clock.advance(4.0)
        eventually(lambda: executor.interrupted == [run])
        clock.advance(1.0)  # 5 s: a sixth of the lease later, and well before its end
        eventually(lambda: stuck == [run])
        deadlines.close()

    def test_a_run_that_has_ended_is_forgotten_whatever_becomes_of_the_lease(self, clock: ManualClock) -> None:
        standing = LeaseValidity(60.0)
        standing.good_beat("w", 0.0)
        deadlines, executor = Timeouts(clock, standing, lambda run: None), self.Recorder()
        run = self.exclusive("run")
        deadlines.add(run, executor, 0)
        deadlines.remove(run.key)
        clock.advance(3600.0)
        time.sleep(3 * SWEEP_S)
        assert executor.interrupted == []
        deadlines.close()

    def test_the_longest_that_is_left_of_any_run(self, clock: ManualClock) -> None:
        deadlines, executor = Timeouts(clock, LeaseValidity(60.0), lambda run: None), self.Recorder()
        assert deadlines.left_s(clock.monotonic()) == 0
        for name, timeout in (("a", 60.0), ("b", 300.0)):
            deadlines.add(Fake(name, spin), executor, timeout)
        clock.advance(100.0)
        assert deadlines.left_s(clock.monotonic()) == 200
        deadlines.remove(("b", 1))
        assert deadlines.left_s(clock.monotonic()) == 0  # the other has outlasted its time
        deadlines.add(Fake("endless", spin), executor, 0)
        assert deadlines.left_s(clock.monotonic()) == math.inf
        deadlines.close()

    def test_an_executor_that_keeps_the_time_itself_is_asked_to_end_only_what_others_want_ended(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        stuck: list[object] = []
        deadlines, executor = Timeouts(clock, LeaseValidity(60.0), stuck.append), self.Recorder()
        executor.keeps_time = True
        own, here = Fake("own", spin), self.Recorder()
        deadlines.add(own, executor, 5.0)
        deadlines.add(other := Fake("other", spin), here, 5.0)
        clock.advance(50.0)
        eventually(lambda: here.interrupted == [other])
        assert own.cut_by == ""
        deadlines.cut([own.key], "shutdown")
        assert (executor.interrupted, own.cut_by) == ([own], "shutdown")
        clock.advance(2.1)
        eventually(lambda: own in stuck)
        deadlines.close()

    def test_a_run_that_has_the_key_of_one_that_was_cut_is_another(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        stuck: list[object] = []
        deadlines, executor = Timeouts(clock, LeaseValidity(60.0), stuck.append), self.Recorder()
        first, second = Fake("same", spin), Fake("same", spin)
        deadlines.add(first, executor, 5.0)
        deadlines.cut([first.key], "shutdown")
        deadlines.remove(first.key)
        deadlines.add(second, executor, 5.0)
        clock.advance(4.0)
        time.sleep(3 * SWEEP_S)
        assert (second.cut_by, stuck) == ("", [])
        clock.advance(1.0)
        eventually(lambda: executor.interrupted == [first, second])
        assert stuck == []
        deadlines.close()

    def test_a_run_that_comes_and_goes_while_the_sweeper_lies_down_does_not_leave_it_asleep(
        self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        deadlines, executor = Timeouts(clock, LeaseValidity(60.0), lambda run: None), self.Recorder()
        lies_down, met = deadlines._has_work.clear, threading.Event()

        def clear() -> None:
            if not met.is_set():
                met.set()
                deadlines.add(passing := Fake("passing", spin), executor, 60.0)
                deadlines.remove(passing.key)
            lies_down()

        monkeypatch.setattr(deadlines._has_work, "clear", clear)
        deadlines.add(first := Fake("first", spin), executor, 60.0)
        deadlines.remove(first.key)
        assert met.wait(5)
        deadlines.add(run := Fake("run", spin), executor, 5.0)
        clock.advance(5.0)
        eventually(lambda: executor.interrupted == [run])
        deadlines.close()

    def test_one_without_an_end_does_not_keep_it_sweeping(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        deadlines, executor = Timeouts(clock, LeaseValidity(60.0), lambda run: None), self.Recorder()
        deadlines.add(Fake("endless", spin), executor, 0)
        deadlines.add(short := Fake("short", spin), executor, 5.0)
        deadlines.remove(short.key)
        eventually(lambda: not deadlines._is_sweeping)
        deadlines.add(late := Fake("late", spin), executor, 5.0)
        clock.advance(5.0)
        eventually(lambda: executor.interrupted == [late])
        deadlines.close()

    def test_one_that_ends_while_another_is_told_to_be_stuck_is_not_and_whoever_has_its_key_now_is_watched(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        stuck: list[object] = []
        again = Fake("second", spin)

        def told(run: object) -> None:
            stuck.append(run)
            deadlines.remove(again.key)  # the second ends at this very moment, and its job runs again
            deadlines.add(again, executor, 60.0)

        deadlines, executor = Timeouts(clock, LeaseValidity(60.0), told), self.Recorder()
        first, second = Fake("first", spin), Fake("second", spin)
        for run in (first, second):
            deadlines.add(run, executor, 5.0)
        deadlines.cut(None, "shutdown")
        clock.advance(2.1)
        eventually(lambda: stuck == [first])
        clock.advance(60.0)
        eventually(lambda: executor.interrupted == [first, second, again])
        assert stuck == [first]
        assert deadlines.has_another(second)
        assert not deadlines.has_another(again)
        deadlines.close()
