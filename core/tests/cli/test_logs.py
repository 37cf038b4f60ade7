"""What a worker writes to stderr: every line that a job's own code logs says which run it is about."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from protojobs.cli.showing.logs import logging_to_stderr
from protojobs.logs import RUNNING, JobFields

LOGGING = """
import asyncio, logging, threading
from protojobs import Job, JobContext, job

log = logging.getLogger("shop.code")

@job(name="in.thread", queue="emails")
def in_thread(): log.warning("hello")

@job(name="in.loop", queue="emails")
async def in_loop(word: str):
    log.warning("begin %s", word)
    await asyncio.sleep(0.05)
    log.warning("end %s", word)
    await asyncio.to_thread(log.warning, "beside %s", word)

@job(name="in.child", queue="emails", executor="process")
def in_child(context: JobContext):
    log.warning("hello")
    context.log.warning("by context")

class Failing(Job):
    name = "failing"
    max_retries = 0
    def handle(self, data): raise ValueError("no luck")
    def failed(self, error, data): log.warning("told of it")
"""
END = ("--stop-when-empty", "--app", "logging_shop", "--no-scheduler")


@pytest.fixture(autouse=True)
def shop(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "logging_shop", raising=False)
    (folder / "logging_shop.py").write_text(LOGGING)


def logged(err: str, logger: str) -> list[dict[str, Any]]:
    """The JSON lines of that logger."""
    return [line for text in err.splitlines() if (line := json.loads(text))["logger"] == logger]


def which(line: dict[str, Any]) -> tuple[object, ...]:
    return tuple(line.get(name) for name in ("job_id", "attempt", "job_name", "queue"))


class TestJson:
    @pytest.fixture
    def run(self, type_):
        """`run("in.thread", data)` -> the job's id, and what the worker wrote to stderr."""

        def run(*pushes: tuple[str, str]) -> tuple[list[str], str]:
            ids = [
                type_("push", name, data, "--queue", "emails", "--app", "logging_shop").out.strip()
                for name, data in pushes
            ]
            typed = type_("worker", "emails", *END, "--log-format", "json")
            assert typed.code == 0, typed
            return ids, typed.err

        return run

    def test_in_a_thread(self, run) -> None:
        (job_id,), err = run(("in.thread", "{}"))
        assert [which(line) for line in logged(err, "shop.code")] == [(job_id, 1, "in.thread", "emails")]

    def test_on_the_event_loop_each_task_has_its_own(self, run) -> None:
        ids, err = run(("in.loop", '{"word": "a"}'), ("in.loop", '{"word": "b"}'))
        for word, job_id in zip("ab", ids, strict=True):
            lines = [line for line in logged(err, "shop.code") if line["message"].endswith(word)]
            assert [line["message"] for line in lines] == [f"begin {word}", f"end {word}", f"beside {word}"]
            assert {which(line) for line in lines} == {(job_id, 1, "in.loop", "emails")}

    def test_in_a_child_process(self, run) -> None:
        (job_id,), err = run(("in.child", "{}"))
        assert [which(line) for line in logged(err, "shop.code")] == [(job_id, 1, "in.child", "emails")]
        assert [which(line) for line in logged(err, "protojobs.job")] == [(job_id, 1, "in.child", "emails")]

    def test_in_what_is_called_after_it_failed(self, run) -> None:
        (job_id,), err = run(("failing", "{}"))
        assert [which(line) for line in logged(err, "shop.code")] == [(job_id, 1, "failing", "emails")]

    def test_the_next_job_of_a_thread_has_its_own(self, run) -> None:
        ids, err = run(*[("in.thread", "{}")] * 5)
        assert sorted(str(line["job_id"]) for line in logged(err, "shop.code")) == sorted(ids)

    def test_every_line_is_one_json_object(self, run) -> None:
        _, err = run(("in.thread", "{}"), ("failing", "{}"))
        for text in err.splitlines():
            assert json.loads(text).keys() >= {"time", "level", "logger", "message"}


def test_as_text_too(type_) -> None:
    job_id = type_("push", "in.thread", "{}", "--app", "logging_shop").out.strip()
    err = type_("worker", "emails", *END).err
    assert f"WARNING shop.code: hello [job {job_id} attempt 1, in.thread in emails]\n" in err


def test_audit_lines_pass_however_quiet_the_rest_is(capsys) -> None:
    with logging_to_stderr(logging.ERROR, "json", quiet_others=True):
        logging.getLogger("protojobs.audit").info("jo cleared the queue", extra={"user": "jo", "action": "clear"})
        logging.getLogger("protojobs.worker").info("not heard")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["logger"], said["message"], said["user"], said["action"]) == (
        "protojobs.audit", "jo cleared the queue", "jo", "clear",
    )  # fmt: skip


def test_outside_of_a_job_nothing_is_added() -> None:
    record = logging.makeLogRecord({"msg": "hello"})
    assert RUNNING.get() is None
    assert JobFields().filter(record)
    assert "job_id" not in vars(record)
