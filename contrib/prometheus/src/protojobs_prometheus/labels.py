"""Bounds the values of the labels `queue` and `job`, and with them memory: beyond so many names it is `other`."""

from __future__ import annotations

import threading

__all__ = ["NAMES_MAX", "OTHER", "PAIRS_MAX", "Labels"]

NAMES_MAX = 200  # queues, and jobs, with a label of their own
PAIRS_MAX = 1_000  # (queue, job) together: a job is seldom pushed to many queues
OTHER = "other"


class Labels:
    """The first names that come keep theirs. Thread-safe; the same names always have the same values."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: set[str] = set()
        self._jobs: set[str] = set()
        self._pairs: dict[tuple[str, str], tuple[str, str]] = {}

    def of(self, queue: str, job: str) -> tuple[str, str]:
        """The values of the labels `queue` and `job`."""
        if (pair := self._pairs.get((queue, job))) is not None:
            return pair
        with self._lock:
            if len(self._pairs) >= PAIRS_MAX:
                return (OTHER, OTHER)
            pair = (_kept(queue, self._queues), _kept(job, self._jobs))
            return self._pairs.setdefault((queue, job), pair)


def _kept(name: str, names: set[str]) -> str:
    if name not in names:
        if len(names) >= NAMES_MAX:
            return OTHER
        names.add(name)
    return name
