"""An exclusive run that cannot be ended, in an outage, with listeners that hang: its process goes in time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from crew import wait_for

from protojobs import create_driver
from protojobs.port.records import WorkerRecord

HERE = Path(__file__).parent
PROTOJOBS = (sys.executable, "-P", "-m", "protojobs")


def times(file: Path) -> list[float]:
    return [float(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.slow
def test_two_runs_of_one_exclusive_job_do_not_overlap_with_a_lease_of_ten_seconds(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    driver = create_driver(url)
    driver.setup()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PROTOJOBS_")},
        **{"EXCLUSIVE_FOLDER": str(tmp_path), "EXCLUSIVE_URL": url, "PYTHONPATH": str(HERE)},
    }

    def start(me: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [*PROTOJOBS, *arguments, "--app", "exclusive_app:queue"]
        return subprocess.Popen(
            command, cwd=tmp_path, env={**environment, "EXCLUSIVE_ME": me}, stderr=subprocess.DEVNULL
        )

    workers: list[subprocess.Popen[bytes]] = []
    try:
        assert start("nobody", "push", "ledger.close", "{}").wait(60) == 0
        workers.append(start("one", "worker", "--no-scheduler"))
        wait_for("the first run", lambda: times(tmp_path / "one"))
        workers.append(start("two", "worker", "--no-scheduler"))
        # It reclaims once it is half a lease old, so that it is at hand when the first one's lease ends.
        wait_for("the second worker", lambda: len(rows := driver.workers()) == 2 and _age_s(rows) > 5.5)
        (tmp_path / "cut").touch()
        assert workers[0].wait(60) == 1
        wait_for("the second run", lambda: times(tmp_path / "two"))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(10)
    assert times(tmp_path / "one")[-1] < times(tmp_path / "two")[0]


def _age_s(rows: list[WorkerRecord]) -> float:
    return min((row.heartbeat_at - row.started_at).total_seconds() for row in rows)
