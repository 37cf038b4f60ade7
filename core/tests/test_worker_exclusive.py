"""Exclusive jobs: a run is ended before its worker's lease can have ended, and its neighbours go on."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from protojobs import BoundJob, Job, JobQueue, job
from protojobs.errors import OptionInvalid, StoreUnavailable
from protojobs.events import Event
from protojobs.port.records import ClaimReply, Fence, Heartbeat, JobRecord, Settlement, WorkerInfo
from protojobs.worker import planner
from protojobs.worker.runs import timeouts
from protojobs.worker.runs.children import pool
from protojobs_memory import MemoryDriver

Working = Callable[..., AbstractContextManager[Any]]
Heard = Callable[..., list[Event]]
Logged = pytest.LogCaptureFixture

HERE = Path(__file__).parent
LEASE_S = 4.0  # a run is cut after 2.7 s, and has 1.3 s to end, on a busy machine too
AWAY_S = 2 * LEASE_S  # a call hangs for so long before it fails
CALLS = ("heartbeat", "settle_and_claim")
WAIT_S = 20.0  # for what is only a matter of the machine: a child that starts, a result that is stored
KINDS = ["in_thread", "in_loop", "in_child", "deaf_in_child"]


@pytest.fixture(autouse=True)
def _short_pauses_and_slow_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "PAUSE_FIRST_S", 0.01)
    monkeypatch.setattr(planner, "PAUSE_MAX_S", 0.05)
    monkeypatch.setattr(pool, "KILL_S", 1.9)  # too long for this lease: it is the lease that must decide


class Store(MemoryDriver):
    """A store some of whose calls hang while it is away, or all of them fail at once.

    `last_good_at`: when the last good beat was sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last_good_at = 0.0
        self.is_unreachable = False
        self._hangs: Sequence[str] = ()
        self._is_back = threading.Event()

    def go_away(self, *verbs: str) -> float:
        """From now on these calls hang. Answers when the lease ends."""
        self._is_back = threading.Event()
        self._hangs = verbs
        return self.last_good_at + LEASE_S

    def come_back(self) -> None:
        self._hangs = ()
        self._is_back.set()

    def register(self, worker: WorkerInfo) -> None:
        self.last_good_at = time.monotonic()
        super().register(worker)

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
        sent_at = time.monotonic()
        self._knock("heartbeat")
        reply = super().heartbeat(worker, progress)
        self.last_good_at = sent_at
        return reply

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        self._knock("settle_and_claim")
        return super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)

    def _knock(self, verb: str) -> None:
        if self.is_unreachable or (verb in self._hangs and not self._is_back.wait(AWAY_S)):
            raise StoreUnavailable("the cable is cut")


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.come_back()


@pytest.fixture
def queue(store: Store) -> JobQueue:
    return JobQueue(store, {"poll_interval": 0.01, "concurrency": 3, "lease": LEASE_S})


class Story:
    """The jobs of exclusive_jobs.py, and what they have told in their folder."""

    def __init__(self, folder: Path) -> None:
        name = "exclusive_jobs"
        self.jobs = importlib.reload(sys.modules[name]) if name in sys.modules else importlib.import_module(name)
        self._folder = folder

    def job(self, kind: str) -> BoundJob:
        bound: BoundJob = getattr(self.jobs, kind).bind(str(self._folder))
        return bound

    def go(self) -> None:
        (self._folder / "go").touch()

    def has_started(self, name: str) -> bool:
        return self._pid(name) > 0

    def has_ended(self, name: str) -> bool:
        """By its own `finally`, or by the death of its process."""
        pid = self._pid(name)
        return (self._folder / f"{name}-ended").exists() or (pid > 0 and pid != os.getpid() and not _is_alive(pid))

    def _pid(self, name: str) -> int:
        told = self._folder / f"{name}-started"
        text = told.read_text() if told.exists() else ""
        return int(text) if text.endswith("\n") else 0


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    monkeypatch.syspath_prepend(str(HERE))
    made = Story(tmp_path)
    yield made
    made.go()


def begin(story: Story, queue: JobQueue, kind: str) -> tuple[str, str]:
    """Push both, for a worker that is there. Answers their ids once they run."""
    ids = queue.push(story.job(kind)), queue.push(story.job("ordinary"))
    until(lambda: story.has_started("exclusive") and story.has_started("ordinary"), time.monotonic() + WAIT_S)
    return ids


