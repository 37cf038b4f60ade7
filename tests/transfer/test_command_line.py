"""`protojobs transfer`: counts first, a question, progress, a summary, and advice when it did not move everything."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from backlog import contents, fill

from protojobs import create_driver
from protojobs.port.driver import Store
from protojobs.port.records import NewJob, WorkerInfo

JOBS = 120


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "protojobs.cli", "transfer", *words]


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in os.environ if name.startswith("PROTOJOBS_") and not name.startswith("PROTOJOBS_TEST")
    ]:
        monkeypatch.delenv(name)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Store]:
    yield from store(tmp_path / "here.db", JOBS)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Store]:
    yield from store(tmp_path / "there.db", 0)


def store(path: Path, jobs: int) -> Iterator[Store]:
    driver = create_driver(f"sqlite:///{path}")
    driver.setup()
    fill(driver, jobs, seed=2)
    yield driver
    driver.close()


PAIR = ("sqlite:///here.db", "sqlite:///there.db")


def test_it_counts_and_refuses_without_a_yes(tmp_path: Path, here: Store, there: Store) -> None:
    ran = typed(tmp_path, *PAIR)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "sqlite:///here.db: 96 pending (" in ran.stderr
    assert "24 failed, 0 processing, 0 finished" in ran.stderr
    assert "Move 120 jobs, and what an earlier run has left (token transfer-" in ran.stderr
    assert "try: the same with --yes" in ran.stderr
    assert here.stats().pending + here.stats().failed == JOBS


def test_with_a_yes_it_moves_tells_progress_in_lines_and_sums_up(tmp_path: Path, here: Store, there: Store) -> None:
    before = contents(here)
    ran = typed(tmp_path, *PAIR, "--yes", "--batch", "40")
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stderr.splitlines() if " of " in line and "pending" not in line] == [
        "40 of 120 jobs",
        "80 of 120 jobs",
        "120 of 120 jobs",
    ]
    table = dict(line.split("\t") for line in ran.stdout.splitlines())
    assert table.pop("token").startswith("transfer-")
    assert table == {
        "moved": "120", "already there": "0",
        "left pending": "0", "left failed": "0", "left held": "0", "left moving": "0",
    }  # fmt: skip
    assert contents(there).keys() == before.keys()


def test_in_json(tmp_path: Path, here: Store, there: Store) -> None:
    document = json.loads(typed(tmp_path, *PAIR, "--yes", "--json", "--token", "mine").stdout)
    assert document["schema"] == "protojobs/transfer@1"
    assert document["item"] == {
        "moved": 120, "already_there": 0, "schedules": 0, "pending": 0, "failed": 0, "processing": 0, "moving": 0,
        "token": "mine",
    }  # fmt: skip


def test_on_a_terminal_progress_is_a_bar(tmp_path: Path, here: Store, there: Store) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(*PAIR, "--yes"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            shown += part
        assert process.wait(30) == 0
    os.close(ours)
    assert b"120/120" in shown


def test_ctrl_c_says_how_to_go_on_and_the_same_again_does(tmp_path: Path, here: Store, there: Store) -> None:
    fill(here, 5_000, seed=3)
    with subprocess.Popen(
        command(*PAIR, "--yes", "--batch", "10"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while " of 5,120 jobs" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "error: Interrupted." in said
    assert "try: the same again; it goes on with token transfer-" in said
    assert "Traceback" not in said
    assert 0 < len(contents(there)) < 5_120
    assert typed(tmp_path, *PAIR, "--yes").returncode == 0
    assert len(contents(there)) == 5_120
    assert contents(here) == {}


def test_jobs_that_workers_hold_are_left_and_told_of(tmp_path: Path, here: Store, there: Store) -> None:
    here.register(WorkerInfo(id="w", host="h", pid=1, queues=("held",), concurrency=1, lease_s=60))
    here.enqueue(
        [NewJob(id="01a20000-0000-7000-8000-000000000001", queue="held", job_name="j", job_class="J", data="1")]
    )
    assert len(here.claim("w", ["held"], slots=1, limit=1)) == 1
    ran = typed(tmp_path, *PAIR, "--yes")
    assert ran.returncode == 6
    assert "left held\t1" in ran.stdout
    assert "Workers of the source hold 1 job: stop them." in ran.stderr
    assert "try: then type the same again" not in ran.stderr


def test_what_another_token_holds_is_told_of(tmp_path: Path, here: Store, there: Store) -> None:
    here.export_jobs("another", limit=5)
    ran = typed(tmp_path, *PAIR, "--yes")
    assert (ran.returncode, "5 jobs belong to a transfer with another token" in ran.stderr) == (6, True)
    assert typed(tmp_path, *PAIR, "--yes", "--token", "another").returncode == 0
    assert len(contents(there)) == JOBS


def test_a_queue_that_is_paused_at_the_source_only_is_pointed_out(tmp_path: Path, here: Store, there: Store) -> None:
    here.pause("Emails")
    assert 'Queue "Emails" is paused at the source only' in typed(tmp_path, *PAIR).stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("sqlite:///here.db", "sqlite:///./here.db"), 2, "Source and destination are the same store."),
        (("sqlite:///here.db", "memory://"), 2, "A memory store ends with this command"),
        (("sqlite:///here.db", "sqlite:///fresh.db"), 8, "try: protojobs migrate --url sqlite:///fresh.db"),
        (("sqlite:///here.db", "sqllite:///there.db"), 2, 'Did you mean "sqlite"'),
        (("sqlite:///here.db",), 2, "Missing argument"),
        ((*PAIR, "--url", "sqlite:///here.db"), 2, "transfer takes two stores"),
        ((*PAIR, "--batch", "0"), 2, "--batch"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, here: Store, there: Store, words: tuple[str, ...], code: int, says: str
) -> None:
    ran = typed(tmp_path, *words, "--yes")
    assert (ran.returncode, ran.stdout) == (code, "")
    assert says in ran.stderr
    assert here.stats().pending + here.stats().failed == JOBS
