"""Every folder of examples/ is run as its reader would run it, and says what its README promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RUN_MAX_S = 60  # each takes about a second; this is for a machine that is busy

# folder -> lines, or parts of lines, that it prints in this order
SAYS = {
    "first-job": [
        "nothing has run yet: 2 pending",
        "a worker runs them:",
        "2 done; the first one is completed",
    ],
    "retries-and-dead-letters": [
        "given up on order 2: there is no card",
        "given up on order 1: the bank is closed",
        '"order":1,"card":"4242","amount":10}  after 3 attempt(s): BankClosed: the bank is closed',
        "after 1 attempt(s): ValueError: there is no card",
        "['requeued', 'requeued']",
        "1 completed, 1 failed",
    ],
    "async-jobs": [
        "50 jobs of 0.2 s each, at once: less than 5 s",
        "job stopped after its timeout, in attempt 1",
        "JobTimeout: the run outlasted its timeout of 0.3 s",
        "one client has made 50 requests, and is closed",
    ],
    "transactional-push": [
        "Jo: committed",
        "Mallory: rolled back",
        "Al: committed",
        "2 orders, 2 jobs:",
        "confirmed order",
        "confirmed order",
    ],
    "events-and-plugins": [
        "not pushed: we never divide by 13",
        "plugin: divide begins",
        "plugin: and has ended",
        "divide failed: division by zero",
        "1 completed, 1 failed",
    ],
    "typed-data": [
        "accepted:",
        "refused,",
        "$.day: ",
        "required field `day`",
        "$.travelers: ",
        "Expected `int`, got `str` at $.travellers",
        "nan",
        "$.trip: ",
        "pending: 0",
    ],
    "delayed-and-priorities": [
        "in this order: urgent, important, ordinary, also ordinary, when there is time",
        "at once: []; scheduled: 3",
        "after 0.6 s: ['in half a second']; scheduled: 2",
        "refused: delay 2030-01-01T00:00:00 has no time zone",
    ],
    "again-and-again": [
        "stored: month-end (0 18 L * *), mornings (0 7 * * *)",
        "two tickers, and each second once: True",
        "paused: True",
        "by hand: ['all for a person']",
        "removed: True 2",
    ],
    "custom-worker-loop": [
        "one by one: 5 jobs in 5 rounds",
        "until told to stop: 15 done, ended because: stopped",
        "pending: 0",
    ],
}


def test_every_folder_is_known_here() -> None:
    assert sorted(path.parent.name for path in EXAMPLES.glob("*/main.py")) == sorted(SAYS)


@pytest.mark.parametrize("folder", sorted(SAYS))
def test_it_runs_and_says_what_it_shows(folder: str, tmp_path: Path) -> None:
    main = EXAMPLES / folder / "main.py"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, main], capture_output=True, text=True, timeout=RUN_MAX_S, cwd=tmp_path, env=environment
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # A worker says on stderr which jobs failed; what the example itself does must raise nothing.
    assert all(": failed" in line for line in ran.stderr.splitlines()), ran.stderr
    rest = ran.stdout
    for expected in SAYS[folder]:
        before, found, rest = rest.partition(expected)
        assert found, f"{expected!r} is missing, or comes too early, in:\n{ran.stdout}"
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"


@pytest.mark.parametrize("folder", sorted(SAYS))
def test_it_asks_its_question_where_its_reader_looks(folder: str) -> None:
    question = (EXAMPLES / folder / "README.md").read_text().splitlines()[0].removeprefix("# ").replace("`", "")
    assert question.endswith("?")
    assert (EXAMPLES / folder / "main.py").read_text().startswith(f'"""{question}"""')
    assert f"({folder}/)" in (EXAMPLES / "README.md").read_text()
