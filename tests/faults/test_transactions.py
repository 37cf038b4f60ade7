"""The transactions under kills in short: `python3 dev.py faults --scenario transactions` makes twenty times as many."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.scenarios import transactions
from faults.stage import set_up

pytestmark = pytest.mark.faults  # minutes of real faults: run by `python3 dev.py faults --short`

TRANSACTIONS = 100
MINUTES = 1.0  # of faults for the workers, at most


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_rows_jobs_and_effects_agree_whatever_is_killed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "CRASH_EVERY_S", (1.0, 3.0))
    monkeypatch.setattr(transactions, "CRASH_AFTER", 1)
    monkeypatch.setattr(transactions, "TROUBLES_MEANT", 4)
    monkeypatch.setattr(transactions, "CONCURRENCY", 2)
    # On SQLite all of them together take about a second, on a server a few.
    monkeypatch.setattr(transactions, "LIFE_S", 0.4 if kind == "sqlite" else 1.0)
    url = f"sqlite:///{tmp_path / 'jobs.db'}" if kind == "sqlite" else None
    with set_up(kind, url=url, seed=1, minutes=MINUTES, say=print) as stage:
        report = transactions.run(stage, TRANSACTIONS)
    print(report.figures)
    assert report.complaints == []
    assert report.figures["transactions"] == report.figures["effects"] == TRANSACTIONS
    assert report.figures["applications killed"]
    assert report.figures["workers killed"] + report.figures["workers frozen"]
    assert kind == "sqlite" or report.figures["server crashes while working"]
