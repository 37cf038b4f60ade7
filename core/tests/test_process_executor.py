"""Jobs in child processes: what they answer, how they are ended, and that their death is nobody else's trouble."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from protojobs import Job, JobQueue, Settings, events, hookimpl, job
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import JobCrashed, JobRaised, OptionInvalid
from protojobs.events import Event, JobFailed, JobProcessed, JobRetrying
from protojobs.hooks import Hooks
from protojobs.jobs.definition import JobDefinition, Registry
from protojobs.jobs.options import JobOptions
from protojobs.port.lifecycle import Verb
from protojobs.port.records import Capabilities, ClaimedJob, Fence, WorkerInfo
from protojobs.testing import ManualClock
from protojobs.worker.runs.children import pool
from protojobs.worker.runs.children.frames import Begin, Begun, Cancel, Ended, Progress, Ready, Work
from protojobs.worker.runs.children.handle import ChildHandle

MakeQueue = Callable[..., JobQueue]
Heard = Callable[..., list[Event]]
Working = Callable[..., AbstractContextManager[object]]
Eventually = Callable[[Callable[[], object]], None]
HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(os.name != "posix", reason="child processes are for POSIX systems")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The jobs of process_jobs.py, registered for this test."""
    monkeypatch.syspath_prepend(str(HERE))
    if (module := sys.modules.get("process_jobs")) is None:
        return importlib.import_module("process_jobs")
    return importlib.reload(module)


@pytest.fixture
def queue(make_queue: MakeQueue) -> JobQueue:
    return make_queue(executor="process", concurrency=2, max_retries=0)


def test_a_failure_has_the_mark_in_a_child_that_it_has_in_a_thread(make_queue: MakeQueue, jobs: ModuleType) -> None:
    marks: set[str] = set()
    for executor in ("process", "thread"):
        queue = make_queue(executor=executor, concurrency=1)
        queue.push(jobs.WithFailed, {})
        assert queue.work("default", 1).failed == 1
        marks.update(row.fingerprint for row in queue.failed_jobs())
    assert len(marks) == 1
    assert marks != {""}


@pytest.fixture
def ignoring() -> Iterator[None]:
    """As under `nohup`, in a script's background, and in some CI runners."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def children() -> list[str]:
    """The child processes of this one, zombies too."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pid=,args="], capture_output=True, text=True, check=True)
    ours = [line for line in listed.stdout.splitlines() if line.split()[0] == str(os.getpid())]
    return [line for line in ours if " ps " not in line and "servers.py" not in line]  # a server's, that a test started


def results(heard: list[Event]) -> list[object]:
    return [event.result for event in heard if isinstance(event, JobProcessed)]


