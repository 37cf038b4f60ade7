"""Jobs for test_worker_exclusive.py, in a module that a child process can import.

Each goes on until there is a file `go` in its folder; it tells its process id in the file `<name>-started`, and its
end in `<name>-ended`. A second run in the same folder returns at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path

from protojobs import job

STEP_S = 0.002


def steps(folder: str, name: str) -> Iterator[None]:
    """Each step is an occasion to wait a little."""
    started = Path(folder, f"{name}-started")
    if started.exists():
        return
    started.write_text(f"{os.getpid()}\n")
    try:
        while not Path(folder, "go").exists():
            yield
    finally:
        Path(folder, f"{name}-ended").touch()


@job(name="ordinary", timeout=0, executor="thread")
def ordinary(folder: str) -> None:
    for _ in steps(folder, "ordinary"):
        time.sleep(STEP_S)


@job(name="exclusive.thread", timeout=0, executor="thread", exclusive=True)
def in_thread(folder: str) -> None:
    for _ in steps(folder, "exclusive"):
        time.sleep(STEP_S)


@job(name="exclusive.async", timeout=0, exclusive=True)
async def in_loop(folder: str) -> None:
    for _ in steps(folder, "exclusive"):
        await asyncio.sleep(STEP_S)


@job(name="exclusive.process", timeout=0, executor="process", exclusive=True)
def in_child(folder: str) -> None:
    for _ in steps(folder, "exclusive"):
        time.sleep(STEP_S)


@job(name="exclusive.deaf", timeout=0, executor="process", exclusive=True)
def deaf_in_child(folder: str) -> None:
    for _ in steps(folder, "exclusive"):
        ctypes.PyDLL(None).sleep(60)  # holds the interpreter lock: nothing but a SIGKILL ends it
