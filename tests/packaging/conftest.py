"""What the packaging tests share: every distribution's wheel, and an environment with `protojobs[sql]` from them.

Both are made once per test run, by whichever worker asks first. Builds use the pinned hatchling beside this pytest,
without isolation; ours come from the wheels, and third-party packages from the index, as pinned.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pytest

import servers

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = [
    p.parent for pattern in ("core", "drivers/*", "contrib/*") for p in ROOT.glob(f"{pattern}/pyproject.toml")
]


@dataclass(frozen=True)
class Environment:
    """A virtual environment that knows nothing of this checkout."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def protojobs(self) -> Path:
        return self.python.with_name("protojobs")

    def run(self, *command: object, cwd: Path, **variables: str) -> str:
        """What the command printed; a failure shows all it said."""
        words = [str(part) for part in command]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PROTOJOBS_", "PYTHON", "COV_", "PYTEST_"))}
        environment = {**kept, "COLUMNS": "200", **variables}
        ran = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, f"{' '.join(words)} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def install(self, *what: str, wheels: Path, unpinned: Collection[str] = ()) -> None:
        """By the pip (or uv) of this machine: ours from the wheels, all others but `unpinned` as pinned."""
        pinned = (ROOT / "requirements/pins.txt").read_text().splitlines()
        pins = self.folder / "pins.txt"
        pins.write_text("\n".join(line for line in pinned if line.partition("==")[0] not in unpinned))
        options = ["--find-links", wheels, "-c", pins, *what]
        if uv := shutil.which("uv"):
            command: list[object] = [uv, "pip", "install", "--quiet", "--python", self.python, *options]
        else:
            command = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", *options]
        self.run(*command, cwd=self.folder)
        for wheel in wheels.glob("*.whl"):
            self.refuse_a_namesake(wheel)

    def refuse_a_namesake(self, wheel: Path) -> None:
        """What is installed under this wheel's name is this wheel: an index could hold the same name and version."""
        with zipfile.ZipFile(wheel) as file:
            (record,) = (name for name in file.namelist() if name.endswith(".dist-info/RECORD"))
            wanted = {line for line in file.read(record).decode().splitlines() if "sha256=" in line}
        for found in self.folder.rglob(record):
            assert wanted <= set(found.read_text().splitlines()), f"{record} in the environment is not from {wheel}"


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`once(name, make)`: the folder of this name, made by one worker of the run for all of them."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base

    def folder_made_by(name: str, make: Callable[[Path], None]) -> Path:
        folder, outcome = shared / name, shared / f"{name}.outcome"
        with servers.locked(shared / f"{name}.lock"):
            if not outcome.exists():
                folder.mkdir()
                try:
                    make(folder)
                    outcome.write_text(json.dumps(None))
                except Exception as error:
                    outcome.write_text(json.dumps(str(error)))
                    raise
        if failed := json.loads(outcome.read_text()):
            pytest.fail(f"{name} could not be made: {failed}", pytrace=False)
        return folder

    return folder_made_by


@pytest.fixture(scope="session")
def wheels(once) -> Path:
    """A folder with the wheel of every distribution."""

    def build(folder: Path) -> None:
        for distribution in DISTRIBUTIONS:
            command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
            ran = subprocess.run(command, cwd=distribution, capture_output=True, text=True, timeout=120)
            assert ran.returncode == 0, ran.stdout + ran.stderr

    return once("wheels", build)


@pytest.fixture(scope="session")
def new_environment(once) -> Callable[[str], Environment]:
    """`new_environment(name)`: an empty one, without pip, so that it works without ensurepip too."""

    def make(name: str) -> Environment:
        def create(folder: Path) -> None:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)

        return Environment(once(name, create))

    return make


@pytest.fixture(scope="session")
def installed(once, wheels: Path) -> Environment:
    """An environment with `protojobs[sql]`, as a user installs it."""

    def make(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
        Environment(folder).install("protojobs[sql]", wheels=wheels)

    return Environment(once("installed", make))