class TestWhere:
    def test_plain_jobs_run_in_children_and_async_ones_on_the_loop_of_the_worker(
        self, queue: JobQueue, jobs: ModuleType, heard: Heard
    ) -> None:
        processed = heard("job.processed")
        queue.push(jobs.pid.bind())
        queue.work("default", 1)
        queue.push(jobs.in_loop.bind())
        queue.work("default", 1)
        first, second = results(processed)
        assert first != os.getpid()
        assert second == os.getpid()

    def test_a_jobs_own_choice_wins_over_the_setting(
        self, queue: JobQueue, make_queue: MakeQueue, jobs: ModuleType, heard: Heard
    ) -> None:
        processed = heard("job.processed")
        queue.push(jobs.in_thread.bind())
        queue.work("default", 1)
        other = make_queue()
        other.push(jobs.in_process.bind())
        other.work("default", 1)
        first, second = results(processed)
        assert first == os.getpid()
        assert second != os.getpid()

    def test_the_choice_of_a_class_is_inherited_and_checked(self) -> None:
        class Base(Job):
            name = "base"
            executor = "process"

        class Below(Base):
            name = "below"

            def handle(self, data: object) -> None: ...

        assert Below.definition.executor == "process"
        with pytest.raises(OptionInvalid, match="thread"):
            job(name="wrong", executor="fiber")(lambda: None)  # type: ignore[call-overload]  # the mistake

    def test_a_job_that_no_child_finds_runs_in_the_worker_and_the_log_says_so_once(
        self, queue: JobQueue, heard: Heard, caplog: pytest.LogCaptureFixture
    ) -> None:
        processed = heard("job.processed")

        @job(name="local")
        def local() -> int:
            return os.getpid()

        queue.push_many([local.bind(), local.bind()])
        queue.work("default", 2)
        assert results(processed) == [os.getpid()] * 2
        assert len([r for r in caplog.records if 'job "local" runs in the worker itself' in r.getMessage()]) == 1

    def test_so_does_one_whose_module_a_child_imports_without_finding_it(
        self, queue: JobQueue, jobs: ModuleType, heard: Heard
    ) -> None:
        processed = heard("job.processed")

        def function() -> int:
            return os.getpid()

        function.__module__, function.__qualname__ = "process_jobs", "made_here"
        made_here = job(name="made-here")(function)
        queue.push(made_here.bind())
        assert queue.work("default", 1).done == 1
        assert results(processed) == [os.getpid()]

    def test_and_one_of_which_a_child_finds_another_by_the_same_name(
        self, queue: JobQueue, jobs: ModuleType, heard: Heard
    ) -> None:
        processed = heard("job.processed")
        own = Registry()

        def function() -> int:
            return os.getpid()

        function.__module__, function.__qualname__ = "process_jobs", "another"
        own.add(JobDefinition("p.add", function, JobOptions()))
        queue = JobQueue(queue.driver, queue.settings, registry=own)
        queue.push("p.add")
        assert queue.work("default", 1).done == 1
        assert results(processed) == [os.getpid()]


def test_what_the_workers_parent_has_ignored_is_not_ignored_in_children(
    queue: JobQueue, jobs: ModuleType, heard: Heard, ignoring: None
) -> None:
    results_of = heard("job.processed")
    queue.push(jobs.ignores, {})
    queue.work("default", 1)
    assert results(results_of) == [[]]


class TestAnswers:
    @pytest.mark.parametrize("where", ["thread", "process", "async"])
    def test_what_a_job_sets_in_a_context_variable_is_gone_for_the_next(
        self, make_queue: MakeQueue, jobs: ModuleType, heard: Heard, where: str
    ) -> None:
        processed = heard("job.processed")
        queue = make_queue(executor="thread" if where == "async" else where, concurrency=1)
        kind = jobs.async_tenant if where == "async" else jobs.tenant
        queue.push_many([kind.bind("ACME"), kind.bind("Globex"), kind.bind("Initech")])
        assert queue.work("default", 3).done == 3
        assert results(processed) == ["nobody"] * 3

    def test_a_result_crosses_as_json_and_what_json_cannot_hold_as_none(
        self, queue: JobQueue, jobs: ModuleType, heard: Heard
    ) -> None:
        processed = heard("job.processed")
        queue.push(jobs.add.bind(1, 2))
        queue.push(jobs.an_object.bind())
        assert queue.work("default", 2).done == 2
        assert sorted(results(processed), key=str) == [3, None]

    def test_an_exception_crosses_as_its_name_and_text_and_the_traceback_is_kept(
        self, queue: JobQueue, jobs: ModuleType, heard: Heard
    ) -> None:
        failed = heard("job.failed")
        queue.push(jobs.WithFailed, {"a": 1})
        queue.work("default", 1)
        (event,) = failed
        assert isinstance(event, JobFailed)
        assert isinstance(event.exception, JobRaised)
        assert (event.exception.type_name, event.exception.raised) == ("ValueError", "no good")
        (row,) = queue.failed_jobs()
        assert "process_jobs.py" in row.exception
        assert row.exception.rstrip().endswith("ValueError: no good")

    def test_failed_is_called_in_the_worker(self, queue: JobQueue, jobs: ModuleType) -> None:
        jobs.WithFailed.seen.clear()
        queue.push(jobs.WithFailed, {"a": 1})
        queue.work("default", 1)
        assert jobs.WithFailed.seen == [(os.getpid(), "ValueError: no good", {"a": 1})]

    def test_the_retry_policy_is_asked_in_the_child_with_the_exception_itself(
        self, queue: JobQueue, jobs: ModuleType, clock: ManualClock
    ) -> None:
        tried, dropped, lost = (queue.push(jobs.Picky, {"raise": what}) for what in ("os", "key", "value"))
        queue.work("default", 3)
        records = [queue.get(one) for one in (tried, dropped, lost)]
        assert [r.status for r in records if r is not None] == ["pending", "cancelled", "failed"]
        assert records[0] is not None
        assert (records[0].available_at - clock.now()).total_seconds() == pytest.approx(77, abs=1)

    def test_snooze_and_retry_steer_as_elsewhere(self, queue: JobQueue, jobs: ModuleType) -> None:
        snoozed, retried = queue.push(jobs.snoozes.bind()), queue.push(jobs.retries.bind())
        queue.work("default", 2)
        records = [queue.get(one) for one in (snoozed, retried)]
        assert [(r.status, r.attempts) for r in records if r is not None] == [("pending", 0), ("pending", 1)]

    def test_what_a_job_prints_comes_out_of_the_worker_and_its_input_is_empty(
        self, queue: JobQueue, jobs: ModuleType, capfd: pytest.CaptureFixture[str]
    ) -> None:
        queue.push(jobs.speaks.bind())
        assert queue.work("default", 1).done == 1
        out, err = capfd.readouterr()
        assert out == "said by the job\nread: ''\n"
        assert "complained by the job" in err


