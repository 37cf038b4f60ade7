"""The documented system's own program, unchanged, on a cluster. (On a single server: tests/end_to_end.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[3] / "tests" / "end_to_end" / "documented_api.py"


def test_the_documented_program_runs_unchanged_on_a_cluster(cluster_urls: list[str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(PROGRAM)],
        env={**os.environ, "PROTOJOBS_URL": f"{cluster_urls[0]}?namespace=documented"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("all promises hold\n")
