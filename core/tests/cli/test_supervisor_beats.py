"""The supervisor beats for a worker that cannot, and only then: real processes, real locks, stops and kills."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from protojobs import StopToken, WorkReport, job
from protojobs.cli.supervising.supervisor import Supervisor
from protojobs.cli.supervising.supervisor_link import LINK_VARIABLE, SIGN_OF_LIFE, SupervisorLink
from protojobs.clock import SystemClock
from protojobs.errors import LeaseLost, StoreUnavailable
from protojobs.port.lifecycle import JobState

pytestmark = pytest.mark.slow  # run by `python3 dev.py test-slow`

LONG_S = 40.0  # for whatever must happen; only a failure waits so long
LEASE_S = 3.0
EXIT_BOUND_S = 0.5

# The first run of `hold` is inside one call in C that keeps the interpreter's lock, until somebody writes to the pipe
# of that name; that of `wait` waits for it as well, but lets other threads run.
HOLDING = """
import ctypes, os
from pathlib import Path
from protojobs import job

def is_first(name):
    with open(name + ".runs", "a") as marks:
        marks.write(f"{os.getpid()}\\n")
    return len(Path(name + ".runs").read_text().split()) == 1

@job(name="hold")
def hold(name: str):
    if is_first(name):
        pipe = os.open(name, os.O_RDWR)
        ctypes.PyDLL(None).read(pipe, ctypes.create_string_buffer(1), 1)

@job(name="wait")
def wait(name: str):
    if is_first(name):
        os.read(os.open(name, os.O_RDWR), 1)
"""


@job(name="hold")
def hold(name: str) -> None:
    """What is pushed; the workers run that of `holding`."""


@job(name="wait")
def wait(name: str) -> None:
    """As above."""


@pytest.fixture(autouse=True)
def holding(folder: Path, monkeypatch: pytest.MonkeyPatch, start) -> Iterator[None]:
    (folder / "holding.py").write_text(HOLDING)
    monkeypatch.setenv("PROTOJOBS_APP", "holding")
    monkeypatch.setenv("PROTOJOBS_LEASE", str(LEASE_S))
    monkeypatch.setenv("PROTOJOBS_EXIT_BOUND", str(EXIT_BOUND_S))
    yield
    for path in folder.glob("*.runs"):  # after a failure: what is inside the call ends in no other way
        for pid in runs(path.stem):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def until(said: str, is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < ends, f"in vain waited until {said}"
        time.sleep(0.02)


def runs(name: str) -> list[int]:
    """The pids of the processes that have begun to run the job of this name."""
    path = Path(f"{name}.runs")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def let_go(name: str) -> None:
    pipe = os.open(name, os.O_WRONLY)
    os.write(pipe, b"x")
    os.close(pipe)


def ended_well(process) -> str:
    """Stop it, and answer what it said on stderr."""
    process.started.send_signal(signal.SIGTERM)
    ended = process.ended()
    assert ended.code == 0, ended
    return ended.err


class TestACallThatKeepsTheInterpretersLock:
    def test_is_run_once_under_a_supervisor_and_twice_without(self, start, queue) -> None:
        for name in ("watched", "alone"):
            os.mkfifo(name)
        reclaiming = start("worker", "elsewhere")
        supervisor = start("worker", "watched", "--processes", "1", "--log-format", "json")
        worker = start("worker", "alone")
        until("three workers are there", lambda: len(queue.workers()) == 3)
        watched, alone = queue.push_many([hold.on_queue(name).bind(name) for name in ("watched", "alone")])
        until("both run", lambda: bool(runs("watched") and runs("alone")))
        until("the one is taken back", lambda: queue.get(alone).status is JobState.PENDING)
        ends = time.monotonic() + LEASE_S  # at first both had an equal chance: see the other one stand for longer
        while time.monotonic() < ends:
            assert queue.get(watched).status is JobState.PROCESSING
            assert runs("watched")[0] in {worker.pid for worker in queue.workers()}
            time.sleep(0.05)
        for name in ("watched", "alone"):
            let_go(name)
        until("both are done", lambda: all(queue.get(one).status is JobState.COMPLETED for one in (watched, alone)))
        assert (len(runs("watched")), len(runs("alone"))) == (1, 2)
        assert queue.get(watched).attempts == 1
        err = ended_well(supervisor)
        said = [json.loads(line)["message"] for line in err.splitlines() if line.startswith("{")]
        (warning,) = [text for text in said if "gives no sign of life" in text]
        assert f"worker {runs('watched')[0]} " in warning
        ended_well(worker)
        ended_well(reclaiming)

    def test_when_its_time_is_over_the_worker_is_killed_and_the_job_runs_again(self, start, queue) -> None:
        os.mkfifo("stuck")
        timeout_s = 3.0
        supervisor = start("worker", "--processes", "1")
        until("it has begun", lambda: len(queue.workers()) == 1)
        began = time.monotonic()
        job_id = queue.push(hold.with_timeout(timeout_s).bind("stuck"))
        until("it runs", lambda: len(runs("stuck")) == 1)
        (killed,) = runs("stuck")
        until("it is killed", lambda: not is_there(killed))
        lived_s = time.monotonic() - began
        until("it has run again", lambda: queue.get(job_id).status is JobState.COMPLETED)
        assert lived_s >= timeout_s + EXIT_BOUND_S
        assert runs("stuck")[1] != killed
        err = ended_well(supervisor)
        assert f"worker {killed} is silent for longer than any of its runs may take: killed" in err
        assert f"worker {killed} was ended by signal 9; another starts in 0." in err


@pytest.mark.skipif(sys.platform != "linux", reason="only /proc tells a frozen process from a busy one")
def test_a_frozen_worker_loses_its_lease_and_is_left_in_peace(start, queue) -> None:
    os.mkfifo("frozen")
    reclaiming = start("worker", "elsewhere")
    supervisor = start("worker", "--processes", "1")
    until("two workers are there", lambda: len(queue.workers()) == 2)
    job_id = queue.push(wait.bind("frozen"))
    until("it runs", lambda: len(runs("frozen")) == 1)
    (pid,) = runs("frozen")
    os.kill(pid, signal.SIGSTOP)
    try:
        until("it is taken back", lambda: queue.get(job_id).status is JobState.PENDING)
        assert pid not in {worker.pid for worker in queue.workers()}
    finally:
        os.kill(pid, signal.SIGCONT)
    until("it has run again", lambda: queue.get(job_id).status is JobState.COMPLETED)
    let_go("frozen")
    assert runs("frozen") == [pid, pid]  # the same process: it was not killed
    ended_well(supervisor)
    ended_well(reclaiming)


# ------------------------------------------------------------------------------------- the supervisor on its own


class Hasty(SystemClock):
    """Ten times as fast, and counts the looks."""

    looks = 0
    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() * 10 + self.ahead_s

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / 10)
        self.looks += 1


# Says that it lives, then nothing until the file `speak` is there; ends when the supervisor wants it to.
SILENT = f"""
import os, socket
line = socket.socket(fileno=int(os.environ["{LINK_VARIABLE}"]))
line.sendall(b'alive {{"worker": "w", "lease_s": LEASE, "lasts_s": LASTS}}\\n')
line.settimeout(0.02)
while True:
    try:
        line.recv(64)
        break
    except TimeoutError:
        pass
    if os.path.exists("speak"):
        line.sendall(b'alive {{"worker": "w", "lease_s": LEASE, "lasts_s": LASTS}}\\n')
        open("spoke", "w").close()
