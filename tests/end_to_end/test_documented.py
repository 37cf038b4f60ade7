"""The specification's own program, unchanged, on every driver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "documented_api.py"


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql", "mariadb", "valkey"])
def test_the_documented_program_runs_unchanged(kind: str, make_store_url: Callable[[str], str], tmp_path: Path) -> None:
    url = "memory://" if kind == "memory" else make_store_url(kind)
    ran = subprocess.run(
        [sys.executable, str(PROGRAM)],
        env={**os.environ, "PROTOJOBS_URL": url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("all promises hold\n")
    assert "BROKEN" not in ran.stdout


def test_our_copy_is_the_specification() -> None:
    original = Path(__file__).parents[2].parent / "shared" / "spec" / "documented_api.py"
    if original.exists():  # beside the checkout where the specification is at hand
        assert PROGRAM.read_bytes() == original.read_bytes()
    assert "def main() -> None:" in PROGRAM.read_text()
