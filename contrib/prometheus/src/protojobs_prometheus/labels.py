"""Names as label values: so many of them, and `other` for those beyond. Names come from outside; memory is ours."""

from __future__ import annotations

import threading

__all__ = ["NAMES_MAX", "OTHER", "PAIRS_MAX", "Labels"]

NAMES_MAX = 200  # queues, and jobs, with a label of their own
PAIRS_MAX = 1_000  # (queue, job) together: a job is seldom pushed to many queues
OTHER = "other"


class Labels:
    """The first names that come keep theirs. Thread-safe; answers the same for the same names, for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: set[str] = set()
        self._jobs: set[str] = set()
        self._pairs: dict[tuple[str, str], tuple[str, str]] = {}

    def of(self, queue: str, job: str) -> tuple[str, str]:
        """The values of the labels `queue` and `job`."""
        if (known := self._pairs.get((queue, job))) is not None:
            return known
        with self._lock:
            if len(self._pairs) >= PAIRS_MAX:
                return (OTHER, OTHER)
            pair = (_kept(queue, self._queues), _kept(job, self._jobs))
            return self._pairs.setdefault((queue, job), pair)


def _kept(name: str, known: set[str]) -> str:
    if name not in known:
        if len(known) >= NAMES_MAX:
            return OTHER
        known.add(name)
    return name
