"""A thread that waits for new jobs while a slot is idle. A lost wake-up costs latency, never a job: the loop polls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from protojobs.errors import DriverError
from protojobs.port.driver import Driver
from protojobs.worker.queue_order import QueueOrder

__all__ = ["WakeupThread"]

LISTEN_S = 1.0  # one call to the driver's `wait`; bounds how long the thread outlives its worker
PAUSE_S = 0.0003  # after a job was begun: to listen at once would keep the interpreter's lock from its thread
_log = logging.getLogger("protojobs.worker")


class WakeupThread:
    """Calls `wake()`, in its own thread, when the store says that a job may be due in one of its queues."""

    def __init__(self, driver: Driver, order: QueueOrder, wake: Callable[[], None]) -> None:
        self._driver = driver
        self._order = order
        self._wake = wake
        self._wanted = threading.Event()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self) -> None:
        """From now until the next ring somebody is interested."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="protojobs-wakeup", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # polling finds the jobs
                _log.debug("waiting for jobs: %s", error)
                return
            self._thread = thread
        if not self._wanted.is_set():
            self._wanted.set()

    def close(self) -> None:
        """Stop listening. Does not wait for the thread, which ends within LISTEN_S."""
        self._end.set()
        self._wanted.set()

    def _run(self) -> None:
        while not self._end.is_set():
            self._wanted.wait()
            try:
                has_come = self._driver.wait(self._order.names, LISTEN_S)
            except DriverError as error:
                _log.debug("waiting for jobs: %s", error)
                has_come = False
                self._end.wait(LISTEN_S)
            except Exception:  # noqa: BLE001  (a driver's mistake: polling finds the jobs, and the thread lives on)
                _log.exception("waiting for jobs: the driver failed in a way that it should not")
                has_come = False
                self._end.wait(LISTEN_S)
            if has_come and not self._end.is_set():
                self._wanted.clear()
                self._wake()
                self._end.wait(PAUSE_S)
