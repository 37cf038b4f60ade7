"""Installs the stranger's driver for the tests of this folder: a real wheel, unpacked where only they look."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from third_party.stranger import LMDB, built

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one

sys.path.insert(0, str(LMDB / "src"))  # for the imports of its own tests; without an entry point nobody else sees it


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
