"""Heartbeats that a supervisor makes in place of workers that cannot make their own.

They are made on a thread of their own: a store that hangs holds up this thread, and not the supervisor.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping

from protojobs.clock import Clock, within
from protojobs.errors import DriverError, LeaseLost
from protojobs.worker.lease.lease import BEAT_MIN_S, BEATS_PER_LEASE

__all__ = ["SubstituteHeartbeats"]

LOOK_S = 0.05  # between two looks whether a heartbeat is due
CLOSE_S = 0.5  # for a call to the store to come back when the supervisor ends
_log = logging.getLogger("protojobs.cli")


class SubstituteHeartbeats:
    """Calls `heartbeat(worker)` every sixth of the lease for the workers that `beat_for` names.

    What the call returns is not needed: a job that a person wants cancelled stays marked in the store, and the worker's
    own next heartbeat will see it.
    """

    def __init__(self, heartbeat: Callable[[str], object], clock: Clock) -> None:
        self._heartbeat = heartbeat
        self._clock = clock
        self._silent: Mapping[str, float] = {}  # replaced as a whole, never changed
        self._has_work = threading.Event()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def beat_for(self, silent: Mapping[str, float]) -> None:
        """From now on make them for these workers (id -> lease in seconds), and for no others. Never blocks."""
        self._silent = silent
        if silent and not self._is_closed.is_set():
            self._has_work.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="protojobs-substitute-heartbeats", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop. A call that hangs in the store is left behind, and ends with the process."""
        self._is_closed.set()
        self._has_work.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _serve(self) -> None:
        due_at: dict[str, float] = {}
        while self._has_work.wait() and not self._is_closed.is_set():
            due_at = {worker: due_at.get(worker, 0.0) for worker in self._silent}
            for worker, at in due_at.items():
                lease_s = self._silent.get(worker)  # a heartbeat for another may have taken long: is it still silent?
                now = self._clock.monotonic()
                if lease_s is not None and now >= at and not self._is_closed.is_set():
                    interval = lease_s / BEATS_PER_LEASE
                    due_at[worker] = now + interval if self._renewed(worker, interval) else math.inf
            if not due_at:
                self._has_work.clear()  # `beat_for` is called all the time, and sets it again
            self._is_closed.wait(LOOK_S)

    def _renewed(self, worker: str, interval: float) -> bool:
        """Make one heartbeat. False when the lease is gone, and with it the reason for more."""
        try:
            with within(max(interval, BEAT_MIN_S)):  # as long as the worker itself would wait
                self._heartbeat(worker)
        except LeaseLost:
            _log.warning("the lease of the silent worker %s is gone; its jobs run again elsewhere", worker)
            return False
        except DriverError as error:
            _log.debug("heartbeat for the silent worker %s: %s", worker, error)
        except Exception:  # noqa: BLE001  (a driver's mistake: the next heartbeat may do)
            _log.exception("heartbeat for the silent worker %s: the driver failed in a way that it should not", worker)
        return True
