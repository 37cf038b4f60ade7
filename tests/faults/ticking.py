"""Ticks, and nothing else: `python -m faults.ticking URL`.

Its journal says what it fired, which times it missed, where it was overtaken, and what its wall clock showed.
On SIGUSR1 it stops itself (SIGSTOP) the next time that it stands between reading what is due and firing that: the place
where a scheduler that leads would, on waking, fire what others have fired long ago.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

from protojobs import JobQueue, Scheduler, create_driver
from protojobs.port.schedules import Fired, Firing
from protojobs.scheduler import TickReport

from .jobs import WORKER_VARIABLE, journal

__all__ = ["Watched", "stop_itself_when_told"]


class Watched(Scheduler):
    """A Scheduler that writes down what its ticks did."""

    def _tick(self, is_over: Callable[[], bool]) -> TickReport:
        report = super()._tick(is_over)
        if report.fired or report.missed or report.overtaken:
            did = {"fired": report.fired, "missed": report.missed, "overtaken": report.overtaken}
            _write("ticked", wall_ahead_s=time.time() - time.monotonic(), **did)
        return report


def stop_itself_when_told(queue: JobQueue) -> None:
    """From now on SIGUSR1 stops this process in the middle of its next tick that has something to fire."""
    fire, is_told = queue.driver.fire, threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: is_told.set())

    def fire_later(firings: Sequence[Firing]) -> list[Fired]:
        if is_told.is_set():
            is_told.clear()
            _write("caught", due=[firing.due.isoformat() for firing in firings])
            os.kill(os.getpid(), signal.SIGSTOP)
        return fire(firings)

    queue.driver.fire = fire_later  # type: ignore[method-assign]


def _write(what: str, **facts: object) -> None:
    journal().write(what, worker=os.environ[WORKER_VARIABLE], **facts)


def main(url: str) -> None:
    """Until the process is killed."""
    queue = JobQueue(create_driver(url))
    stop_itself_when_told(queue)
    _write("ticking")
    Watched(queue).run()


if __name__ == "__main__":
    main(sys.argv[1])
