"""What happened, as the outside world saw it: what was pushed, what ran, which faults there were, how each job ended.

Processes append to journals, one file each, a line for each thing that happened, on disk before the next thing is
done. A process that is killed leaves at most half a line behind. Times are CLOCK_MONOTONIC, which all processes of one
machine share and no clock step moves; in the simulation they are the virtual clock's.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

__all__ = ["End", "Fault", "Final", "History", "Journal", "Journals", "Pushed", "Run"]


class End(Enum):
    """How a run ended, by its own account."""

    OK = "ok"
    FAILED = "failed"  # raised, as planned: runs again after its delay, while it has attempts
    SNOOZED = "snoozed"  # asked to run again
    CUT = "cut"  # ended from outside, by a shutdown, a cancel or a timeout


@dataclass
class Pushed:
    """One job that somebody tried to store. Not acknowledged: it may be there or not, and both are right."""

    at: float  # before the first try
    delay: float = 0.0
    is_acknowledged: bool = False
    may_fail: bool = False  # it is meant to use up its attempts
    may_be_cancelled: bool = False  # somebody asked for that before it had ended


@dataclass
class Run:
    """One run of one job."""

    job: str
    claim_seq: int
    attempt: int
    worker: str  # whoever faults happen to: a process in real life, an identity in the simulation
    began: float
    ended: float | None = None  # None: nobody saw it end
    end: End | None = None
    again_in: float = 0.0  # after FAILED or SNOOZED: not sooner than this


@dataclass(frozen=True)
class Fault:
    """Something that was done to a worker (or, without one, to all), from `began` to `ended`.

    Kinds: `kill`, `freeze`, `cut off`, `starved` (its heartbeats waited), `stop` (asked to end), `drain` (ended by a
    limit of its own, which is no reason to run anything again), `lost lease` (seen in the store), `outage` (the store
    was away), `lossy` (the store was made to forget what it had acknowledged), `rolled back` (the store went back to
    what it was when that began; it may have forgotten claims and results, but no job).
    """

    kind: str
    began: float
    ended: float
    worker: str = ""


@dataclass(frozen=True)
class Final:
    """What the store says of a job when all is over."""

    state: str
    attempts: int = 0
    has_failed_row: bool = False


@dataclass
class History:
    """All of it."""

    pushed: dict[str, Pushed] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    finals: dict[str, Final] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)  # worker -> exit code, of those that were asked to end


class Journal:
    """Appends entries to this process's own file. Thread-safe."""

    def __init__(self, folder: Path, *, name: str = "") -> None:
        self._fd = os.open(folder / f"{name or os.getpid()}.journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._lock = threading.Lock()

    def write(self, what: str, **facts: object) -> None:
        """One line, on disk when this returns."""
        line = json.dumps({"what": what, "at": time.monotonic(), "pid": os.getpid(), **facts}) + "\n"
        with self._lock:
            os.write(self._fd, line.encode())
        os.fdatasync(self._fd)


class Journals:
    """Reads what all processes have written, each line once: a long run asks every second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}  # bytes of whole lines
        self._entries: list[dict[str, object]] = []

    def entries(self) -> list[dict[str, object]]:
        """The whole lines of all journals, by time."""
        fresh: list[dict[str, object]] = []
        for file in self._folder.glob("*.journal"):
            with open(file, "rb") as journal:
                journal.seek(self._read.get(file, 0))
                whole, end, _ = journal.read().rpartition(b"\n")
            fresh += [json.loads(line) for line in whole.split(b"\n") if line]
            self._read[file] = self._read.get(file, 0) + len(whole + end)
        if fresh:
            self._entries = sorted([*self._entries, *fresh], key=lambda entry: float(str(entry["at"])))
        return self._entries