def until(condition: Callable[[], object], moment: float) -> None:
    """Return as soon as it holds; fail at that moment of the monotonic clock."""
    while not condition():
        assert time.monotonic() < moment, "this did not happen in time"
        time.sleep(0.002)


class TestWhileTheStoreIsAway:
    @pytest.mark.parametrize("kind", KINDS)
    def test_an_exclusive_run_ends_before_the_lease_and_its_neighbour_goes_on(
        self, kind: str, story: Story, store: Store, queue: JobQueue, working: Working, heard: Heard
    ) -> None:
        """The claim loop and the heartbeats hang meanwhile, each in a call of its own."""
        released = heard("job.released")
        with working(queue) as worker:
            exclusive, ordinary = begin(story, queue, kind)
            lease_ends_at = store.go_away(*CALLS)
            until(lambda: story.has_ended("exclusive"), lease_ends_at)
            assert time.monotonic() > lease_ends_at - LEASE_S / 2  # nor was it ended at the first hiccup
            assert not story.has_ended("ordinary")
            store.come_back()
            until(lambda: _record(queue, exclusive).status == "completed", time.monotonic() + WAIT_S)
            assert not story.has_ended("ordinary")
            story.go()
            until(lambda: _record(queue, ordinary).status == "completed", time.monotonic() + WAIT_S)
            worker.token.stop()
            report = worker.join()
        # More than once if a claim got through before a heartbeat: then the job was not begun, which counts as nothing.
        assert {(event.get("job_id"), event.get("reason")) for event in released} == {(exclusive, "lease in doubt")}
        record = _record(queue, exclusive)
        assert (record.attempts, record.returns) == (1, 1)  # given back unspent, and run again
        assert record.claim_seq == 1 + len(released)
        assert (_record(queue, ordinary).claim_seq, report.done, report.late) == (1, 2, 0)

    @pytest.mark.parametrize("kind", ["in_thread", "in_child"])
    def test_nothing_is_cut_when_it_comes_back_in_time(
        self, kind: str, story: Story, store: Store, queue: JobQueue, working: Working
    ) -> None:
        with working(queue):
            exclusive, _ = begin(story, queue, kind)
            lease_ends_at = store.go_away(*CALLS)
            _pass(lease_ends_at - LEASE_S / 2)
            store.come_back()
            _pass(lease_ends_at + 0.2)
            assert not story.has_ended("exclusive")
            story.go()
            until(lambda: _record(queue, exclusive).status == "completed", time.monotonic() + WAIT_S)
        assert _record(queue, exclusive).claim_seq == 1

    def test_nothing_is_cut_while_only_the_claim_loop_hangs_and_the_beats_are_good(
        self, story: Story, store: Store, queue: JobQueue, working: Working
    ) -> None:
        with working(queue):
            exclusive, _ = begin(story, queue, "in_thread")
            lease_ends_at = store.go_away("settle_and_claim")
            _pass(lease_ends_at + 0.2)
            assert not story.has_ended("exclusive")
            store.come_back()
            story.go()
            until(lambda: _record(queue, exclusive).status == "completed", time.monotonic() + WAIT_S)
        assert _record(queue, exclusive).claim_seq == 1

    def test_a_run_that_has_ended_is_not_called_stuck_because_the_claim_loop_hangs(
        self, store: Store, queue: JobQueue, working: Working, monkeypatch: pytest.MonkeyPatch, caplog: Logged
    ) -> None:
        monkeypatch.setattr(timeouts, "END_S", 0.2)
        started, ended = threading.Event(), threading.Event()

        @job(name="endless", timeout=0.3, max_retries=0)
        def endless() -> None:
            started.set()
            try:
                while True:
                    time.sleep(0.002)
            finally:
                ended.set()

        with working(queue):
            job_id = queue.push(endless.bind())
            assert started.wait(5)
            store.go_away("settle_and_claim")
            assert ended.wait(5)
            time.sleep(0.5)
            store.come_back()
            until(lambda: _record(queue, job_id).status == "failed", time.monotonic() + WAIT_S)
        assert "did not end" not in caplog.text


