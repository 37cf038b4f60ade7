"""Each import-linter contract of pyproject.toml catches the breach planted for it.

Part of `python3 dev.py check` (it needs the linter), and therefore not named as a test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from architecture import rules

# contract, module, what is planted at its end; the module is made if it is not there
PLANTED = {
    "a lower layer uses a higher one": ("core points one way", "protojobs/errors.py", "import protojobs.port.driver"),
    "a module that is in no layer": ("core points one way", "protojobs/stray.py", "x = 1"),
    "production uses the kit": ("core points one way", "protojobs/port/records.py", "import protojobs.testing"),
    "core uses a library of a store": ("core knows no store", "protojobs/port/driver.py", "import sqlalchemy"),
    "core uses a driver": ("core knows no store", "protojobs/port/installed_drivers.py", "import protojobs_memory"),
    "a driver uses another": ("drivers do not know", "protojobs_memory/driver.py", "import protojobs_redis"),
    "a driver uses a contribution": ("a driver knows no", "protojobs_redis/__init__.py", "import protojobs_examples"),
    "the memory driver grows a need": ("the memory driver", "protojobs_memory/driver.py", "import sqlalchemy"),
    "core prints": ("click and rich belong", "protojobs/jobs/codec.py", "from rich.console import Console"),
    "core parses arguments": ("click and rich belong", "protojobs/jobs/job_class.py", "import click"),
    "core uses test tools": ("test tools belong", "protojobs/clock.py", "import pytest"),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for source in [*rules.ROOT.glob("core/src/*"), *rules.ROOT.glob("*/*/src/*")]:
        if (source / "__init__.py").exists():
            shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def broken_contracts(copy: Path) -> list[str]:
    linter = Path(sys.executable).with_name("lint-imports")
    command = [linter, rules.ROOT / "pyproject.toml", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200"}
    ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=60)
    assert "Contracts:" in ran.stdout, ran.stdout + ran.stderr
    return [line for line in ran.stdout.splitlines() if " BROKEN" in line]


@pytest.mark.parametrize(("contract", "module", "code"), PLANTED.values(), ids=PLANTED)
def test_the_planted_breach_is_found(copy: Path, contract: str, module: str, code: str) -> None:
    testing = copy / "protojobs/testing"
    testing.mkdir(exist_ok=True)
    (testing / "__init__.py").touch()
    with open(copy / module, "a") as file:
        file.write(f"\n{code}\n")
    assert any(line.startswith(contract) for line in broken_contracts(copy))