class TestTransforms:
    def test_they_are_undone_once_and_in_the_worker(self, queue: JobQueue, jobs: ModuleType, heard: Heard) -> None:
        processed, seen = heard("job.processed"), list[int]()

        class Doubles:
            @hookimpl
            def protojobs_before_run(self, job: ClaimedJob) -> ClaimedJob:
                seen.append(os.getpid())
                return msgspec.structs.replace(job, data=job.data.replace("1", "11"))

        queue._hooks = Hooks([("doubles", Doubles())], clock=queue.clock)
        queue.push(jobs.add.bind(1, 2))
        assert queue.work("default", 1).done == 1
        assert (results(processed), seen) == ([13], [os.getpid()])

    def test_one_that_hangs_gives_the_job_back_and_its_slot_goes_on(
        self, make_queue: MakeQueue, jobs: ModuleType, heard: Heard
    ) -> None:
        released, may_end = heard("job.released"), threading.Event()

        class Hangs:
            @hookimpl
            def protojobs_before_run(self, job: ClaimedJob) -> None:
                if job.job_name == "p.pid":
                    may_end.wait(60)

        queue = make_queue(executor="process", concurrency=1)
        queue._hooks = Hooks([("hangs", Hangs())], clock=queue.clock)
        job_id = queue.push(jobs.pid.bind().with_timeout(0.1))
        queue.push(jobs.add.bind(1, 2))
        assert queue.work("default", 1).done == 1
        may_end.set()
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 0)
        assert [event.get("reason") for event in released] == ["transform"]


