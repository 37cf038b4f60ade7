"""Runs that were told to end and go on: by when this process must be gone, since others may have their jobs then."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from protojobs.worker.lease.validity import LeaseValidity
from protojobs.worker.runs.executor import Runnable
from protojobs.worker.shutdown import LAST_WORDS_S

__all__ = ["StuckRuns"]


class StuckRuns:
    """Thread-safe. `must_end_by(moment)` is told by when the process must be gone; infinite once it need not."""

    def __init__(self, validity: LeaseValidity, exit_bound_s: float, must_end_by: Callable[[float], None]) -> None:
        self._validity = validity
        self._exit_bound_s = exit_bound_s
        self._must_end_by = must_end_by
        self._lock = threading.Lock()
        self.runs: dict[tuple[str, int], float] = {}  # by when the process must be gone

    def add(self, now: float, run: Runnable) -> None:
        """It does not end. Its retry may be due after `exit_bound`, that of an exclusive job when its lease ends."""
        gone_by = now + self._exit_bound_s
        if run.exclusive_holder:
            gone_by = min(gone_by, max(self._validity.gone_by(run.exclusive_holder), now + LAST_WORDS_S))
        with self._lock:
            self.runs[run.key] = gone_by
            self._must_end_by(min(self.runs.values()))

    def remove(self, key: tuple[str, int]) -> None:
        """It has ended after all."""
        with self._lock:
            if self.runs.pop(key, None) is not None:
                self._must_end_by(min(self.runs.values(), default=math.inf))

    def gone_by(self, now: float, key: tuple[str, int]) -> float:
        """By when the process must be gone for this run."""
        return self.runs.get(key, now + self._exit_bound_s)
