"""`protojobs worker`: what it works, when it ends, what it says."""

from __future__ import annotations

import json
import logging
import re
import signal
import time
from pathlib import Path

import pytest

from protojobs.port.lifecycle import JobState

END = ("--app", "shop", "--stop-when-empty")


def log_lines(err: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in err.splitlines()]


class TestWhatItWorks:
    def test_the_queues_that_its_jobs_name_unless_told(self, push, type_, queue) -> None:
        push("broken")
        push("broken", "--queue", "partners")
        push("add", '{"a": 1, "b": 2}')
        typed = type_("worker", *END)
        assert "queues       default, emails, math, in fair turn" in typed.err
        assert (queue.stats("default").failed, queue.stats("math").completed) == (1, 1)
        assert queue.stats("partners").pending == 1

    def test_the_setting_unless_told(self, push, type_, queue, monkeypatch) -> None:
        monkeypatch.setenv("PROTOJOBS_QUEUES", "math=5,default=1")
        assert "queues       math=5, default=1, by weight" in type_("worker", *END).err
        assert "queues       emails" in type_("worker", "emails", *END).err

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (("urgent=5", "bulk"), "Some queues have a weight, and 'bulk' has none."),
            (("urgent=high",), "The weight of queue 'urgent' is 'high'."),
            (("urgent=0",), "weight of queue 'urgent' is 0."),
            (("urgent=5", "urgent=4"), "different queues"),
        ],
    )
    def test_weights_that_are_none(self, type_, url, words, error: str) -> None:
        typed = type_("worker", *words, *END)
        assert typed.code != 0
        assert error in typed.err

    def test_all_queues_that_match(self, push, type_, queue) -> None:
        for name in ("mail.a", "mail.b", "post"):
            push("broken", "--queue", name)
        typed = type_("worker", "mail.*", *END)
        assert "queues       mail.* (now mail.a, mail.b, in fair turn)" in typed.err
        assert (queue.stats("post").pending, queue.stats().failed) == (1, 2)

    def test_queues_in_the_order_given(self, push, type_, queue) -> None:
        jobs = {name: push("broken", "--queue", name) for name in ("a", "b", "c")}
        assert type_("worker", "c", "a", *END, "--max-jobs", "2", "--concurrency", "1").code == 0
        assert [queue.get(jobs[name]).status for name in "abc"] == ["failed", "pending", "failed"]

    def test_all_queues_are_those_of_the_store_those_of_the_jobs_and_the_default_one(self, push, type_, queue) -> None:
        for name in ("a", "b"):
            push("broken", "--queue", name)
        typed = type_("worker", "--all-queues", *END)
        assert "queues       * (now a, b, default, emails, math, in fair turn)" in typed.err
        assert queue.stats().failed == 2

    def test_names_and_all_queues_contradict(self, type_, url) -> None:
        assert type_("worker", "a", "--all-queues").code == 2

    def test_the_documented_order_of_arguments_is_recognised(self, push, type_) -> None:
        assert "did you mean --max-jobs 10?" in type_("worker", "emails", "10", "3", *END).err


class TestWhenItEnds:
    def test_after_max_jobs(self, push, type_, queue) -> None:
        for _ in range(3):
            push("broken")
        typed = type_("worker", "--app", "shop", "--max-jobs", "2")
        assert typed.code == 0
        assert "worker ended, since --max-jobs is reached: 0 done, 2 failed" in typed.err
        assert queue.stats().pending == 1

    def test_zero_is_no_limit(self, push, type_, queue) -> None:
        for _ in range(3):
            push("broken")
        assert type_("worker", *END, "--max-jobs", "0", "--max-time", "0", "--max-memory", "0").code == 0
        assert queue.stats().failed == 3

    def test_after_max_time(self, type_, url) -> None:
        started = time.monotonic()
        typed = type_("worker", "--app", "shop", "--max-time", "300ms", "--sleep", "0.1")
        assert (typed.code, "--max-time is over" in typed.err) == (0, True)
        assert time.monotonic() - started < 10

    @pytest.mark.parametrize("text", ["9" * 400, "much"])
    def test_what_is_no_amount_of_memory(self, type_, text) -> None:
        typed = type_("worker", "--max-memory", text)
        assert typed.code == 2
        assert "is no amount of memory" in typed.err

    def test_beyond_its_memory(self, type_, url) -> None:
        typed = type_("worker", "--app", "shop", "--max-memory", "1M")
        assert (typed.code, "the memory limit is passed" in typed.err) == (0, True)

    def test_what_came_too_late_if_anything_did(self, push, type_) -> None:
        push("robbed")
        typed = type_("worker", "--app", "shop", "--max-jobs", "1")
        assert "ended, since --max-jobs is reached: 0 done, 0 failed, 1 too late to be recorded\n" in typed.err

    def test_the_report_in_json(self, push, type_) -> None:
        push("add", '{"a": 1, "b": 2}')
        document = type_("worker", "math", *END, "--json").document
        assert document == {
            "schema": "protojobs/worker@1",
            "item": {"done": 1, "failed": 0, "runs": 1, "reason": "empty", "late": 0},
        }