class TestWhenTheLeaseIsLost:
    @pytest.mark.parametrize("held_up", CALLS)
    def test_an_exclusive_run_ends_at_once_and_only_its_neighbours_result_is_late(
        self, held_up: str, story: Story, store: Store, queue: JobQueue, working: Working, heard: Heard
    ) -> None:
        """Of heartbeats and claims whichever gets through tells, while the other hangs."""
        late = heard("job.late")
        with working(queue) as worker:
            exclusive, ordinary = begin(story, queue, "in_thread")
            lease_ends_at = store.go_away(held_up)
            store.leave(store.workers()[0].id)
            assert {back.id for back in store.reclaim(10).jobs} == {exclusive, ordinary}
            until(lambda: story.has_ended("exclusive"), lease_ends_at - LEASE_S / 2)
            assert not story.has_ended("ordinary")
            store.come_back()
            story.go()
            until(lambda: queue.stats().completed == 2, time.monotonic() + WAIT_S)
            until(lambda: late, time.monotonic() + WAIT_S)
            worker.token.stop()
            report = worker.join()
        assert [event.get("job_id") for event in late] == [ordinary]
        assert (report.done, report.late) == (2, 1)


class TestARunThatDoesNotEnd:
    @pytest.mark.parametrize("is_lost", [False, True], ids=["lease in doubt", "lease lost"])
    def test_ends_the_worker_before_others_can_have_the_job_where_that_is_possible(
        self, is_lost: bool, store: Store, working: Working
    ) -> None:
        lease_s = 6.0  # stuck after 5 s, and gone by 5.5 s
        queue = JobQueue(store, {"poll_interval": 0.01, "lease": lease_s})
        started, may_go = threading.Event(), threading.Event()

        @job(name="in-c", timeout=0, exclusive=True)
        def in_c() -> None:
            started.set()
            may_go.wait(20)  # one call; what is raised in this thread waits for it

        try:
            with working(queue) as worker:
                queue.push(in_c.bind())
                assert started.wait(5)
                store.is_unreachable = not is_lost
                lease_ends_at = store.last_good_at + lease_s
                if is_lost:
                    store.leave(store.workers()[0].id)
                worker.thread.join(max(0.0, lease_ends_at - time.monotonic()))
                assert worker.report is not None, "it is still there when its lease ends"
        finally:
            may_go.set()
        assert worker.report.reason == "stuck"
        # Its thread goes on, and the store was never told: only the lease keeps others from the job for a moment.
        assert len(store.workers()) == (0 if is_lost else 1)


class TestTheOption:
    def test_it_is_set_on_a_class_inherited_and_set_by_the_decorator(self) -> None:
        class Base(Job):
            name = "base"
            exclusive = True

        class Below(Base):
            name = "below"

            def handle(self, data: object) -> None: ...

        @job(name="function", exclusive=True)
        def function() -> None: ...

        @job(name="other")
        def other() -> None: ...

        assert Below.definition.exclusive
        assert function.definition.exclusive
        assert not other.definition.exclusive

    def test_what_is_no_bool_is_refused(self) -> None:
        with pytest.raises(OptionInvalid, match="exclusive is 'yes'"):
            job(name="wrong", exclusive="yes")(lambda: None)  # type: ignore[call-overload]  # the mistake
        with pytest.raises(OptionInvalid, match="exclusive is 1"):
            type("Wrong", (Job,), {"exclusive": 1, "handle": lambda self, data: None})

    def test_a_misspelt_one_is_refused(self) -> None:
        with pytest.raises(OptionInvalid, match="exclusive"):
            type("Wrong", (Job,), {"exclusiv": True, "handle": lambda self, data: None})

    def test_it_does_not_travel_with_a_job(self, queue: JobQueue) -> None:
        class Plain(Job):
            name = "plain"

            def handle(self, data: object) -> None: ...

        instance = Plain()
        instance.exclusive = True  # type: ignore[misc]  # the mistake
        with pytest.raises(OptionInvalid, match="do not travel: exclusive"):
            queue.push(instance)


def _record(queue: JobQueue, job_id: str) -> JobRecord:
    record = queue.get(job_id)
    assert record is not None
    return record


def _pass(moment: float) -> None:
    """Until that moment of the monotonic clock."""
    time.sleep(max(0.0, moment - time.monotonic()))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
