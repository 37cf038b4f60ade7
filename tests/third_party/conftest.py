"""Installs the stranger's driver for the tests of this folder: a real wheel, unpacked where only they look."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

LMDB = Path(__file__).parent / "protojobs_lmdb"

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one

sys.path.insert(0, str(LMDB / "src"))  # for the imports of its own tests; without an entry point nobody else sees it


def built(distribution: Path, folder: Path) -> Path:
    """A folder with what `pip install` would put into site-packages, entry points included; no network is asked."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    ran = subprocess.run(command, cwd=distribution, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="session")
def lmdb_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(LMDB, tmp_path_factory.mktemp("lmdb"))


@pytest.fixture(autouse=True)
def lmdb_installed(lmdb_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lmdb://` is known here and in child processes, for the time of one test."""
    monkeypatch.syspath_prepend(str(lmdb_site))
    paths = [str(lmdb_site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory if possible: thousands of commits each wait for a disk that others use too, and prove nothing by it."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="protojobs-") as folder:
        yield Path(folder)
