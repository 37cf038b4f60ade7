"""`protojobs scheduler`, and the thread in every worker that does the same."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from protojobs import JobQueue, Scheduler, StopToken
from protojobs.cli.supervising import scheduler_thread as ticking_module
from protojobs.cli.supervising.scheduler_thread import ticking
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import ConfigurationError, NotSupported
from protojobs.port.lifecycle import JobState

PLANS = """
from protojobs import job

@job(name="nightly", cron="0 3 1 1 *")
def nightly(): ...

@job(name="beat", cron="* * * * * *")
def beat(): print("a beat", flush=True)
"""
WRONG = {
    "unknown job": ('job = "brokn"\nevery = 60', 'Did you mean "broken"?'),
    "field": ('job = "broken"\ncron = "0 25 * * *"', "the hour '25' does not work"),
    "zone": ('job = "broken"\ncron = "@daily"\ntimezone = "Mars/Olympus"', "no time zone"),
    "data": ('job = "add"\nevery = 60', "missing required field `a`"),
    "neither": ('job = "broken"', 'it has "cron" or "every"'),
}


@pytest.fixture
def plans(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An application that declares two schedules, one of them of every second."""
    monkeypatch.delitem(sys.modules, "plans", raising=False)
    (folder / "plans.py").write_text(PLANS)
    return "plans"


@pytest.fixture
def due(keep):
    """`due("x", ...)`: a schedule that is due since a moment ago, once."""

    def run(name: str, **changes: object) -> None:
        now = SYSTEM_CLOCK.now()
        keep(name, **{"spec": "0 3 1 1 *", "next_due_at": now - timedelta(seconds=1), **changes})

    return run


def last_job(queue: JobQueue, name: str) -> str | None:
    return queue.driver.get_schedules([name]).schedules[0].last_job_id


class TestOnce:
    def test_stores_what_is_declared_and_says_nothing(self, type_, queue, plans) -> None:
        typed = type_("scheduler", "--once", "--app", plans)
        assert (typed.code, typed.out, typed.err) == (0, "", "")
        assert [one.id for one in Scheduler(queue).iterate()] == ["beat", "nightly"]

    def test_fires_what_is_due_and_says_so_when_asked(self, type_, queue, due) -> None:
        due("weekly")
        due("other")
        typed = type_("scheduler", "--once", "--verbose")
        assert (typed.code, typed.out) == (0, "")
        for name in ("weekly", "other"):
            assert f"schedule {name}: fired for 20" in typed.err
            assert f"[job {last_job(queue, name)}, broken in reports]" in typed.err
        assert "2 times fired; the next is due in " in typed.err
        assert queue.stats("reports").pending == 2

    def test_twice_fires_once(self, type_, queue, due) -> None:
        due("weekly")
        assert type_("scheduler", "--once").code == 0
        typed = type_("scheduler", "--once", "-v")
        assert "nothing was due; the next is due in" in typed.err
        assert queue.stats("reports").pending == 1

    def test_nothing_at_all_is_said_too(self, type_, url) -> None:
        assert type_("scheduler", "--once", "-v").err == "nothing was due\n"

    def test_missed_times_are_said_without_being_asked(self, type_, keep) -> None:
        keep("weekly", next_due_at=SYSTEM_CLOCK.now() - timedelta(days=30))
        typed = type_("scheduler", "--once")
        assert typed.code == 0
        assert "schedule weekly: missed" in typed.err

    def test_the_report_in_json(self, type_, due) -> None:
        due("weekly")
        document = type_("scheduler", "--once", "--json").document
        assert document["schema"] == "protojobs/scheduler@1"
        item = document["item"]
        assert (item["fired"], item["missed"], item["overtaken"]) == (1, 0, 0)
        assert item["next_due_in"] > 0

    def test_json_lines_and_nothing_else(self, type_, due) -> None:
        due("weekly")
        lines = [
            json.loads(line) for line in type_("scheduler", "--once", "-v", "--log-format", "json").err.splitlines()
        ]
        assert lines[0]["schedule"] == "weekly"
        assert lines[-1]["message"].startswith("scheduler ended: 1 time fired")

    def test_a_store_that_is_away(self, type_) -> None:
        typed = type_("scheduler", "--once", "--url", "postgresql://127.0.0.1:1/none")
        assert typed.code == 5
        assert typed.err.startswith("error: ")


