"""The demo's second worker, a process that is killed in the middle of a job."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["CAN_KILL", "kill_a_worker"]

CAN_KILL = hasattr(os, "fork")  # on Windows there is no SIGKILL to show
_BEGIN_MAX_S = 15.0  # a Python that starts takes half a second; a busy machine may take its time
_LOOK_S = 0.02


def kill_a_worker(url: str, folder: Path, app: str, *, lease_s: float) -> int | None:
    """Start a worker for deliveries, wait until it is at work on one, and kill it; returns its process id.

    Its job hangs on purpose, for it finds SHOP_SLOW in its environment. None: it did not get that far within its time;
    its output is in `killed-worker.log`.
    """
    settings = {"PROTOJOBS_URL": url, "PROTOJOBS_APP": app, "PROTOJOBS_LEASE": str(lease_s), "SHOP_SLOW": "1"}
    others = {name: value for name, value in os.environ.items() if not name.startswith("PROTOJOBS_")}
    begun = folder / "deliveries.txt"
    with (folder / "killed-worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "protojobs.cli", "worker", "deliveries"],
            env={**others, **settings},  # a URL may hold a password: not an argument, which everyone could read
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + _BEGIN_MAX_S
            while not _is_written(begun) and worker.poll() is None and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
            return worker.pid if _is_written(begun) and worker.poll() is None else None
        finally:
            worker.kill()
            worker.wait(_BEGIN_MAX_S)


def _is_written(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0  # a file is there a moment before its first line
