"""Ends this process at a set moment, whatever its other threads wait for.

A run that cannot be ended dies only with its process, and by a certain moment others may have its job. Observers,
children, a store that does not answer, systemd: none of them may hold the end up beyond that.
"""

from __future__ import annotations

import math
import os
import threading

from protojobs.cli.exits import Exit
from protojobs.clock import SYSTEM_CLOCK

__all__ = ["HardExit"]


class HardExit:
    """One thread, which is there from the first moment that is set."""

    def __init__(self) -> None:
        self._at = math.inf
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def at(self, moment: float) -> None:
        """The process is to be gone by then, on the monotonic clock; infinite: not any more."""
        with self._changed:
            self._at = moment
            self._changed.notify()
            if self._thread is None and moment < math.inf:
                self._thread = threading.Thread(target=self._wait, name="protojobs-hard-exit", daemon=True)
                self._thread.start()

    def _wait(self) -> None:
        with self._changed:
            while (left_s := self._at - SYSTEM_CLOCK.monotonic()) > 0:
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
            os._exit(Exit.BAD)
