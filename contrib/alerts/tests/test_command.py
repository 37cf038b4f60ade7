"""`protojobs alerts` as it is run: looking once, trying the ways, and watching until told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from protojobs import JobQueue, create_driver, job
from protojobs.cli import main
from protojobs_alerts.command import command

Typed = Callable[..., tuple[int, str, str]]
WAIT_S = 60


@pytest.fixture
def store(sqlite_url: str) -> JobQueue:
    queue = JobQueue(create_driver(sqlite_url), {"retry_delay": 0.0})
    queue.driver.setup()

    @job(name="order.pack", max_retries=0)
    def pack(number: int) -> None:
        raise ValueError(f"the secret is {number}")

    return queue


@pytest.fixture
def environ(sqlite_url: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PROTOJOBS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PROTOJOBS_URL", sqlite_url)


@pytest.fixture
def typed(environ: None, monkeypatch, capsys) -> Typed:
    """`typed("--once", WEBHOOK="https://...")`: exit code, stdout, stderr."""

    def run(*words: str, **settings: str) -> tuple[int, str, str]:
        for name, value in settings.items():
            monkeypatch.setenv(f"PROTOJOBS_ALERTS_{name}", value)
        code = main(["alerts", *words])
        return code, *capsys.readouterr()

    return run


def test_the_entry_point_names_it() -> None:
    (found,) = entry_points(group="protojobs.commands", name="alerts")
    assert found.load() is command


def test_once_prints_what_is_wrong_and_its_code_says_whether_something_is(store: JobQueue, typed: Typed) -> None:
    assert typed("--once") == (0, "", "Nothing is wrong.\n")
    store.push("order.pack", {"number": 42})
    store.work("default", 1)
    code, out, _ = typed("--once")
    assert code == 1
    assert out == "Job order.pack failed for good once in 5 min with ValueError (queue default).\n"


def test_test_tries_every_way_and_says_what_became_of_it(store: JobQueue, typed: Typed, catcher) -> None:
    code, _, said = typed(
        "--test",
        WEBHOOK=f"{catcher.url}/T0K3N",
        MAIL_SERVER="smtp://127.0.0.1:1",
        MAIL_FROM="a@example.com",
        MAIL_TO="b@example.com,c@example.com",
    )
    assert code == 1
    assert said == "webhook to 127.0.0.1: taken\nmail by 127.0.0.1: it cannot be reached (ConnectionRefusedError)\n"
    assert "This is a test" in str(catcher.wait_for(1)[0]["text"])


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        ((), {}, "Set PROTOJOBS_ALERTS_WEBHOOK"),
        (("--test",), {}, "Set PROTOJOBS_ALERTS_WEBHOOK"),
        (("--test", "--once"), {}, "not both"),
        ((), {"WEBHOK": "https://x/T0K3N"}, '"PROTOJOBS_ALERTS_WEBHOOK"'),
        ((), {"WEBHOOK": "http://chat.example.com/T0K3N"}, "in the clear"),
        ((), {"LOOK": "soon", "WEBHOOK": "https://x/T0K3N"}, "PROTOJOBS_ALERTS_LOOK does not fit"),
    ],
)
def test_wrong_settings_are_an_error_with_the_mend(store: JobQueue, typed: Typed, words, settings, said: str) -> None:
    code, _, shown = typed(*words, **settings)
    assert code == 2
    assert said in shown
    assert "T0K3N" not in shown


def test_it_tells_once_of_a_failure_and_ends_when_told_to_without_a_secret_in_its_words(
    store, environ, catcher
) -> None:
    settings = {"PROTOJOBS_ALERTS_WEBHOOK": f"{catcher.url}/T0K3N", "PROTOJOBS_ALERTS_WEBHOOK_TOKEN": "T0K3N"}
    settings |= {"PROTOJOBS_ALERTS_LOOK": "1", "PROTOJOBS_ALERTS_NAME": "shop", "PROTOJOBS_ALERTS_FAILED_WINDOW": "2"}
    settings["PROTOJOBS_ALERTS_WORKERS"] = "false"  # there is none between the push and the work
    catcher.answers = [503]  # so that it must be tried again
    line = [sys.executable, "-m", "protojobs.cli", "alerts"]
    with subprocess.Popen(line, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stderr is not None
            assert watch.stderr.readline().startswith("watching every 1 s, telling by webhook to 127.0.0.1")
            store.push("order.pack", {"number": 42})
            store.work("default", 1)
            refused, taken, over = catcher.wait_for(3)
            watch.send_signal(signal.SIGTERM)
            assert watch.wait(WAIT_S) == 0
            said = watch.stderr.read()
        finally:
            watch.kill()
    assert refused == taken
    assert [alert["status"] for alert in (*taken["alerts"], *over["alerts"])] == ["firing", "resolved"]
    assert taken["name"] == "shop"
    assert "secret" not in str(catcher.bodies)
    assert "T0K3N" not in said
    assert len(catcher.bodies) == 3
