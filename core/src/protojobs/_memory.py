"""How much memory this process and its children hold right now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["resident_bytes"]


def resident_bytes() -> int:
    """Resident bytes of this process and its children (and theirs); 0 where the system does not tell."""
    if sys.platform == "linux":
        return sum(_linux_resident(pid) for pid in _linux_family(os.getpid()))
    if sys.platform == "win32":
        return 0
    listed = subprocess.run(
        ["/bin/ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, timeout=5, check=False
    )
    return int(listed.stdout.strip() or 0) * 1024


def _linux_family(pid: int) -> list[int]:
    family = [pid]
    for parent in family:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                family += [int(child) for child in task.read_text().split()]
            except OSError:  # the thread ended while we looked
                continue
    return family


def _linux_resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # the child ended while we looked
        return 0
