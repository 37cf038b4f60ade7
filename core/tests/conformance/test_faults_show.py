"""What only shows when a process dies, freezes or is cut off is caught by the level `faults`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # run by `python3 dev.py test-slow`

HERE = Path(__file__).parent

CROSS_PROCESS = "cross_process_is_claimed_exactly_when_another_process_sees_the_jobs"
CASES = {
    "Sound": ("killed or frozen or cut_connections", ""),
    "AnswersEarly": ("what_a_killed_process", "what_a_killed_process_was_told_is_stored_is_there"),
    "StoresInPieces": ("what_a_killed_process", "what_a_killed_process_was_told_is_stored_is_there"),
    "KnowsNoFence": ("frozen_past", "a_worker_that_was_frozen_past_its_lease_settles_nothing"),
    "RevivesLeases": ("frozen_past", "a_worker_that_was_frozen_past_its_lease_settles_nothing"),
    "OneProcess": ("cross_process", ""),
    "OneProcessAndBlunt": ("cross_process", CROSS_PROCESS),
    "BreaksWhenCut": ("cut_connections_under", "cut_connections_under_load_lose_and_double_nothing"),
}


@pytest.mark.parametrize("fault", CASES)
def test_a_planted_fault_is_caught(outcomes, fault: str, tmp_path: Path, monkeypatch) -> None:
    shutil.copy(HERE / "planted_faults.py", tmp_path)
    facts = tmp_path / "planted_faults-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-faults\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[protojobs.drivers]\nplanted = planted_faults:make\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PLANTED_URL", f"planted+{fault}://{tmp_path / 'jobs.db'}")
    which, caught_by = CASES[fault]
    found = outcomes("TestPlanted", "-k", which, file=HERE / "planted_suite.py")
    assert [name for name, outcome in found.items() if outcome != "passed"] == ([caught_by] if caught_by else [])
