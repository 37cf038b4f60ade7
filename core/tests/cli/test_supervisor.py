"""`protojobs worker --processes N`: real processes on SQLite, and real kills."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protojobs import StopToken, job
from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.health_probe.health import supervisor_health
from protojobs.cli.supervising import supervisor
from protojobs.cli.supervising.supervisor import STARTS_MAX, Supervisor
from protojobs.cli.supervising.supervisor_link import LINK_VARIABLE
from protojobs.cli.supervising.worker_process import worker_command
from protojobs.clock import SYSTEM_CLOCK, SystemClock
from protojobs.port.lifecycle import JobState

LONG_S = 25.0  # for whatever must happen; only a failure waits so long

CREW = """
import os, time
from pathlib import Path
from protojobs import job

hoard = []

@job(name="mark")
def mark(seconds: float = 0, once: bool = False, grows: int = 0):
    hoard.append(b"x" * grows)
    with open("marks", "a") as marks: marks.write(f"{os.getpid()}\\n")
    if seconds and not (once and len(Path("marks").read_text().split()) > 1):
        time.sleep(seconds)

if Path("broken-from-now-on").exists(): raise RuntimeError("a bad deploy")
"""


@pytest.fixture(autouse=True)
def crew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "crew.py").write_text(CREW)
    monkeypatch.setenv("PROTOJOBS_APP", "crew")
    monkeypatch.setenv("PROTOJOBS_LEASE", "2")
    return folder


def until(said: str, is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < ends, f"in vain waited until {said}"
        time.sleep(0.05)


def marks() -> list[int]:
    """The pids of the processes that ran the job `mark`, in order."""
    return [int(line) for line in Path("marks").read_text().split()] if Path("marks").exists() else []


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in (Path(f"/proc/{pid}/status").read_text() if sys.platform == "linux" else "")


@job(name="mark")
def mark(seconds: float = 0, once: bool = False, grows: int = 0) -> None:
    """What is pushed; the workers run that of `crew`."""


def push_marks(queue, *many: dict[str, object]) -> list[str]:
    return queue.push_many([mark.bind(**one) for one in many])


def workers_of(queue, count: int) -> list[int]:
    """The pids of so many workers, once they are there."""
    until(f"{count} workers are there", lambda: len(queue.workers()) == count)
    return [worker.pid for worker in queue.workers()]


def warnings(err: str) -> list[str]:
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    return [line["message"] for line in lines if line["level"] == "warning"]


def test_n_workers_do_each_job_once_and_the_supervisor_ends_with_them(start, queue) -> None:
    push_marks(queue, *[{"seconds": 0.3}] * 4, *[{}] * 20)
    supervisor = start("worker", "--processes", "2", "--concurrency", "2", "--stop-when-empty", "--json")
    ended = supervisor.ended()
    assert ended.code == 0, ended
    assert ended.document["item"] == {"done": 24, "failed": 0, "runs": 24, "reason": "empty", "late": 0}
    assert len(marks()) == 24
    assert len(set(marks())) == 2
    assert supervisor.started.pid not in marks()
    assert "concurrency  2 in each of 2 workers" in ended.err
    assert ended.err.count("to stop") == 1  # one banner


def test_a_killed_worker_is_replaced_and_its_job_runs_again(start, queue) -> None:
    (job_id,) = push_marks(queue, {"seconds": 60, "once": True})
    supervisor = start("worker", "--processes", "2", "--log-format", "json")
    until("the job runs", lambda: len(marks()) == 1)
    before = set(workers_of(queue, 2))
    os.kill(marks()[0], signal.SIGKILL)
    until("the job has run again", lambda: queue.get(job_id).status is JobState.COMPLETED)
    after = set(workers_of(queue, 2))
    supervisor.started.send_signal(signal.SIGTERM)
    ended = supervisor.ended()
    assert ended.code == 0, ended
    assert len(after - before) == 1
    assert marks()[0] not in after
    assert len(marks()) == 2
    (said,) = [text for text in warnings(ended.err) if "another starts" in text]
    assert f"worker {marks()[0]} was ended by signal 9; another starts in 0." in said
    assert queue.workers() == []


class TestStopping:
    def test_the_first_signal_lets_running_jobs_finish(self, start, queue) -> None:
        ids = push_marks(queue, {"seconds": 1.5}, {"seconds": 1.5})
        supervisor = start("worker", "--processes", "2", "--concurrency", "1")
        until("both run", lambda: len(marks()) == 2)
        pids = workers_of(queue, 2)
        assert [os.getsid(pid) for pid in pids] == pids  # so a terminal's Ctrl-C reaches the supervisor alone
        supervisor.started.send_signal(signal.SIGTERM)
        ended = supervisor.ended()
        assert ended.code == 0, ended
        assert ended.err.count("SIGTERM: claiming no more; running jobs get 25 s.") == 1
        assert "worker ended, since it was told to stop: 2 done" in ended.err
        assert [queue.get(one).status for one in ids] == [JobState.COMPLETED] * 2
        assert not any(map(is_alive, pids))

    def test_a_signal_to_the_whole_group_is_one_wish(self, start, queue) -> None:
        (job_id,) = push_marks(queue, {"seconds": 1.5})
        supervisor = start("worker", "--processes", "1")
        until("it runs", lambda: len(marks()) == 1)
        for pid in (*marks(), supervisor.started.pid, *marks()):  # as systemd does
            os.kill(pid, signal.SIGTERM)
        ended = supervisor.ended()
        assert ended.code == 0
        assert ended.err.count("claiming no more") == 1, "of one wish one process tells"
        assert queue.get(job_id).status is JobState.COMPLETED

    def test_the_second_cuts_them_short_unspent(self, start, queue) -> None:
        # In a child process, which can be ended in the middle of a sleep.
        (job_id,) = push_marks(queue, {"seconds": 60})
        supervisor = start("worker", "--processes", "1", "--executor", "process")
        until("it runs", lambda: len(marks()) == 1)
        supervisor.started.send_signal(signal.SIGINT)
        time.sleep(0.3)
        supervisor.started.send_signal(signal.SIGTERM)
        ended = supervisor.ended()
        assert ended.code == 0, ended
        assert "cutting running jobs short" in ended.err
        job = queue.get(job_id)
        assert (job.status, job.attempts) == (JobState.PENDING, 0)

    def test_a_worker_that_does_not_stop_is_killed(self, start, queue, monkeypatch) -> None:
        monkeypatch.setenv("PROTOJOBS_SHUTDOWN_GRACE", "0.1")
        monkeypatch.setenv("PROTOJOBS_EXIT_BOUND", "0.1")
        supervisor = start("worker", "--processes", "1")
        (pid,) = workers_of(queue, 1)
        os.kill(pid, signal.SIGSTOP)
        supervisor.started.send_signal(signal.SIGTERM)
        ended = supervisor.ended()
        assert ended.code == 1, ended
        assert f"worker {pid} has not stopped in time: killed" in ended.err
        assert not is_alive(pid)

    def test_workers_stop_when_their_supervisor_is_killed(self, start, queue) -> None:
        ids = push_marks(queue, {"seconds": 1})
        supervisor = start("worker", "--processes", "2")
        until("it runs", lambda: len(marks()) == 1)
        pids = workers_of(queue, 2)
        supervisor.started.kill()
        until("they have gone", lambda: not any(map(is_alive, pids)))
        assert queue.workers() == []  # they have signed off
        assert queue.get(ids[0]).status is JobState.COMPLETED  # and finished what they had begun


class TestWhenNoWorkerCanStart:
    def test_what_is_wrong_is_said_once_before_any_worker(self, start, url) -> None:
        ended = start("worker", "--processes", "3", "--app", "nothing_there").ended()
        assert ended.code == 2
        assert ended.err.count('There is no module "nothing_there"') == 1

    def test_it_ends_with_the_code_of_a_worker_that_cannot_be_configured(self, start, queue, crew) -> None:
        supervisor = start("worker", "--processes", "1")
        (pid,) = workers_of(queue, 1)
        (crew / "broken-from-now-on").touch()
        os.kill(pid, signal.SIGKILL)
        ended = supervisor.ended()
        assert ended.code == 2, ended
        assert "a bad deploy" in ended.err
        assert "No worker can start" in ended.err

    def test_others_keep_working_meanwhile(self, start, queue, crew) -> None:
        supervisor = start("worker", "--processes", "2")
        pids = workers_of(queue, 2)
        (crew / "broken-from-now-on").touch()
        os.kill(pids[0], signal.SIGKILL)
        time.sleep(2)
        (job_id,) = push_marks(queue, {})
        until("the other has done it", lambda: queue.get(job_id).status is JobState.COMPLETED)
        (crew / "broken-from-now-on").unlink()
        until("there are two again", lambda: len({worker.pid for worker in queue.workers()} - {pids[0]}) == 2)
        supervisor.started.send_signal(signal.SIGTERM)
        assert supervisor.ended().code == 0


def test_a_worker_past_its_memory_is_replaced_at_once(start, queue) -> None:
    ids = push_marks(queue, *[{"grows": 200 * 2**20, "seconds": 1.5}] * 2)
    supervisor = start("worker", "--processes", "1", "--concurrency", "1", "--max-memory", "200M", "-v")
    until("all are done", lambda: all(queue.get(one).status is JobState.COMPLETED for one in ids))
    supervisor.started.send_signal(signal.SIGTERM)
    ended = supervisor.ended()
    assert ended.code == 0, ended
    assert "(memory); another starts" in ended.err
    assert len(set(marks())) == 2


class Hasty(SystemClock):
    """Twenty times as fast."""

    def monotonic(self) -> float:
        return super().monotonic() * 20

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / 20)


REPORTS = f"""
import os, socket, time
line = socket.socket(fileno=int(os.environ["{LINK_VARIABLE}"]))
line.sendall(b'alive {{"worker": "w", "lease_s": 60, "lasts_s": 0}}\\n')
line.sendall(b'{{"done": 3, "failed": 0, "runs": 3, "reason": "REASON"}}\\n')
time.sleep(600)
"""


class TestOneThatHangs:
    def crew(self, code: str) -> Supervisor:
        command = [sys.executable, "-S", "-c", code]
        return Supervisor(command, 1, grace_s=1, exit_bound_s=1, clock=Hasty(), heartbeat=lambda worker: None)

    def test_before_it_has_begun_is_killed_and_started_again_and_again(self, caplog, monkeypatch) -> None:
        monkeypatch.setattr(supervisor, "START_MAX_S", 6.0)
        stop, crew = StopToken(), self.crew("import time; time.sleep(600)")
        thread = threading.Thread(target=crew.run, args=(stop,), daemon=True)
        thread.start()
        try:
            until("many are killed", lambda: caplog.text.count("has not begun after 6 s: killed") > STARTS_MAX)
        finally:
            stop.stop()
            thread.join(LONG_S)
        pauses = [float(found[1]) for found in re.finditer(r"by signal 9; another starts in ([\d.]+) s", caplog.text)]
        for pause, expected in zip(pauses[:4], (0.5, 1, 2, 4), strict=True):
            assert expected * 0.75 <= pause <= expected * 1.25

    def test_but_not_while_it_is_frozen(self, caplog, monkeypatch) -> None:
        monkeypatch.setattr(supervisor, "START_MAX_S", 6.0)
        stop, crew = StopToken(), self.crew("import os, signal, time; os.kill(os.getpid(), signal.SIGSTOP)")
        thread = threading.Thread(target=crew.run, args=(stop,), daemon=True)
        thread.start()
        time.sleep(20 / 20)  # of its time
        assert "killed" not in caplog.text
        stop.stop()
        thread.join(LONG_S)
        assert not thread.is_alive()

    def test_after_its_report_is_killed_and_its_work_counts(self, caplog) -> None:
        crew = self.crew(REPORTS.replace("REASON", "empty"))
        report, code = crew.run(StopToken())
        assert (report.done, report.reason, code) == (3, "empty", Exit.BAD)
        waited = re.search(r"has done its work and does not end after (\d+) s: killed", caplog.text)
        assert waited is not None
        assert int(waited[1]) >= 6  # of its time, of which a second is 50 ms: it may look a moment later
        assert caplog.text.count("another starts") == 0

    def test_after_its_report_is_not_asked_for_its_health(self) -> None:
        stop, crew = StopToken(), self.crew(REPORTS.replace("REASON", "memory"))
        thread = threading.Thread(target=crew.run, args=(stop,), daemon=True)
        thread.start()
        until("it has reported", lambda: any(process.report for process in crew._processes()))
        assert crew.processes == [None]
        health = supervisor_health(crew, stop, SYSTEM_CLOCK)
        stop.stop()
        assert health.workers == ()
        thread.join(LONG_S)
        assert not thread.is_alive()


class TestPauses:
    def run(self, code: str, stop: StopToken) -> None:
        command = [sys.executable, "-S", "-c", code]
        Supervisor(command, 1, grace_s=1, exit_bound_s=1, clock=Hasty(), heartbeat=lambda worker: None).run(stop)

    def test_they_grow_and_end_when_none_ever_starts(self, caplog) -> None:
        with pytest.raises(CommandFailed) as caught:
            self.run("import os; os._exit(9)", StopToken())
        assert caught.value.code == Exit.BAD
        pauses = [float(found[1]) for found in re.finditer(r"exit code 9; another starts in ([\d.]+) s", caplog.text)]
        assert len(pauses) == STARTS_MAX - 1
        for pause, expected in zip(pauses, (0.5, 1, 2, 4), strict=True):
            assert expected * 0.75 <= pause <= expected * 1.25

    def test_an_outage_of_the_store_is_sat_out(self, caplog) -> None:
        stop = StopToken()
        # The store is away for longer than starts are tried for any other reason.
        timer = threading.Thread(
            target=lambda: (until("8 starts", lambda: caplog.text.count("exit code 5;") >= 8), stop.stop())
        )
        caplog.set_level("WARNING")
        timer.start()
        self.run("import os; os._exit(5)", stop)
        timer.join(LONG_S)
        assert caplog.text.count("exit code 5;") >= 8
        assert max(float(found[1]) for found in re.finditer(r"starts in ([\d.]+) s", caplog.text)) <= 30


def test_a_worker_gets_the_command_line_without_processes() -> None:
    typed = ["worker", "a", "--processes", "4", "--processes=5", "-v", "--", "--processes"]
    assert worker_command(typed)[-5:] == ["worker", "a", "-v", "--", "--processes"]
