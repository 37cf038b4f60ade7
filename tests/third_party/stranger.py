"""The stranger's driver: where it is, how it is installed; and all verbs that it has to have."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from protojobs.port.driver import Store

LMDB = Path(__file__).parent / "protojobs_lmdb"
VERBS = [name for part in Store.__mro__ for name, verb in vars(part).items() if callable(verb) and name[0] != "_"]


def built(distribution: Path, folder: Path) -> Path:
    """A folder with what `pip install` would put into site-packages, entry points included; no network is asked."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    ran = subprocess.run(command, cwd=distribution, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"
