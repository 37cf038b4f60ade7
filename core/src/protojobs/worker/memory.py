"""How much memory this process and its children hold right now.

Processes come and go while somebody looks: each step of a look may find that what the step before saw is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable

__all__ = ["resident_bytes"]

PS_S = 2.0  # for `ps`, which is waited for in the claim loop


def resident_bytes() -> int:
    """Resident bytes of this process and its children (and theirs); 0 where the system does not tell.

    Raises OSError or subprocess.SubprocessError where `ps` cannot be run.
    """
    if sys.platform == "linux":
        return sum(map(_linux_resident, _family(os.getpid(), _linux_children)))
    if sys.platform == "win32":
        return 0
    return _listed_resident(os.getpid(), _listed_by_ps())


def _family(pid: int, children: Callable[[int], Iterable[int]]) -> list[int]:
    family = [pid]
    for parent in family:
        family += [child for child in children(parent) if child not in family]
    return family


def _linux_children(parent: int) -> Iterable[int]:
    try:
        threads = os.listdir(f"/proc/{parent}/task")
    except OSError:  # the process ended while we looked
        return
    for thread in threads:
        try:
            with open(f"/proc/{parent}/task/{thread}/children", encoding="ascii") as listed:
                yield from map(int, listed.read().split())
        except OSError:  # the thread ended while we looked
            continue


def _linux_resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as listed:
            return int(listed.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # the process ended while we looked
        return 0


def _listed_by_ps() -> str:
    command = ["/bin/ps", "-A", "-o", "pid=,ppid=,rss="]
    return subprocess.run(command, capture_output=True, text=True, timeout=PS_S, check=False).stdout


def _listed_resident(pid: int, listed: str) -> int:
    """`listed`: lines of pid, parent's pid, and resident KiB."""
    resident_kib, children = dict[int, int](), dict[int, list[int]]()
    for line in listed.splitlines():
        each, parent, kib = map(int, line.split())
        resident_kib[each] = kib
        children.setdefault(parent, []).append(each)
    family = _family(pid, lambda parent: children.get(parent, ()))
    return sum(resident_kib.get(each, 0) for each in family) * 1024