class TestEnding:
    def test_a_run_in_a_c_call_is_killed_soon_after_its_timeout_and_its_slot_goes_on(
        self, make_queue: MakeQueue, jobs: ModuleType
    ) -> None:
        queue = make_queue(executor="process", concurrency=1)
        queue.push(jobs.sleeps_in_c.bind())
        queue.push(jobs.add.bind(1, 2))
        began = time.monotonic()
        report = queue.work("default", 2)
        assert time.monotonic() - began < 30  # it would have slept for 60
        assert (report.done, report.failed, report.reason) == (1, 1, "max_jobs")
        (row,) = queue.failed_jobs()
        assert "JobTimeout: the run outlasted its timeout of 0.3 s" in row.exception

    def test_a_run_that_can_be_told_to_end_cleans_up_first(
        self, queue: JobQueue, jobs: ModuleType, tmp_path: Path
    ) -> None:
        queue.push(jobs.cleans_up.bind(str(tmp_path / "said")))
        assert queue.work("default", 1).failed == 1
        assert (tmp_path / "said").read_text() == "clean"

    def test_what_a_killed_run_had_started_is_killed_with_it(
        self, queue: JobQueue, jobs: ModuleType, tmp_path: Path, eventually: Eventually
    ) -> None:
        queue.push(jobs.has_a_helper.bind(str(tmp_path / "pid")))
        assert queue.work("default", 1).failed == 1
        helper = int((tmp_path / "pid").read_text())
        eventually(lambda: not is_alive(helper))

    def test_a_job_that_its_child_has_not_begun_costs_no_attempt_and_runs_in_another(
        self, make_queue: MakeQueue, jobs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        working: Working, eventually: Eventually
    ) -> None:  # fmt: skip
        monkeypatch.setattr(pool, "BEGIN_S", 0.5)
        queue = make_queue(executor="process", concurrency=1, max_retries=0)
        with working(queue, "default"):
            queue.push(jobs.leaves_a_thread_in_c.bind(str(tmp_path / "said")))
            eventually((tmp_path / "said").exists)
            job_id = queue.push(jobs.add.bind(1, 2).with_timeout(0.3))
            eventually(lambda: queue.stats().completed == 2 or queue.stats().failed)
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("completed", 1)

    def test_the_time_in_which_a_child_starts_is_not_the_jobs(
        self, queue: JobQueue, jobs: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PROCESS_JOBS_IMPORT_S", "1.0")
        queue.push(jobs.add.bind(1, 2).with_timeout(0.8))
        assert queue.work("default", 1).done == 1

    def test_a_job_sees_that_it_is_cancelled_and_its_progress_is_known(
        self, queue: JobQueue, jobs: ModuleType, heard: Heard, working: Callable, eventually: Eventually
    ) -> None:
        quick = Settings(executor="process", poll_interval=0.02, lease=1.0)
        queue = JobQueue(queue.driver, quick)
        ended = heard("job.processed", "job.cancelled")
        job_id = queue.push(jobs.reports_and_waits.bind())  # the context comes from the worker

        def progress() -> float | None:
            record = queue.get(job_id)
            return None if record is None else record.progress

        with working(queue, max_jobs=1) as worker:
            eventually(lambda: progress() == 0.4)
            queue.cancel(job_id)
            worker.join()
        assert [event.event_name for event in ended] == ["job.cancelled"]

    def test_a_wish_to_cancel_that_comes_before_the_run_begins_is_not_lost(self, jobs: ModuleType) -> None:
        now = SYSTEM_CLOCK.now()
        claimed = ClaimedJob(
            id="1", claim_seq=1, reserved_by="w", queue="q", job_name="p.progress", job_class="j", data="{}",
            priority=0, attempts=1, max_retries=0, retry_delay=0, retry_policy=None, timeout=0, available_at=now,
            reserved_at=now, crashes=0, returns=0, reclaims=0,
        )  # fmt: skip
        fence = Fence(id="1", claim_seq=1, reserved_by="w")
        path = tuple(sys.path)
        child = ChildHandle(
            Begin(path=path, modules=("process_jobs",), settings=Settings(), store=Capabilities(), log_levels=(0, 0))
        )
        try:
            job_class = jobs.reports_and_waits.definition.job_class
            child.send(Work(claimed=claimed, module="process_jobs", job_class=job_class))
            child.send(Cancel(fence))
            said = [child.receive(10) for _ in range(4)]
        finally:
            child.close()
        assert said[:3] == [Ready(), Begun(), Progress(fence, 0.4)]
        assert isinstance(said[3], Ended)
        assert said[3].settlement.verb is Verb.CANCEL

    def test_one_that_does_not_care_is_ended(
        self, queue: JobQueue, jobs: ModuleType, monkeypatch: pytest.MonkeyPatch, working: Callable,
        eventually: Eventually,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(pool, "CANCEL_S", 0.2)
        queue = JobQueue(queue.driver, Settings(executor="process", poll_interval=0.02, lease=1.0))
        job_id = queue.push(jobs.deaf.bind())

        def status() -> str:
            record = queue.get(job_id)
            return "" if record is None else record.status

        with working(queue, max_jobs=1) as worker:
            eventually(lambda: status() == "processing")
            queue.cancel(job_id)
            worker.join()
        assert status() == "cancelled"

    def test_a_stop_ends_what_outlasts_its_grace_and_it_costs_no_attempt(
        self, make_queue: MakeQueue, jobs: ModuleType, tmp_path: Path, working: Callable, eventually: Eventually
    ) -> None:
        queue = make_queue(executor="process", shutdown_grace=0.1)
        job_id = queue.push(jobs.long.bind(str(tmp_path), False))
        with working(queue) as worker:
            eventually(lambda: list(tmp_path.iterdir()))
            began = time.monotonic()
            worker.token.stop()
            assert worker.join().reason == "stopped"
        assert time.monotonic() - began < 3
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 0)

    def test_a_signal_to_the_whole_service_does_not_end_children_whose_worker_lets_them_finish(
        self, queue: JobQueue, jobs: ModuleType, tmp_path: Path, working: Callable, eventually: Eventually
    ) -> None:
        job_id = queue.push(jobs.long.bind(str(tmp_path), False))
        with working(queue) as worker:
            eventually(lambda: list(tmp_path.iterdir()))
            (child,) = (int(path.name) for path in tmp_path.iterdir())
            os.kill(child, signal.SIGTERM)
            time.sleep(0.2)
            assert is_alive(child)
            worker.token.stop()
            worker.token.stop()
            worker.join()
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts, record.crashes) == ("pending", 0, 0)


