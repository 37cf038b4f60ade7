"""The specification's own programs on every driver: unchanged, but for how one of them measures time."""

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


# The scheduler's program counts seconds from the answer to its call, the store from the call. On a machine under load
# the answer may come half a second late, and the fifth tick is taken for one too many. Ours counts from before it.
MEASURED_BETTER = [
    (
        b"    scheduler.every(report, 1,",
        b"    asked_at = time.monotonic()  # before the call: its answer may come late\n    scheduler.every(report, 1,",
    ),
    (b"elapsed = time.monotonic() - until + 4.5\n", b"elapsed = time.monotonic() - asked_at\n"),
    (
        b'    promise("each second once, whoever ticks", 4 <= RAN.count("tick") <= elapsed + 0.1)\n',
        b'    ticks = RAN.count("tick")\n'
        b'    promise(f"each second once, whoever ticks: {ticks} in {elapsed:.2f} s", 4 <= ticks <= elapsed + 0.1)\n',
    ),
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_our_copy_is_the_specification(program: str) -> None:
    original = HERE.parents[1].parent / "shared" / "spec" / program
    if original.exists():  # beside the checkout where the specification is at hand
        expected = original.read_bytes()
        if program == "documented_scheduler.py":
            for theirs, ours in MEASURED_BETTER:
                assert expected.count(theirs) == 1
                expected = expected.replace(theirs, ours)
        assert (HERE / program).read_bytes() == expected
    assert "def main() -> None:" in (HERE / program).read_text()
