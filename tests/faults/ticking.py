"""Ticks, and nothing else: `python -m faults.ticking URL`.

Its journal says what the store answered to its firings (how many fired, where another scheduler was faster), and what
its wall clock showed. It watches at the driver, where every firing passes, and not inside the scheduler.
On SIGUSR1 it stops itself (SIGSTOP) the next time that it stands between reading what is due and firing that: the place
where a scheduler that leads would, on waking, fire what others have fired long ago.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence

from protojobs import JobQueue, Scheduler, create_driver
from protojobs.port.schedules import Fired, FireStatus, Firing

from .jobs import WORKER_VARIABLE, journal

__all__ = ["watch"]


def watch(queue: JobQueue) -> None:
    """Write down what the firings of `queue` did, and from now on stop this process before one when told (SIGUSR1)."""
    fire, is_told = queue.driver.fire, threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: is_told.set())

    def fire_watched(firings: Sequence[Firing]) -> list[Fired]:
        if is_told.is_set():
            is_told.clear()
            _write("caught", due=[firing.due.isoformat() for firing in firings])
            os.kill(os.getpid(), signal.SIGSTOP)
        answers = fire(firings)
        did = Counter(answer.status for answer in answers)
        told = {"fired": did[FireStatus.FIRED], "overtaken": did[FireStatus.LOST]}
        _write("ticked", wall_ahead_s=time.time() - time.monotonic(), **told)
        return answers

    queue.driver.fire = fire_watched  # type: ignore[method-assign]


def _write(what: str, **facts: object) -> None:
    journal().write(what, worker=os.environ[WORKER_VARIABLE], **facts)


def main(url: str) -> None:
    """Until the process is killed."""
    queue = JobQueue(create_driver(url))
    watch(queue)
    _write("ticking")
    Scheduler(queue).run()


if __name__ == "__main__":
    main(sys.argv[1])
