"""`protojobs conformance`: what it refuses, what it shows, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from protojobs import create_driver
from protojobs.cli import main
from protojobs.cli.commands import conformance
from protojobs.cli.showing.conformance_report import Counts, Ended, Report, Subject
from protojobs.testing.conformance.steps import join, push

HONEST = """
from protojobs_memory import MemoryDriver
class Driver(MemoryDriver):
    def __init__(self, url, *, time_offset=0.0):
        super().__init__(url.replace("planted", "memory"), time_offset=time_offset)
"""
FORGETFUL = f"""{HONEST}
    def cancel(self, ids, *, reason=""):
        return super().cancel(ids)
"""
SUICIDAL = f"""{HONEST}
    def heartbeat(self, worker, progress):
        import os
        os._exit(7)
"""
RAISING = f"""{HONEST}
    def reclaim(self, limit):
        raise RuntimeError("\\x1b[31m no time for that")
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run(source, "planted://x")`: the command on a driver installed from this source."""

    def start(source: str, *words: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "planted_driver.py").write_text(source)
        facts = tmp_path / "planted_driver-1.0.dist-info"
        facts.mkdir(exist_ok=True)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-driver\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text("[protojobs.drivers]\nplanted = planted_driver:Driver\n")
        command = [sys.executable, "-m", "protojobs.cli", "conformance", *words, "--level", "queue"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PROTOJOBS_")}
        environment["PYTHONPATH"] = str(tmp_path)
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=150,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    return start


@pytest.mark.slow
def test_a_driver_that_keeps_the_contract(run, tmp_path: Path) -> None:
    ran = run(HONEST, "planted://scratch", "--json", "report.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Driver (planted_driver" in ran.stdout or "Driver (planted-driver 1.0)" in ran.stdout, ran.stdout
    assert "on planted://scratch reached: queue" in ran.stdout
    assert ["fencing", "queue", "passed"] in [line.split("\t")[:3] for line in ran.stdout.splitlines()]
    assert "\x1b" not in ran.stdout + ran.stderr
    told = [line for line in ran.stderr.splitlines() if line.startswith("fencing: ")]
    assert len(told) == 1, "in a pipe each concern is told once, on stderr"
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["schema"], report["reached"], report["ok"]) == ("protojobs/conformance@1", "queue", True)
    (level,) = report["levels"]
    not_claimed = {test["id"] for test in report["tests"] if test["outcome"] != "passed"}
    assert not_claimed == {  # it has no server to be cut off from, and no file that another could hold
        "rules.each_verb_says_that_a_store_is_out_of_reach_and_why",
        "rules.no_verb_waits_longer_than_its_caller_for_what_another_holds",
    }
    assert level["passed"] == len(report["tests"]) - 2 == sum(each["passed"] for each in report["concerns"])
    assert all(test["id"].startswith(f"{test['concern']}.") for test in report["tests"])


@pytest.mark.slow
def test_a_driver_that_does_not_is_told_where(run) -> None:
    ran = run(FORGETFUL, "planted://scratch")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "FAILED  a pending job is cancelled at once\n        administering.a_pending_job_is_" in ran.stdout
    assert "wrong address" in ran.stdout, "the assertion is shown with its values"
    assert "reached: no level" in ran.stdout
    assert "FAILED administering.a_pending_job_is_cancelled_at_once" in ran.stderr


def test_a_driver_that_takes_the_process_with_it(run) -> None:
    ran = run(SUICIDAL, "planted://scratch")
    assert ran.returncode == 1
    assert "error: The kit's process ended early, with exit code 7" in ran.stderr
    assert "reached" not in ran.stdout


@pytest.mark.slow
def test_what_a_driver_raises_reaches_no_terminal_as_it_is(run) -> None:
    ran = run(RAISING, "planted://scratch")
    assert ran.returncode == 1
    assert "no time for that" in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr


def test_a_url_that_names_a_new_store_each_time_is_told_so(run) -> None:
    ran = run(HONEST, "planted://")
    assert ran.returncode == 1
    assert "see two stores" in ran.stderr


# ---------------------------------------------------------------------------------------------- without running the kit


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """The runs that would have been: the kit itself is left out."""
    runs: list[tuple[str, str]] = []
    counts = Counts("queue", "queue", "passed", 1, 0, 0, 0, 0.1)
    test = Ended("a.b", "a", "passed", "b", 0.1)
    report = Report(Subject("D", "d 1", "d://"), "queue", True, 0.1, [counts], [counts], [test])

    def run(url: str, level: str) -> object:
        runs.append((url, level))
        return b'{"ok":true}', report, ()

    monkeypatch.setattr(conformance, "_run", run)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROTOJOBS_URL", raising=False)
    return runs


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


def test_a_store_with_jobs_is_refused_and_kept(asked, url: str, capsys) -> None:
    driver = create_driver(url)
    driver.setup()
    push(driver)
    assert main(["conformance", url]) == 2
    assert "is not empty: 1 job, 0 workers. The tests delete all." in capsys.readouterr().err
    assert driver.stats().total == 1
    assert asked == []
    assert main(["conformance", url, "--yes"]) == 0
    assert asked == [(url, "faults")]


def test_a_store_with_workers_is_refused_too(asked, url: str) -> None:
    driver = create_driver(url)
    driver.setup()
    join(driver)
    assert main(["conformance", url]) == 2
    assert asked == []


def test_a_store_that_is_empty_or_not_set_up_is_taken(asked, url: str) -> None:
    assert main(["conformance", url, "--level", "transactions"]) == 0
    create_driver(url).setup()
    assert main(["conformance", "--url", url]) == 0
    assert asked == [(url, "transactions"), (url, "faults")]


def test_the_configured_store_is_never_taken(asked, url: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PROTOJOBS_URL", url)
    assert main(["conformance"]) == 2
    assert "Name the store" in capsys.readouterr().err
    assert asked == []


def test_an_unknown_level_is_refused(asked, url: str) -> None:
    assert main(["conformance", url, "--level", "perfection"]) == 2
    assert asked == []


def test_the_json_report_may_go_to_stdout_alone(asked, url: str, capsys) -> None:
    assert main(["conformance", url, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True}


@pytest.mark.parametrize("missing", ["pytest", "hypothesis"])
def test_without_the_extra_it_says_what_to_install(asked, url: str, missing: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(conformance, "find_spec", lambda name: None if name == missing else object())
    assert main(["conformance", url]) == 2
    told = capsys.readouterr().err
    assert missing in told
    assert 'try: pip install "protojobs[conformance]"' in told
