"""The documented system's own programs, unchanged, on a cluster. (On a single server: tests/end_to_end.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[3] / "tests" / "end_to_end"


@pytest.mark.parametrize("program", ["documented_api", "documented_scheduler"])
def test_the_documented_program_runs_unchanged_on_a_cluster(
    program: str, cluster_urls: list[str], tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, str(PROGRAMS / f"{program}.py")],
        env={**os.environ, "PROTOJOBS_URL": f"{cluster_urls[0]}?namespace={program}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("all promises hold\n")