"""


class Beats:
    """What the supervisor calls to renew a lease: notes when, and does as it is told."""

    def __init__(self, clock: SystemClock) -> None:
        self.at: list[float] = []
        self.error: Exception | None = None
        self.hangs = threading.Event()
        self.hangs.set()
        self._clock = clock

    def __call__(self, worker: str) -> None:
        assert worker == "w"
        self.at.append(self._clock.monotonic())
        self.hangs.wait(LONG_S)
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock() -> Hasty:
    return Hasty()


@pytest.fixture
def beats(clock: Hasty) -> Iterator[Beats]:
    made = Beats(clock)
    yield made
    made.hangs.set()


@pytest.fixture
def crew(clock: Hasty, beats: Beats, caplog):
    """`with crew(lease, lasts) `: a supervisor of one silent worker, in a thread that ends soon when asked to."""

    @contextmanager
    def running(lease_s: float, lasts_s: float | None) -> Iterator[None]:
        code = SILENT.replace("LEASE", str(lease_s)).replace("LASTS", "null" if lasts_s is None else str(lasts_s))
        supervisor = Supervisor(
            [sys.executable, "-S", "-c", code], 1, grace_s=1, exit_bound_s=10, clock=clock, heartbeat=beats
        )
        stop = StopToken()
        thread = threading.Thread(target=supervisor.run, args=(stop,), daemon=True)
        caplog.set_level(logging.DEBUG, "protojobs.cli")
        thread.start()
        try:
            yield
            asked_at = time.monotonic()
        finally:
            stop.stop()
        thread.join(LONG_S)
        assert not thread.is_alive()
        assert time.monotonic() - asked_at < 5

    return running


class TestTheSupervisor:
    def test_beats_every_sixth_of_the_lease_until_the_worker_speaks_again(self, crew, beats, clock) -> None:
        with crew(60.0, None):
            until("it has beaten four times", lambda: len(beats.at) >= 4)
            gaps = [after - before for before, after in zip(beats.at, beats.at[1:], strict=False)]
            Path("speak").touch()
            until("the worker has spoken", Path("spoke").exists)
            looks = clock.looks
            until("it has been heard", lambda: clock.looks > looks + 10)
            count = len(beats.at)
            until("another beat were due", lambda: clock.looks > looks + 120)
        assert min(gaps) >= 60 / 6
        assert max(gaps) < 60
        assert len(beats.at) == count

    def test_goes_on_without_end_for_a_run_that_has_none(self, crew, beats, caplog) -> None:
        with crew(2.0, None):
            until("it has beaten for ten leases", lambda: len(beats.at) > 1 and beats.at[-1] - beats.at[0] > 20)
        assert "its lease is renewed for it without end" in caplog.text
        assert "killed" not in caplog.text

    def test_kills_the_worker_once_its_runs_must_have_ended(self, crew, beats, caplog) -> None:
        with crew(2.0, 9.0):
            until("it is killed", lambda: "killed" in caplog.text)
            killed_at = beats.at[-1]
            until("another starts", lambda: "was ended by signal 9; another starts" in caplog.text)
        # the run and the time to end itself, but for the first beats missed
        assert killed_at - beats.at[0] > 9 + 10 - 2

    def test_gives_an_idle_worker_a_whole_lease(self, crew, beats, caplog) -> None:
        with crew(20.0, 0.0):
            until("it is killed", lambda: "killed" in caplog.text)
        assert beats.at[-1] - beats.at[0] > 20 / 2

    def test_beats_no_more_once_the_lease_is_gone(self, crew, beats, clock, caplog) -> None:
        beats.error = LeaseLost("reclaimed")
        with crew(2.0, None):
            until("it has learnt so", lambda: "the lease of the silent worker w is gone" in caplog.text)
            looks = clock.looks
            until("many looks more", lambda: clock.looks > looks + 100)
        assert len(beats.at) == 1

    @pytest.mark.parametrize("error", [StoreUnavailable("cable pulled"), TypeError("a driver's mistake")])
    def test_goes_on_when_the_store_fails(self, crew, beats, error) -> None:
        beats.error = error
        with crew(2.0, None):
            until("it has tried again and again", lambda: len(beats.at) > 5)

    def test_stops_in_time_while_the_store_hangs(self, crew, beats) -> None:
        beats.hangs.clear()
        with crew(2.0, None):
            until("it hangs", lambda: len(beats.at) == 1)
        assert len(beats.at) == 1

    def test_does_not_take_its_own_absence_for_the_silence_of_others(self, crew, beats, clock, caplog) -> None:
        with crew(3000.0, 0.0):
            until("it has begun", lambda: clock.looks > 50)
            clock.ahead_s += 100_000  # as if all had been frozen, or the machine had slept
            looks = clock.looks
            until("many looks more", lambda: clock.looks > looks + 50)
        assert beats.at == []
        assert "killed" not in caplog.text


class TestTheWorker:
    """Its end of the line."""

    def test_gives_signs_of_life_also_while_its_heartbeat_thread_waits_for_the_store(self) -> None:
        ours, theirs = socket.socketpair()
        theirs.settimeout(LONG_S)
        link = SupervisorLink(ours)
        link.send_sign_of_life("w", 1.0, 60.0)
        with theirs.makefile("rb") as heard:
            words = [json.loads(next(heard).removeprefix(SIGN_OF_LIFE)) for _ in range(4)]
            link.report(WorkReport(done=1, failed=0, runs=1, reason="empty"))
            while (last := next(heard)).startswith(SIGN_OF_LIFE):  # one may have been on its way
                pass
        assert json.loads(last)["reason"] == "empty"
        lasts = [word["lasts_s"] for word in words]
        assert 59 < lasts[0] <= 60
        assert lasts == sorted(lasts, reverse=True)
        assert lasts[0] - lasts[-1] >= 3 / 6  # of the lease, which is a second

    def test_does_not_wait_for_a_supervisor_that_does_not_read(self) -> None:
        ours, theirs = socket.socketpair()
        link = SupervisorLink(ours)
        for _ in range(5_000):  # more than any system keeps for it
            link.send_sign_of_life("w", 60.0, 60.0)
        theirs.close()
        link.send_sign_of_life("w", 60.0, 60.0)
