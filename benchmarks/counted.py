"""What a benchmark's job does: leave one record in a file, so that a lost job, or one that ran twice, shows.

A record is appended in one write to a file opened with O_APPEND. That costs about a microsecond and is atomic, and it
means the same for a thread, another process and a bare loop.
"""

from __future__ import annotations

import functools
import os
import struct
import time
from pathlib import Path

FOLDER_VARIABLE = "PROTOJOBS_BENCH_FOLDER"
DONE, STARTED = "done.bin", "started.bin"
_one, _two = struct.Struct("<q"), struct.Struct("<qq")


def noop() -> None:
    """The moment at which it ran."""
    os.write(_file(DONE), _one.pack(time.time_ns()))


def stamp(sent_ns: int) -> None:
    """The moment at which it was pushed, and that at which it ran."""
    os.write(_file(STARTED), _two.pack(sent_ns, time.time_ns()))


def count(folder: Path, name: str = DONE) -> int:
    """How many jobs have run."""
    path = folder / name
    return path.stat().st_size // (_one.size if name == DONE else _two.size) if path.exists() else 0


def moments(folder: Path) -> list[int]:
    """When the no-op jobs ran, in nanoseconds, earliest first."""
    path = folder / DONE
    return sorted(when for (when,) in _one.iter_unpack(path.read_bytes())) if path.exists() else []


def waits(folder: Path) -> list[int]:
    """Nanoseconds from push to start, in the order of the pushes."""
    path = folder / STARTED
    pairs = sorted(_two.iter_unpack(path.read_bytes())) if path.exists() else []
    return [started - sent for sent, started in pairs]


@functools.cache
def _file(name: str) -> int:
    return os.open(Path(os.environ[FOLDER_VARIABLE]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