class TestDaemon:
    def test_fires_until_it_is_told_to_stop(self, start, url, queue, plans) -> None:
        scheduler = start("scheduler", "--app", plans, "-v")
        scheduler.notes("scheduler, pid")
        scheduler.notes(f"store        {url}")
        scheduler.notes("schedules    2 stored, 2 of them declared here")
        scheduler.notes("to stop      Ctrl-C or SIGTERM")
        scheduler.notes("schedule beat: fired for")
        scheduler.notes("schedule beat: fired for")
        scheduler.started.send_signal(signal.SIGTERM)
        started = time.monotonic()
        ended = scheduler.ended()
        assert time.monotonic() - started < 5
        assert (ended.code, ended.out) == (0, "")
        assert "SIGTERM: firing no more." in ended.err
        assert "scheduler ended, since it was told to stop" in ended.err
        assert queue.stats().pending >= 2

    def test_in_json_lines(self, start, url, plans) -> None:
        scheduler = start("scheduler", "--app", plans, "--log-format", "json")
        assert scheduler.started.stderr is not None
        first = json.loads(scheduler.started.stderr.readline())
        assert (first["message"], first["declared"], first["stored"]) == ("scheduler starting", 2, 2)
        scheduler.started.send_signal(signal.SIGINT)
        ended = scheduler.ended()
        messages = [json.loads(line)["message"] for line in ended.err.splitlines()]
        assert messages == ["SIGINT: firing no more.", "scheduler ended: it was told to stop"]

    def test_a_store_that_is_away_at_the_start(self, type_) -> None:
        typed = type_("scheduler", "--url", "postgresql://127.0.0.1:1/none")
        assert typed.code == 5
        assert "to stop" not in typed.err


@pytest.mark.parametrize("table", WRONG)
@pytest.mark.parametrize(
    "words", [("scheduler",), ("scheduler", "--once"), ("worker",), ("worker", "--processes", "2")], ids=" ".join
)
def test_a_schedule_that_is_declared_wrongly_stops_the_start(type_, url, folder: Path, words, table) -> None:
    said, why = WRONG[table]
    (folder / "protojobs.toml").write_text(f"[schedules.x]\n{said}\n")
    typed = type_(*words, "--app", "shop")
    assert (typed.code, typed.out) == (2, "")
    assert typed.err.startswith("error: schedules.x: ")
    assert why in typed.err
    assert "to stop" not in typed.err


