"""The specification's own programs, unchanged, on every driver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS = ["documented_api.py", "documented_scheduler.py"]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql", "mariadb", "valkey"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_documented_program_runs_unchanged(
    program: str, kind: str, make_store_url: Callable[[str], str], tmp_path: Path
) -> None:
    url = "memory://" if kind == "memory" else make_store_url(kind)
    ran = subprocess.run(
        [sys.executable, str(HERE / program)],
        env={**os.environ, "PROTOJOBS_URL": url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("all promises hold\n")
    assert "BROKEN" not in ran.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_our_copy_is_the_specification(program: str) -> None:
    original = HERE.parents[1].parent / "shared" / "spec" / program
    if original.exists():  # beside the checkout where the specification is at hand
        assert (HERE / program).read_bytes() == original.read_bytes()
    assert "def main() -> None:" in (HERE / program).read_text()
