"""Every error says what, why and the mend, and has its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from protojobs.cli.exits import CommandFailed, Exit, exit_of, exit_of_many
from protojobs.errors import (
    ConfigurationError,
    ContractBroken,
    DataInvalid,
    DriverNotFound,
    JobUnknown,
    LeaseLost,
    NotSupported,
    OptionInvalid,
    PushRejected,
    ScheduleUnknown,
    SchemaOutdated,
    StoreUnavailable,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), 2),
        (OptionInvalid("x"), 2),
        (DriverNotFound("x"), 2),
        (DataInvalid("x"), 2),
        (JobUnknown("x"), 3),
        (ScheduleUnknown("x"), 3),
        (CommandFailed(Exit.CONFLICT, "x"), 4),
        (StoreUnavailable("x"), 5),
        (NotSupported("x"), 7),
        (SchemaOutdated("x"), 8),
        (ContractBroken("x"), 1),
        (LeaseLost("x"), 1),
        (PushRejected("x"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_its_code(error, code) -> None:
    assert exit_of(error) == code


def test_several_answers_have_one_code() -> None:
    assert exit_of_many([]) == Exit.OK
    assert exit_of_many([Exit.OK, Exit.OK]) == Exit.OK
    assert exit_of_many([Exit.NOT_FOUND] * 2) == Exit.NOT_FOUND
    assert exit_of_many([Exit.OK, Exit.NOT_FOUND]) == Exit.PARTLY


@pytest.fixture
def store_says(monkeypatch, url):
    def make(error: BaseException) -> None:
        def stats(self: object, queue: str | None = None) -> object:
            raise error

        monkeypatch.setattr("protojobs_sqlalchemy.SQLAlchemyDriver.stats", stats)

    return make


def test_what_why_and_the_mend_stand_on_lines_of_their_own(type_, store_says) -> None:
    store_says(StoreUnavailable("It did not answer. The network is away.", mend="Try: ping db"))
    typed = type_("stats")
    assert (typed.code, typed.out) == (5, "")
    assert typed.err == "error: It did not answer.\n  The network is away.\n  try: ping db\n"


def test_the_traceback_comes_with_debug_only(type_, store_says) -> None:
    store_says(StoreUnavailable("away"))
    assert "Traceback" not in type_("stats").err
    for words in (("--debug", "stats"), ("stats", "--debug")):
        typed = type_(*words)
        assert "Traceback (most recent call last):" in typed.err
        assert "error: away" in typed.err


def test_a_fault_of_ours_is_called_one(type_, store_says) -> None:
    store_says(ZeroDivisionError("division by zero"))
    typed = type_("stats")
    assert typed.code == 1
    assert typed.err.startswith("error: unexpected ZeroDivisionError: division by zero\n")
    assert "--debug" in typed.err
    assert "Traceback" not in typed.err


def test_ctrl_c_is_130(type_, store_says) -> None:
    store_says(KeyboardInterrupt())
    typed = type_("stats")
    assert typed.code == 130
    assert "Traceback" not in typed.err


def test_a_push_without_an_answer_tells_how_to_repeat_it(type_, url, monkeypatch) -> None:
    def enqueue(self: object, jobs: object) -> object:
        raise StoreUnavailable("away")

    monkeypatch.setattr("protojobs_sqlalchemy.SQLAlchemyDriver.enqueue", enqueue)
    monkeypatch.setenv("PROTOJOBS_PUSH_TIMEOUT", "0.1")
    typed = type_("push", "broken", "--app", "shop")
    assert (typed.code, typed.out) == (5, "")
    assert "the same command with --id 0" in typed.err


def test_passwords_are_not_shown(type_) -> None:
    for address in ("nothing://jo:s3cret@host/db", "postgresql://jo:s3cret@127.0.0.1:1/db"):
        typed = type_("stats", "--url", address)
        assert typed.code in (2, 5)
        assert "s3cret" not in typed.err + typed.out


def test_a_file_that_is_no_database_is_told(type_, folder: Path) -> None:
    (folder / "jobs.db").write_text("this is no database, but it is long enough to be taken for one" * 100)
    typed = type_("stats", "--url", "sqlite:///jobs.db")
    assert typed.code in (1, 5)
    assert "not a database" in typed.err
    assert "of another kind, or encrypted. Name another path" in typed.err


def test_a_reader_that_has_seen_enough_is_no_error(queue, push) -> None:
    push("broken")
    queue.push_many([("broken", {"text": "x" * 200})] * 2000)
    process = subprocess.Popen(
        [sys.executable, "-m", "protojobs.cli", "jobs", "list", "--limit", "2000", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 141


@pytest.mark.parametrize("module", ["protojobs", "protojobs.cli"])
def test_run_as_a_module_it_ends_with_the_same_code(module: str) -> None:
    ran = subprocess.run([sys.executable, "-m", module, "no-such-command"], capture_output=True, timeout=60)
    assert ran.returncode == Exit.USAGE