class TestWhatItSays:
    def test_a_banner(self, type_, url) -> None:
        err = type_("worker", "a", "b", *END).err
        assert err.startswith("protojobs 0.")
        assert f"store        {url}" in err
        assert "queues       a, b, in this order" in err
        assert "concurrency  8" in err
        assert "mail.welcome" in err
        assert "to stop      Ctrl-C or SIGTERM" in err

    def test_that_jobs_run_in_child_processes_and_their_log_lines(self, push, start) -> None:
        push("chatty")
        push("slow", '{"seconds": 0}')
        worker = start("worker", "--executor", "process", "-v", "--log-format", "json", *END).ended()
        assert worker.code == 0, worker.err
        (half_way,) = [line for line in log_lines(worker.err) if line["message"] == "half-way"]
        assert (half_way["logger"], half_way["level"], half_way["attempt"]) == ("protojobs.job", "info", 1)
        assert worker.out == "slow began\n"
        text = start("worker", "--executor", "process", *END).ended().err
        assert "concurrency  8, in child processes" in text

    def test_a_warning_when_it_knows_no_jobs(self, start, url) -> None:
        err = start("worker", "--stop-when-empty").ended().err
        assert "jobs known   0" in err
        assert "name the module that defines them with --app" in err

    def test_a_failed_job_and_one_that_runs_again_always(self, push, type_) -> None:
        job_id = push("broken")
        push("flaky")
        err = type_("worker", *END).err
        assert re.search(rf"ERROR .*broken: failed for good: ValueError: no luck \[job {job_id} attempt 1\]", err)
        assert "Traceback (most recent call last):" in err
        assert re.search(r"WARNING .*flaky: failed, runs again at 20.*Z: RuntimeError: not today", err)

    def test_each_job_with_v(self, push, type_) -> None:
        push("chatty")
        assert "chatty" not in type_("worker", *END).err.partition("to stop")[2]
        push("chatty")
        err = type_("worker", *END, "-v").err
        assert re.search(r"INFO .*chatty: started", err)
        assert re.search(r"INFO .*chatty: done in 0\.\d+ s", err)
        assert "half-way" in err

    def test_a_level_by_name(self, push, type_) -> None:
        push("broken")
        assert "failed for good" not in type_("worker", *END, "--log-level", "critical").err

    def test_json_lines_and_nothing_else(self, push, type_) -> None:
        job_id = push("broken")
        push("chatty")
        lines = log_lines(type_("worker", *END, "--log-format", "json", "-v").err)
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
        assert (lines[0]["message"], lines[0]["queues"]) == ("worker starting", "default,emails,math")
        (failed,) = [line for line in lines if "failed for good" in str(line["message"])]
        assert (failed["level"], failed["job_id"], failed["attempt"]) == ("error", job_id, 1)
        assert "ValueError: no luck" in str(failed["exception"])
        (half_way,) = [line for line in lines if line["message"] == "half-way"]
        assert (half_way["logger"], half_way["attempt"]) == ("protojobs.job", 1)
        assert (lines[-1]["reason"], lines[-1]["failed"]) == ("empty", 1)

    def test_logging_and_signals_are_as_they_were_afterwards(self, type_, url) -> None:
        before = [*logging.getLogger().handlers], logging.getLogger().level, signal.getsignal(signal.SIGTERM)
        type_("worker", *END)
        assert ([*logging.getLogger().handlers], logging.getLogger().level, signal.getsignal(signal.SIGTERM)) == before

    def test_hostile_text_of_a_job_is_escaped(self, push, type_) -> None:
        push("broken", '{"text": "red\\u001b[31m"}')
        err = type_("worker", *END).err
        assert "\x1b" not in err
        assert r"red\x1b[31m" in err


