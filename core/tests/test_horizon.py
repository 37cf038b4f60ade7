"""What a worker says of how long its runs may go on, so that somebody else can beat for it meanwhile."""

from __future__ import annotations

import importlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from protojobs import JobQueue, job
from protojobs.testing import ManualClock
from protojobs.worker.handover import HANDOVER_WAIT_S
from protojobs.worker.launch import work
from protojobs.worker.lease.longest_run import ReportedRunBound

BEAT_S = 10.0


@pytest.fixture
def said() -> list[float]:
    return []


class Runs:
    """The table of deadlines, as far as the horizon looks at it: when each run is to be over."""

    def __init__(self) -> None:
        self.ends: dict[str, float] = {}

    def left_s(self, now: float) -> float:
        return max([0.0, *(end - now for end in self.ends.values())])


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def horizon(clock: ManualClock, said: list[float], runs: Runs) -> ReportedRunBound:
    made = ReportedRunBound(clock, BEAT_S, said.append)
    made.look_at(runs.left_s)
    return made


class TestWhatIsSaid:
    def test_nothing_runs(self, horizon: ReportedRunBound, said: list[float]) -> None:
        horizon.beat()
        assert said == [0.0]

    def test_the_longest_of_what_is_left_counts(
        self, horizon: ReportedRunBound, said: list[float], clock: ManualClock, runs: Runs
    ) -> None:
        horizon.begins(300.0)
        runs.ends = {"a": 60.0, "b": 300.0}
        horizon.begun()
        horizon.beat()
        clock.advance(100)
        horizon.beat()
        assert said[-1] == 200 + BEAT_S  # a beat's time more: see below
        del runs.ends["b"]
        horizon.beat()
        assert said[-1] == 0  # the other has outlasted its time already

    def test_without_a_timeout_there_is_no_end(
        self, horizon: ReportedRunBound, said: list[float], clock: ManualClock, runs: Runs
    ) -> None:
        horizon.begins(math.inf)
        runs.ends = {"a": math.inf}
        horizon.begun()
        clock.advance(1e6)
        horizon.beat()
        horizon.beat()
        assert said == [math.inf, math.inf, math.inf]
        runs.ends.clear()
        horizon.beat()
        assert said[-1] == 0

    def test_what_is_about_to_begin_counts_until_it_is_in_the_table_however_long_that_takes(
        self, horizon: ReportedRunBound, said: list[float], runs: Runs
    ) -> None:
        """To hand over many jobs may take longer than a beat: a plugin decrypts each of them, say."""
        horizon.beat()
        horizon.begins(60.0)
        horizon.beat()
        horizon.beat()
        assert said == [0, 60 + BEAT_S, 60 + BEAT_S, 60 + BEAT_S]
        runs.ends = {"a": 30.0}
        horizon.begun()
        horizon.beat()
        horizon.beat()
        assert said[-1] == 30 + BEAT_S

    def test_it_is_said_before_a_run_begins_that_outlasts_what_was_said(
        self, horizon: ReportedRunBound, said: list[float], clock: ManualClock
    ) -> None:
        horizon.beat()
        horizon.begins(60.0)
        assert said == [0, 60 + BEAT_S]
        clock.advance(1)
        horizon.begins(61.0)
        assert said == [0, 60 + BEAT_S]  # 62 is within 70
        horizon.begins(120.0)
        assert said == [0, 60 + BEAT_S, 120 + BEAT_S]

    def test_many_short_runs_cost_one_word_a_beat(
        self, horizon: ReportedRunBound, said: list[float], clock: ManualClock, runs: Runs
    ) -> None:
        for _ in range(5):
            horizon.beat()
            for _ in range(10):
                covered = clock.monotonic() + said[-1] if said else 0.0
                horizon.begins(60.0)
                assert max(covered, clock.monotonic() + said[-1]) >= clock.monotonic() + 60
                runs.ends = {"short": clock.monotonic() + 60}
                horizon.begun()
                clock.advance(BEAT_S / 10)
                runs.ends.clear()
        assert said == [0.0, *[60 + BEAT_S] * 5]
        horizon.beat()
        horizon.beat()
        assert said[-1] == 0


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The jobs of process_jobs.py, which a child process can import."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    module = sys.modules.get("process_jobs")
    return importlib.import_module("process_jobs") if module is None else importlib.reload(module)


Told = tuple[str, float, float]


class TestAWorker:
    """Tells it to whoever asked `work` for it."""

    def work(self, queue: JobQueue) -> list[Told]:
        words: list[Told] = []
        work(queue.runtime, ends_when_empty=True, told=lambda *word: words.append(word))
        return words

    def test_before_the_run_begins(self, make_queue: Callable[..., JobQueue]) -> None:
        seen: list[list[Told]] = []
        words: list[Told] = []

        @job(name="look", timeout=500)
        def look() -> None:
            seen.append(list(words))

        queue = make_queue(lease=60)
        queue.push(look.bind())
        work(queue.runtime, ends_when_empty=True, told=lambda *word: words.append(word))
        ((first, second),) = seen
        assert first[1:] == (60, 0)
        assert second[1:] == (60, 500 + HANDOVER_WAIT_S + BEAT_S)
        assert first[0] == second[0]

    def test_of_async_runs_too(self, make_queue: Callable[..., JobQueue]) -> None:
        @job(name="nap", timeout=400)
        async def nap() -> None: ...

        queue = make_queue(lease=60)
        queue.push(nap.bind())
        assert [lasts_s for _, _, lasts_s in self.work(queue)] == [0, 400 + HANDOVER_WAIT_S + BEAT_S]

    @pytest.mark.skipif(sys.platform == "win32", reason="child processes are for POSIX systems")
    def test_of_runs_in_child_processes_too(self, make_queue: Callable[..., JobQueue], jobs: ModuleType) -> None:
        queue = make_queue(lease=60, executor="process")
        queue.push(jobs.add.with_timeout(300).bind(1, 2))
        assert [lasts_s for _, _, lasts_s in self.work(queue)] == [0, 300 + HANDOVER_WAIT_S + BEAT_S]

    def test_and_with_each_beat(self, make_queue: Callable[..., JobQueue]) -> None:
        words: list[Told] = []

        @job(name="wait", timeout=0)
        def wait() -> None:
            until, ends = len(words) + 2, time.monotonic() + 25
            while len(words) < until and time.monotonic() < ends:
                time.sleep(0.01)

        queue = make_queue(lease=1)
        queue.push(wait.bind())
        work(queue.runtime, ends_when_empty=True, told=lambda *word: words.append(word))
        assert [lasts_s for _, _, lasts_s in words[:4]] == [0, math.inf, math.inf, math.inf]