class TestWorker:
    def test_fires_what_is_due_before_it_looks_for_jobs(self, type_, queue, due) -> None:
        due("weekly")
        assert type_("worker", "reports", "--app", "shop", "--stop-when-empty").code == 0
        job = queue.get(last_job(queue, "weekly") or "")
        assert job is not None
        assert job.attempts == 1

    def test_does_so_with_a_number_of_jobs_too(self, type_, queue, due) -> None:
        due("weekly")
        assert type_("worker", "reports", "--app", "shop", "--max-jobs", "1", "--max-time", "20s").code == 0
        assert queue.get(last_job(queue, "weekly") or "").attempts == 1

    def test_fires_nothing_when_told_so(self, type_, queue, due, folder: Path) -> None:
        (folder / "protojobs.toml").write_text('[schedules.x]\njob = "broken"\nevery = 60\n')
        due("weekly")
        typed = type_("worker", "reports", "--app", "shop", "--max-time", "1500ms", "--no-scheduler")
        assert typed.code == 0
        assert "schedules    not ticked here" in typed.err
        assert last_job(queue, "weekly") is None
        assert [one.id for one in Scheduler(queue).iterate()] == ["weekly"]

    @pytest.mark.parametrize("more", [(), ("--processes", "2")], ids=["alone", "supervised"])
    def test_fires_while_it_works_and_stops_in_time(self, start, queue, keep, more) -> None:
        keep("often", spec="* * * * * *", job_name="slow", data='{"seconds": 0}', next_due_at=SYSTEM_CLOCK.now())
        worker = start("worker", "reports", "--app", "shop", *more)
        worker.says("slow began")
        worker.says("slow began")
        started = time.monotonic()
        worker.started.send_signal(signal.SIGTERM)
        ended = worker.ended()
        assert time.monotonic() - started < 8
        assert ended.code == 0, ended
        job = queue.get(last_job(queue, "often") or "")
        assert job.status in (JobState.COMPLETED, JobState.PENDING)

    def test_says_how_many_are_declared(self, type_, url, plans) -> None:
        assert "schedules    2 declared here" in type_("worker", "--app", plans, "--stop-when-empty").err
        line = type_("worker", "--app", plans, "--stop-when-empty", "--log-format", "json").err.splitlines()[0]
        assert (json.loads(line)["schedules_declared"], json.loads(line)["fires_schedules"]) == (2, True)

    def test_leaves_no_thread_behind(self, type_, url) -> None:
        type_("worker", "--app", "shop", "--stop-when-empty")
        assert [thread.name for thread in threading.enumerate() if thread.name == "protojobs-ticker"] == []


class Runs:
    """Stands for a Scheduler: `run` does what it is told, one thing a time, and then waits for its stop."""

    def __init__(self, *what: BaseException) -> None:
        self.left = list(what)
        self.calls = 0

    def run(self, stop: StopToken) -> None:
        self.calls += 1
        if self.left:
            raise self.left.pop(0)
        told = threading.Event()
        stop.subscribe(lambda _level: told.set())
        assert told.wait(20)


class TestTheThread:
    def test_ends_with_the_block_and_keeps_no_process_alive(self) -> None:
        runs, stop = Runs(), StopToken()
        with ticking(runs, stop) as thread:
            assert thread.is_alive()
            assert thread.daemon
        assert not thread.is_alive()
        assert stop.level == 0

    def test_ends_when_it_is_told_to(self) -> None:
        runs, stop = Runs(), StopToken()
        with ticking(runs, stop) as thread:
            stop.stop()
            thread.join(10)
            assert not thread.is_alive()

    @pytest.mark.parametrize("error", [ConfigurationError("x"), SystemExit("x"), ZeroDivisionError("x")], ids=repr)
    def test_outlives_whatever_goes_wrong_in_it(self, monkeypatch, caplog, eventually, error) -> None:
        monkeypatch.setattr(ticking_module, "AGAIN_S", 0.01)
        runs = Runs(error, error)
        with ticking(runs, StopToken()):
            eventually(lambda: runs.calls == 3)
        assert sum("firing schedules failed, trying again" in record.getMessage() for record in caplog.records) == 2

    def test_gives_up_where_the_store_keeps_no_schedules(self, caplog) -> None:
        with ticking(runs := Runs(NotSupported("It keeps no schedules.")), StopToken()) as thread:
            thread.join(10)
        assert runs.calls == 1
        assert "no schedule is fired by this process: It keeps no schedules." in caplog.text

    def test_does_not_hold_up_a_worker_while_the_store_keeps_it_waiting(self, monkeypatch) -> None:
        monkeypatch.setattr(ticking_module, "JOIN_S", 0.05)
        release = threading.Event()

        class Stuck:
            def run(self, stop: StopToken) -> None:
                assert release.wait(20)

        started = time.monotonic()
        with ticking(Stuck(), StopToken()) as thread:
            pass
        assert time.monotonic() - started < 5
        release.set()
        thread.join(10)
        assert not thread.is_alive()