class TestSignals:
    def test_the_first_lets_running_jobs_finish(self, push, start, queue) -> None:
        job_id = push("slow", '{"seconds": 1}')
        worker = start("worker", "--app", "shop")
        worker.says("slow began")
        worker.started.send_signal(signal.SIGTERM)
        ended = worker.ended()
        assert ended.code == 0
        assert "SIGTERM: claiming no more; running jobs get 25 s. Again to cut them short." in ended.err
        assert "worker ended, since it was told to stop: 1 done" in ended.err
        assert queue.get(job_id).status is JobState.COMPLETED
        assert queue.workers() == []

    def test_the_second_cuts_them_short_unspent(self, push, start, queue) -> None:
        job_id = push("slow")
        worker = start("worker", "--app", "shop")
        worker.says("slow began")
        worker.started.send_signal(signal.SIGINT)
        worker.started.send_signal(signal.SIGTERM)
        ended = worker.ended()
        assert ended.code == 0
        assert "cutting running jobs short" in ended.err
        job = queue.get(job_id)
        assert (job.status, job.attempts) == (JobState.PENDING, 0)
        assert queue.workers() == []

    def test_notes_are_json_lines_where_the_log_is(self, push, start) -> None:
        push("slow", '{"seconds": 0.5}')
        worker = start("worker", "--app", "shop", "--log-format", "json")
        worker.says("slow began")
        worker.started.send_signal(signal.SIGTERM)
        messages = [str(line["message"]) for line in log_lines(worker.ended().err)]
        assert [one for one in messages if one.startswith("SIGTERM: claiming no more")]

    def test_an_idle_worker_ends_at_once(self, start, url) -> None:
        worker = start("worker", "--app", "shop", "--log-format", "json")
        assert worker.started.stderr is not None
        assert "worker starting" in worker.started.stderr.readline()
        time.sleep(0.3)  # past the last step before it waits; a signal before that ends it as well
        started = time.monotonic()
        worker.started.send_signal(signal.SIGTERM)
        assert worker.ended().code == 0
        assert time.monotonic() - started < 5


def test_a_run_that_cannot_be_ended_ends_the_process_in_time(push, start, queue, monkeypatch) -> None:
    monkeypatch.setenv("PROTOJOBS_EXIT_BOUND", "4")
    job_id = push("stuck")
    worker = start("worker", "--app", "shop")
    worker.says("stuck began")
    started = time.monotonic()
    ended = worker.ended()
    assert time.monotonic() - started < 0.2 + 2 + 4 + 2  # its timeout, the time it gets to end, the bound, this machine
    assert ended.code == 1
    assert "a run could not be ended" in ended.err
    assert "JobTimeout" in ended.err
    job = queue.get(job_id)
    assert (job.status, job.attempts) == (JobState.PENDING, 1)


LEAVES_A_THREAD = """
import asyncio, time
import protojobs.cli.entry
from protojobs import job

protojobs.cli.entry.LINGER_S = 0.3

@job(name="leaves a thread", timeout=0.2, max_retries=0)
async def leaves_a_thread() -> None:
    await asyncio.to_thread(time.sleep, 20)
"""


def test_a_thread_that_a_job_left_behind_does_not_hold_the_process_back(start, url) -> None:
    Path("leaving.py").write_text(LEAVES_A_THREAD)
    assert start("push", "leaves a thread", "--app", "leaving").ended().code == 0
    started = time.monotonic()
    ended = start("worker", "--app", "leaving", "--stop-when-empty").ended(15)
    assert time.monotonic() - started < 15
    assert ended.code == 1
    assert "worker ended" in ended.err
    assert "a thread that a job left behind is still at work" in ended.err


def test_what_looks_like_a_list_of_queues_or_a_number_of_jobs_is_told(type_, queue) -> None:
    said = type_("worker", "urgent,my mails", "10", "--app", "shop", "--stop-when-empty").err
    assert "\"urgent,my mails\" is taken for one queue; did you mean: protojobs worker urgent 'my mails'" in said
    assert '"10" is taken for a queue; did you mean --max-jobs 10?' in said
    queue.pause("a,b")
    assert "taken for" not in type_("worker", "a,b", "--app", "shop", "--stop-when-empty").err  # there is one


SAYS_GOODBYE = """
import atexit, threading, time
import protojobs.cli.entry
from protojobs import job

protojobs.cli.entry.LINGER_S = 0.3
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
atexit.register(lambda: (time.sleep(1), print("goodbye")))

@job(name="plain")
def plain() -> None: ...
"""


def test_what_an_application_does_at_its_exit_has_its_time(start, url) -> None:
    Path("polite.py").write_text(SAYS_GOODBYE)
    assert start("push", "plain", "--app", "polite").ended().code == 0
    ended = start("worker", "--app", "polite", "--stop-when-empty").ended(15)
    assert (ended.code, "goodbye" in ended.out) == (0, True)


def test_a_store_that_is_not_there_ends_it_at_the_start(type_) -> None:
    typed = type_("worker", "--app", "shop", "--url", "postgresql://127.0.0.1:1/none")
    assert typed.code == 5
    assert "concurrency" not in typed.err
