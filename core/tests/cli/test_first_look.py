"""What somebody sees who types `protojobs` for the first time; and that it comes quickly."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from protojobs.cli import other_tools
from protojobs.cli.command_table import BUILT_IN
from protojobs.cli.commands.worker import command as worker
from protojobs.cli.entry import root
from protojobs.cli.exits import MEANINGS


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in BUILT_IN:
        command = import_module(f"protojobs.cli.commands.{name}").command
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, child) for child in command.commands]
    return found


def test_alone_it_prints_its_help(type_) -> None:
    typed = type_()
    assert typed.code == 0
    assert typed.out == type_("--help").out
    assert typed.err == ""


def test_the_help_names_every_command_and_every_exit_code(type_) -> None:
    text = " ".join(type_("--help").out.split())
    for name, words in BUILT_IN.items():
        assert f"{name} {words}" in text
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning}" in text


def test_the_words_in_the_table_are_the_commands_own() -> None:
    for name, words in BUILT_IN.items():
        assert import_module(f"protojobs.cli.commands.{name}").command.short_help == words


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_help_that_fits_a_terminal(type_, words) -> None:
    typed = type_(*words, "--help")
    assert typed.code == 0
    assert typed.out.startswith(f"Usage: protojobs {' '.join(words)} ")
    assert "--url URL" in typed.out
    assert not any(line.endswith("...") for line in typed.out.splitlines()[1:]), typed.out  # a sentence cut short
    assert all(len(line) <= 84 for line in typed.out.splitlines()), typed.out


def test_it_tells_its_version(type_) -> None:
    assert type_("--version").out.startswith("protojobs 0.")


def test_help_loads_no_driver_no_worker_and_no_rich() -> None:
    program = (
        "import sys; from protojobs.cli import main; main(['--help']);"
        "heavy = {'rich', 'sqlalchemy', 'protojobs.worker', 'protojobs.cli.commands.worker', 'protojobs_memory'};"
        "sys.exit(f'{heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr


def test_help_takes_little_longer_than_the_libraries_that_it_needs(tmp_path: Path) -> None:
    # As it is once installed: compiled, also where this run was told to leave no compiled files behind.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}

    def took(*arguments: str) -> float:
        """Processor time: the other tests of this run do not add to it as they do to the time of day."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=30, env=env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    needed = ("-c", "import click, msgspec, importlib.metadata, logging")
    rounds = [(took("-m", "protojobs.cli", "--help"), took(*needed)) for _ in range(6)][1:]
    help_s, needed_s = (min(column) for column in zip(*rounds, strict=True))
    assert help_s < 2.2 * needed_s, f"{help_s * 1000:.0f} ms, and the libraries alone {needed_s * 1000:.0f} ms"


class TestCommandsOfOtherDistributions:
    def test_one_that_is_not_installed_says_how_to_install_it(self, type_, monkeypatch) -> None:
        monkeypatch.setattr("protojobs.cli.command_table.entry_points", lambda group: ())
        typed = type_("demo")
        assert (typed.code, typed.out) == (2, "")
        assert 'try: pip install "protojobs[demo]"' in typed.err
        assert 'pip install "protojobs[demo]"' in type_("--help").out

    def test_one_that_is_installed_runs_and_its_number_is_the_exit_code(self, type_, offers) -> None:
        offers("bench", click.Command("bench", callback=lambda: click.echo("fast") or 1))
        typed = type_("bench")
        assert (typed.code, typed.out) == (1, "fast\n")
        assert "bench" in type_("--help").out

    def test_one_that_cannot_be_imported_is_named_with_its_trouble(self, type_, offers) -> None:
        offers("bench", ImportError("no module named numbers"))
        typed = type_("bench")
        assert typed.code == 2
        assert 'The command "bench" of bench-for-protojobs cannot be imported.' in typed.err
        assert "ImportError: no module named numbers" in typed.err

    def test_none_takes_the_place_of_ours(self, type_, offers) -> None:
        offers("drivers", click.Command("drivers", callback=lambda: click.echo("mine")))
        assert "mine" not in type_("drivers").out


@pytest.fixture
def offers(monkeypatch):
    class Distribution:
        name = "bench-for-protojobs"
        version = "1.0"

    class Entry:
        value = "bench:command"
        dist = Distribution()

        def __init__(self, name: str, what: object) -> None:
            self.name, self.what = name, what

        def load(self) -> object:
            if isinstance(self.what, Exception):
                raise self.what
            return self.what

    def offer(name: str, what: object) -> None:
        monkeypatch.setattr("protojobs.cli.command_table.entry_points", lambda group: (Entry(name, what),))

    return offer


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("wroker",), 'Did you mean "worker"?'),
        (("jobs", "lst"), 'Did you mean "list"?'),
        (("stats", "--jsn"), 'Did you mean "--json"?'),
        (("worker", "--max-job", "3"), 'Did you mean "--max-jobs"?'),
        (("worker", "--burst"), "Here it is --stop-when-empty."),
        (("worker", "-c", "4"), "The number of jobs at once is --concurrency: protojobs worker --concurrency 8."),
        (("-A", "shop", "worker"), "The application is --app: protojobs worker --app shop.jobs."),
        (("beat",), "protojobs scheduler"),
        (("purge",), "protojobs queues clear QUEUE"),
        (("worker", "-B"), "Every worker fires schedules by itself: leave the option out."),
        (("celery",), "Jobs are run by: protojobs worker QUEUE"),
        (("jobs", "push", "invoice", "7"), "It is in no group: protojobs push"),
        (("jobs", "purge"), "protojobs queues clear QUEUE"),
        (("queues", "purge", "emails"), "protojobs queues clear QUEUE"),
        (("worker", "-qemails"), "Queues are named without an option: protojobs worker emails default."),
    ],
)
def test_a_slip_of_the_finger_is_understood(type_, words, meant) -> None:
    typed = type_(*words)
    assert (typed.code, typed.out) == (2, "")
    assert typed.err.startswith("error: There is no ")
    assert meant in typed.err
    assert "--help" in typed.err


