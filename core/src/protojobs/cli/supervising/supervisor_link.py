"""The worker's end of the line to its supervisor: a socket, which the worker finds in its environment.

The supervisor writes `1` or `2` when it wants the stop of a first or a second signal; when it dies the line ends, which
counts as `1`. The worker writes a sign of life with each heartbeat, the first one once it is registered in the store,
and its report when it has ended. Silence means that no thread of it gets to run: the supervisor then beats for it.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from contextlib import suppress

import msgspec

from protojobs.clock import SYSTEM_CLOCK
from protojobs.stopping import StopToken
from protojobs.worker.lease.lease import BEATS_PER_LEASE
from protojobs.worker.outcome import WorkReport
from protojobs.worker.reports.health import Condition, Vitals

__all__ = ["ALIVE", "LINE", "Alive", "Supervisor", "join_supervisor"]

LINE = "_PROTOJOBS_SUPERVISOR"  # the descriptor's number. Not PROTOJOBS_*: those are settings
ALIVE = b"alive "  # begins a sign of life
PULSE = 1.25  # beats between two signs of life while the heartbeat thread gives none, for it waits for the store


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life: which row in the store is this worker's, and how long its runs may go on; None = without end."""

    worker: str
    lease_s: float
    lasts_s: float | None
    condition: Condition | None = None


def join_supervisor(stop: StopToken) -> Supervisor | None:
    """The supervisor that started this process, whose wishes reach `stop` from now on. None if a person did.

    To be asked once: what this process starts in its turn is not supervised.
    """
    number = os.environ.pop(LINE, "")
    if not number.isdecimal():
        return None
    line = socket.socket(fileno=int(number))
    line.set_inheritable(False)
    supervisor = Supervisor(line)
    threading.Thread(target=supervisor.listen, args=(stop,), name="protojobs-supervisor", daemon=True).start()
    return supervisor


class Supervisor:
    """What a worker knows of it."""

    def __init__(self, line: socket.socket) -> None:
        self.vitals = Vitals()  # for the worker to write
        self._line = line
        self._lock = threading.Lock()  # held while a sign of life is sent, so that the last one is the newest
        self._worker, self._lease_s = "", 0.0
        self._ends_at = self._said_at = 0.0
        self._has_ended = threading.Event()

    def listen(self, stop: StopToken) -> None:
        """Pass its wishes on, until it has gone: then stop, since nobody would start this worker again."""
        with suppress(OSError):
            while wishes := self._line.recv(64):
                stop.stop(2 if b"2" in wishes else 1)
        stop.stop(1)

    def told(self, worker: str, lease_s: float, lasts_s: float) -> None:
        """Give a sign of life, and go on giving it while the heartbeat thread waits for the store.

        A store that does not answer is no reason to take this worker for one that cannot beat, and to kill it.
        """
        with self._lock:
            is_first = not self._worker
            self._worker, self._lease_s = worker, lease_s
            self._ends_at = SYSTEM_CLOCK.monotonic() + lasts_s
            self._say_alive()
        if is_first:
            threading.Thread(target=self._pulse, name="protojobs-pulse", daemon=True).start()

    def report(self, report: WorkReport) -> None:
        """Tell it why this worker ended, and what it has done."""
        self._has_ended.set()
        with suppress(OSError):
            self._line.sendall(msgspec.json.encode(report) + b"\n")

    def _pulse(self) -> None:
        every_s = wait_s = self._lease_s / BEATS_PER_LEASE * PULSE
        while not self._has_ended.wait(wait_s):
            with self._lock:
                wait_s = self._said_at + every_s - SYSTEM_CLOCK.monotonic()
                if wait_s <= 0:
                    self._say_alive()
                    wait_s = every_s

    def _say_alive(self) -> None:
        self._said_at = SYSTEM_CLOCK.monotonic()
        lasts_s = max(self._ends_at - self._said_at, 0.0)
        alive = Alive(
            worker=self._worker,
            lease_s=self._lease_s,
            lasts_s=None if math.isinf(lasts_s) else lasts_s,
            condition=self.vitals.condition(self._said_at),
        )
        with suppress(OSError):  # a supervisor that has gone, or does not read: a job need not wait for that
            self._line.send(ALIVE + msgspec.json.encode(alive) + b"\n", socket.MSG_DONTWAIT)