class TestCopies:
    """What a job's `os.fork()` makes."""

    def test_one_ends_by_sigterm_though_a_child_does_not(self, queue: JobQueue, jobs: ModuleType, heard: Heard) -> None:
        processed = heard("job.processed")
        queue.push(jobs.ends_a_copy.bind())
        assert queue.work("default", 1).done == 1
        assert results(processed) == [-signal.SIGTERM]

    def test_an_answer_to_another_run_settles_nothing_and_ends_the_child(
        self, queue: JobQueue, jobs: ModuleType, working: Working, eventually: Eventually
    ) -> None:
        queue.push(jobs.answers_for_another.bind())
        with working(queue, "default"):
            eventually(lambda: queue.stats().failed == 1)
        (row,) = queue.failed_jobs()
        assert "JobCrashed: the process that ran the job was killed by signal 9" in row.exception


class TestCrashing:
    @pytest.mark.parametrize("does", ["raises CancelledError", "does not answer"])
    def test_a_retry_in_that_cannot_say_when_costs_neither_the_job_nor_its_slot(
        self, make_queue: MakeQueue, jobs: ModuleType, monkeypatch: pytest.MonkeyPatch, does: str
    ) -> None:
        monkeypatch.setattr(pool, "JUDGE_S", 0.2)
        may_answer = threading.Event()

        def says() -> float:
            if does == "does not answer":
                may_answer.wait(60)
            raise asyncio.CancelledError

        monkeypatch.setattr(jobs.CrashesOddly, "says", staticmethod(says), raising=False)
        queue = make_queue(executor="process", concurrency=1)
        odd = queue.push(jobs.CrashesOddly)
        queue.push(jobs.add.bind(1, 2))
        assert queue.work("default", 2).runs == 2
        may_answer.set()
        record = queue.get(odd)
        assert record is not None
        assert (record.status, record.attempts, record.crashes, queue.stats().completed) == ("pending", 1, 1, 1)

    def test_a_killer_is_given_up_after_three_deaths_of_its_own_child_and_its_neighbours_notice_nothing(
        self, make_queue: MakeQueue, jobs: ModuleType, heard: Heard
    ) -> None:
        queue = make_queue(executor="process", concurrency=4)
        retrying, processed = heard("job.retrying"), heard("job.processed")
        neighbours = [jobs.add.bind(n, 0) for n in range(50)]
        ids = queue.push_many([*neighbours[:20], jobs.exits.bind(), *neighbours[20:]])
        report = queue.work("default", 100)
        assert (report.done, report.failed) == (50, 1)
        assert sorted(results(processed), key=str) == sorted(range(50), key=str)
        assert [event.attempt for event in processed if isinstance(event, JobProcessed)] == [1] * 50
        assert len(retrying) == 3
        for event in retrying:
            assert isinstance(event, JobRetrying)
            assert isinstance(event.exception, JobCrashed)
            assert "exit code 3" in str(event.exception)
        record = queue.get(ids[20])
        assert record is not None
        assert (record.status, record.crashes) == ("failed", 3)

    def test_the_failure_names_the_signal(self, queue: JobQueue, jobs: ModuleType) -> None:
        queue.push(jobs.segfaults.bind())
        assert queue.work("default", 1).failed == 1
        (row,) = queue.failed_jobs()
        assert "JobCrashed: the process that ran the job was killed by signal 11 (SIGSEGV)" in row.exception

    def test_a_child_that_cannot_start_costs_no_attempt(
        self, queue: JobQueue, jobs: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        job_id = queue.push(jobs.add.bind(1, 2))
        queue.work("default", 1)
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == ("pending", 0)
        assert "no child process can be started" in caplog.text


class TestLives:
    def test_a_module_of_the_project_that_is_called_as_one_of_the_standard_library_does_not_stop_them(
        self, queue: JobQueue, jobs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("queue", "types", "signal", "email"):
            (tmp_path / f"{name}.py").write_text("raise ImportError('the shop has a module of this name')")
        monkeypatch.chdir(tmp_path)
        queue.push(jobs.add.bind(1, 2))
        assert queue.work("default", 1).done == 1

    def test_one_that_dies_between_two_jobs_is_not_charged_to_the_next(
        self, make_queue: MakeQueue, jobs: ModuleType, heard: Heard, working: Working, eventually: Eventually
    ) -> None:
        queue = make_queue(executor="process", concurrency=1, max_retries=0)
        processed, failed = heard("job.processed"), heard("job.failed")
        with working(queue):
            queue.push(jobs.dies_soon.bind())
            eventually(lambda: results(processed))
            (pid,) = results(processed)
            assert isinstance(pid, int)
            eventually(lambda: not is_alive(pid))
            queue.push(jobs.add.bind(1, 2))
            eventually(lambda: failed or len(processed) == 2)
        assert failed == []
        assert results(processed)[1] == 3

    def test_a_child_is_used_again_and_replaced_after_so_many_jobs(
        self, make_queue: MakeQueue, jobs: ModuleType, heard: Heard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "JOBS_MAX", 3)
        queue = make_queue(executor="process", concurrency=1)
        processed = heard("job.processed")
        queue.push_many([jobs.pid.bind() for _ in range(7)])
        queue.work("default", 7)
        pids = results(processed)
        assert [len(set(part)) for part in (pids[:3], pids[3:6], pids[6:])] == [1, 1, 1]
        assert len(set(pids)) == 3

    def test_one_that_has_grown_is_replaced(
        self, make_queue: MakeQueue, jobs: ModuleType, heard: Heard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "GROWTH_BYTES_MAX", -1)
        queue = make_queue(executor="process", concurrency=1)
        processed = heard("job.processed")
        queue.push_many([jobs.pid.bind() for _ in range(2)])
        queue.work("default", 2)
        assert len(set(results(processed))) == 2

    def test_no_more_children_are_started_than_jobs_run_at_once(
        self, make_queue: MakeQueue, jobs: ModuleType, heard: Heard
    ) -> None:
        queue = make_queue(executor="process", concurrency=8)
        processed = heard("job.processed")
        for _ in range(2):
            queue.push_many([jobs.pid.bind() for _ in range(6)])
        queue.work("default", 12, concurrency=2)
        assert len(set(results(processed))) <= 2

    def test_nothing_is_left_when_work_returns(self, queue: JobQueue, jobs: ModuleType) -> None:
        queue.push(jobs.add.bind(1, 2))
        queue.work("default", 1)  # whatever is opened once and kept is open now
        before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
        queue.push_many([jobs.add.bind(1, 2), jobs.exits.bind().retries(0), jobs.sleeps_in_c.bind()])
        assert queue.work("default", 3).runs == 3
        assert children() == []
        assert [thread for thread in threading.enumerate() if thread.name == "protojobs-child"] == []
        if sys.platform == "linux":
            assert set(os.listdir("/proc/self/fd")) <= before

    def test_children_die_with_their_worker_whatever_they_are_at(self, tmp_path: Path, eventually: Eventually) -> None:
        program = textwrap.dedent(f"""
            import sys
            sys.path.insert(0, {str(HERE)!r})
            import process_jobs
            from protojobs import JobQueue, Settings
            from protojobs_memory import MemoryDriver
            queue = JobQueue(MemoryDriver(), Settings(executor="process"))
            for holds_lock in (False, True):
                queue.push(process_jobs.long.bind({str(tmp_path)!r}, holds_lock))
            queue.work()
        """)
        worker = subprocess.Popen([sys.executable, "-c", program])
        try:
            eventually(lambda: len(list(tmp_path.iterdir())) == 2)
            pids = [int(path.name) for path in tmp_path.iterdir()]
            time.sleep(0.1)  # into the call that holds the lock
            assert all(is_alive(pid) for pid in pids)
        finally:
            worker.kill()
            worker.wait(5)
        # Where the system cannot bind a child to its parent, the one in the C call ends only after that.
        eventually(lambda: sum(map(is_alive, pids)) <= (0 if sys.platform == "linux" else 1))


def make_suspect(queue: JobQueue, clock: ManualClock) -> None:
    """Two workers die while they hold all that is due."""
    for name in ("w1", "w2"):
        info = WorkerInfo(id=name, host="h", pid=1, queues=("default",), concurrency=9, lease_s=1.0, isolates=True)
        queue.driver.register(info)
        queue.driver.claim(name, ["default"], slots=9, limit=9)
        clock.advance(2.0)
        queue.driver.reclaim(100)


class TestSuspects:
    def test_they_run_in_children_beside_others_and_their_worker_says_that_it_isolates(
        self, queue: JobQueue, jobs: ModuleType, clock: ManualClock, heard: Heard
    ) -> None:
        isolates: list[bool] = []
        events.on("job.processing", lambda event: isolates.extend(w.isolates for w in queue.workers()))
        processed = heard("job.processed")
        queue.push_many([jobs.in_loop.bind(), jobs.in_thread.bind()])  # neither would run in a child otherwise
        make_suspect(queue, clock)
        queue.push(jobs.in_loop.bind())
        assert queue.work("default", 3).done == 3
        assert set(isolates) == {True}
        assert sorted(result == os.getpid() for result in results(processed)) == [False, False, True]

    def test_only_the_childs_death_speaks_against_a_suspect_also_when_it_is_async(
        self, queue: JobQueue, jobs: ModuleType, clock: ManualClock
    ) -> None:
        job_id = queue.push(jobs.async_exits.bind())
        make_suspect(queue, clock)
        assert queue.work("default", 1).failed == 1
        record = queue.get(job_id)
        assert record is not None
        assert (record.reclaims, record.crashes) == (2, 1)
        (row,) = queue.failed_jobs()
        assert "exit code 4" in row.exception

    def test_so_do_those_of_a_worker_whose_jobs_run_in_threads_and_no_child_stays_for_it(
        self, make_queue: MakeQueue, jobs: ModuleType, clock: ManualClock, heard: Heard
    ) -> None:
        queue = make_queue(concurrency=2)
        processed = heard("job.processed")
        queue.push_many([jobs.in_loop.bind(), jobs.pid.bind(), jobs.pid.bind()])
        make_suspect(queue, clock)
        queue.push(jobs.pid.bind())
        assert queue.work("default", 4).done == 4
        pids = results(processed)
        assert pids.count(os.getpid()) == 1  # the one that is no suspect
        assert len(set(pids)) == 4  # each had a child of its own

    def test_a_killer_in_a_worker_of_threads_takes_only_its_child_along_and_is_given_up(
        self, make_queue: MakeQueue, jobs: ModuleType, clock: ManualClock
    ) -> None:
        queue = make_queue()
        job_id = queue.push(jobs.async_exits.bind().retries(9))
        make_suspect(queue, clock)
        for _ in range(4):
            queue.work("default", 1)
            clock.advance(3600.0)
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.reclaims, record.crashes, record.attempts) == ("failed", 2, 3, 4)

    def test_one_that_no_child_finds_runs_in_the_worker_beside_ordinary_jobs(
        self, make_queue: MakeQueue, jobs: ModuleType, clock: ManualClock, heard: Heard, working: Working
    ) -> None:
        began, may_end = threading.Event(), threading.Event()

        @job(name="local")
        def local() -> int:
            return os.getpid()

        @job(name="long")
        def long() -> None:
            began.set()
            may_end.wait(20)

        queue = make_queue(concurrency=2)
        processed = heard("job.processed")
        queue.push_many([local.bind(), local.bind()])
        make_suspect(queue, clock)
        queue.push(long.bind().with_priority(9))
        with working(queue):
            assert began.wait(5)
            ends = time.monotonic() + 20
            while len(processed) < 2 and time.monotonic() < ends:
                clock.advance(1.0)  # the second of them comes back after a while
                time.sleep(0.01)
            may_end.set()
        assert results(processed)[:2] == [os.getpid()] * 2

    def test_one_that_turns_out_to_be_unknown_to_children_runs_in_the_worker_after_all(
        self, queue: JobQueue, jobs: ModuleType, clock: ManualClock, heard: Heard
    ) -> None:
        processed = heard("job.processed")

        def function() -> int:
            return os.getpid()

        function.__module__, function.__qualname__ = "process_jobs", "made_here"
        queue.push(job(name="made-here")(function).bind())
        make_suspect(queue, clock)
        assert queue.work("default", 1).done == 1
        assert results(processed) == [os.getpid()]

    @pytest.mark.parametrize("is_found_out_late", [False, True])
    def test_one_that_no_child_can_run_is_given_up_after_five_workers(
        self, make_queue: MakeQueue, jobs: ModuleType, clock: ManualClock, is_found_out_late: bool
    ) -> None:
        queue = make_queue()
        began: list[str] = []

        def function() -> None:
            began.append("")

        if is_found_out_late:
            function.__module__, function.__qualname__ = "process_jobs", "made_here"
        job_id = queue.push(job(name="local")(function).bind())
        for _ in range(3):
            make_suspect(queue, clock)
        assert queue.work("default", 1).failed == 1
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.reclaims, began) == ("failed", 6, [])
        (row,) = queue.failed_jobs()
        assert "6 workers died while they had the job" in row.exception

    def test_one_for_which_no_child_can_be_started_runs_in_the_worker(
        self, make_queue: MakeQueue, jobs: ModuleType, clock: ManualClock, heard: Heard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none_left(_begin: Begin) -> ChildHandle:
            raise OSError("no more processes")

        monkeypatch.setattr(pool, "ChildHandle", none_left)
        processed = heard("job.processed")
        queue = make_queue()
        queue.push(jobs.pid.bind())
        make_suspect(queue, clock)
        assert queue.work("default", 1).done == 1
        assert results(processed) == [os.getpid()]


def test_a_plugins_around_hook_runs_in_the_child(
    make_queue: MakeQueue, jobs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "around_plugin.py").write_text(
        textwrap.dedent(f"""
            import os
            from contextlib import contextmanager
            from pathlib import Path
            from protojobs import hookimpl

            @hookimpl
            @contextmanager
            def protojobs_around_job(context):
                Path({str(tmp_path / "said")!r}).write_text(f"{{os.getpid()}} {{context.job_name}}")
                yield
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    queue = make_queue(executor="process", plugins=("around_plugin",))
    queue.push(jobs.add.bind(1, 2))
    assert queue.work("default", 1).done == 1
    pid, name = (tmp_path / "said").read_text().split()
    assert (int(pid) != os.getpid(), name) == (True, "p.add")