CONCURRENCY = "The number of jobs at once is --concurrency: protojobs worker --concurrency 8."
PROCESSES = "The number of worker processes is --processes: protojobs worker --processes 4."
EXECUTOR = "Where jobs run is --executor: protojobs worker --executor process."
QUEUES = "Queues are named without an option: protojobs worker emails default."
SCHEDULES = "Every worker fires schedules by itself: leave the option out."
CLEAR = "A queue's jobs are deleted by: protojobs queues clear QUEUE"
PUSH = "A job is stored by: protojobs push NAME JSON"
WORK = "Jobs are run by: protojobs worker QUEUE"


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--burst", "Here it is --stop-when-empty."),
        ("-b", "Here --burst is --stop-when-empty."),
        ("--once", "Here it is --max-jobs 1."),
        ("-A", "The application is --app: protojobs worker --app shop.jobs."),
        ("-B", SCHEDULES),
        ("--beat", SCHEDULES),
        ("-c", CONCURRENCY),
        ("-t", CONCURRENCY),
        ("--threads", CONCURRENCY),
        ("-p", PROCESSES),
        ("-w", PROCESSES),
        ("--workers", PROCESSES),
        ("-P", EXECUTOR),
        ("--pool", EXECUTOR),
        ("-l", "The level of the log is --log-level: protojobs worker --log-level debug."),
        ("-q", QUEUES),
        ("-Q", QUEUES),
        ("--queue", QUEUES),
        ("--queues", QUEUES),
        ("--memory", "Here it is --max-memory 512M."),
        ("--tries", "How often a job is tried is a setting: max_retries, or PROTOJOBS_MAX_RETRIES."),
        ("--timeout", "How long a job may run is a setting: timeout, or PROTOJOBS_TIMEOUT."),
    ],
)
def test_the_whole_message_for_an_option_of_another_library(type_, option, told) -> None:
    assert option in other_tools.OPTIONS
    typed = type_("worker", option, "7")
    assert (typed.code, typed.out) == (2, "")
    assert typed.err == f'error: There is no option "{option}".\n  {told}\n  try: protojobs worker --help\n'


def test_the_whole_message_is_known_for_each_option_and_command_of_another_library() -> None:
    def pinned(test: pytest.Function) -> set[str]:
        return {case[0] for mark in test.pytestmark for case in mark.args[1]}

    assert pinned(test_the_whole_message_for_an_option_of_another_library) == set(other_tools.OPTIONS)
    assert pinned(test_the_whole_message_for_a_command_of_another_library) == set(other_tools.COMMANDS)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("beat", "Schedules are fired by every worker, and by: protojobs scheduler"),
        ("purge", CLEAR),
        ("empty", CLEAR),
        ("inspect", "What is at work is shown by: protojobs workers, protojobs jobs list --state processing"),
        ("control", "Queues are stopped by: protojobs queues pause QUEUE; jobs by: protojobs jobs cancel ID"),
        ("events", "What happens is shown by: protojobs top"),
        ("flower", "A page in the browser shows jobs and workers: protojobs dashboard"),
        ("call", PUSH),
        ("enqueue", PUSH),
        ("multi", "Several workers are started by: protojobs worker --processes 4"),
        ("requeue", "Failed jobs are run again by: protojobs failed retry ID"),
        ("info", "How many jobs there are is shown by: protojobs stats"),
        ("queue:work", WORK),
        ("celery", WORK),
        ("rqworker", WORK),
        ("delay", PUSH),
        ("send", PUSH),
    ],
)
def test_the_whole_message_for_a_command_of_another_library(type_, name, told) -> None:
    typed = type_(name)
    assert (typed.code, typed.out) == (2, "")
    assert typed.err == f'error: There is no command "{name}".\n  {told}\n  try: protojobs --help\n'


@pytest.mark.parametrize("words", [("dev", "--burst"), ("worker", "--onse"), ("stats", "--queues")])
def test_what_is_only_alike_by_its_dashes_is_not_suggested(type_, words) -> None:
    assert "Did you mean" not in type_(*words).err


def test_each_option_that_is_told_to_users_of_other_libraries_exists_and_theirs_does_not() -> None:
    have = {name for param in worker.get_params(click.Context(worker)) for name in param.opts}
    assert have & set(other_tools.OPTIONS) == set()
    assert {name for words in other_tools.OPTIONS.values() for name in re.findall(r"--[a-z-]+", words)} - have <= {
        "--burst"
    }


def test_each_command_that_is_told_to_users_of_other_libraries_exists_and_theirs_does_not() -> None:
    ctx = click.Context(root)
    told = {name for words in other_tools.COMMANDS.values() for name in re.findall(r"protojobs ([a-z]+)", words)}
    assert told <= {*root.list_commands(ctx)}
    assert not set(other_tools.COMMANDS) & {*root.list_commands(ctx)}


def test_the_root_lists_what_get_command_finds() -> None:
    ctx = click.Context(root)
    assert [name for name in BUILT_IN if root.get_command(ctx, name) is None] == []
