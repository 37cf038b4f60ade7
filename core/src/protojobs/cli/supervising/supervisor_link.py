"""A worker's connection to its supervisor: a socket, which the worker finds in its environment.

The supervisor writes `1` or `2` when it wants the stop of a first or a second signal. When the supervisor dies the
connection ends, which counts as `1`. The worker writes a sign of life with each heartbeat, the first one once it is
registered in the store, and its report when it has ended. A silent worker has no thread that gets to run: then the
supervisor makes its heartbeats.
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
from protojobs.worker.reports.health import Condition, WorkerHealth

__all__ = ["LINK_VARIABLE", "SIGN_OF_LIFE", "SignOfLife", "SupervisorLink", "join_supervisor"]

LINK_VARIABLE = "_PROTOJOBS_SUPERVISOR"  # the descriptor's number. Not PROTOJOBS_*: those are settings
SIGN_OF_LIFE = b"alive "  # how such a line begins
REPEAT_BEATS = 1.25  # heartbeats between two signs of life while the heartbeat thread waits for the store


class SignOfLife(msgspec.Struct, frozen=True, kw_only=True):
    """Which row in the store is this worker's, and for how long its runs may go on; None = without end."""

    worker: str
    lease_s: float
    lasts_s: float | None
    condition: Condition | None = None


def join_supervisor(stop: StopToken) -> SupervisorLink | None:
    """Connect to the supervisor that started this process, which can tell `stop` from now on. None if a person did.

    To be called once: what this process starts in its turn is not supervised.
    """
    number = os.environ.pop(LINK_VARIABLE, "")
    if not number.isdecimal():
        return None
    connection = socket.socket(fileno=int(number))
    connection.set_inheritable(False)
    link = SupervisorLink(connection)
    threading.Thread(target=link.receive_stops, args=(stop,), name="protojobs-supervisor", daemon=True).start()
    return link


class SupervisorLink:
    """The worker's end."""

    def __init__(self, connection: socket.socket) -> None:
        self.health = WorkerHealth()  # for the worker to write
        self._connection = connection
        self._lock = threading.Lock()  # held while a sign of life is sent, so that the last one is the newest
        self._worker, self._lease_s = "", 0.0
        self._runs_end_at = self._sent_at = 0.0
        self._has_ended = threading.Event()

    def receive_stops(self, stop: StopToken) -> None:
        """Tell `stop` what the supervisor wants. Once it has gone, stop: nobody would start this worker again."""
        with suppress(OSError):
            while levels := self._connection.recv(64):
                stop.stop(2 if b"2" in levels else 1)
        stop.stop(1)

    def send_sign_of_life(self, worker: str, lease_s: float, lasts_s: float) -> None:
        """Send one now, and repeat it while the heartbeat thread waits for the store.

        A store that does not answer is no reason to take this worker for a silent one, and to kill it.
        """
        with self._lock:
            is_first = not self._worker
            self._worker, self._lease_s = worker, lease_s
            self._runs_end_at = SYSTEM_CLOCK.monotonic() + lasts_s
            self._send()
        if is_first:
            threading.Thread(target=self._repeat, name="protojobs-sign-of-life", daemon=True).start()

    def report(self, report: WorkReport) -> None:
        """Send why this worker ended, and what it has done."""
        self._has_ended.set()
        with suppress(OSError):
            self._connection.sendall(msgspec.json.encode(report) + b"\n")

    def _repeat(self) -> None:
        every_s = wait_s = self._lease_s / BEATS_PER_LEASE * REPEAT_BEATS
        while not self._has_ended.wait(wait_s):
            with self._lock:
                wait_s = self._sent_at + every_s - SYSTEM_CLOCK.monotonic()
                if wait_s <= 0:
                    self._send()
                    wait_s = every_s

    def _send(self) -> None:
        self._sent_at = SYSTEM_CLOCK.monotonic()
        lasts_s = max(self._runs_end_at - self._sent_at, 0.0)
        sign = SignOfLife(
            worker=self._worker,
            lease_s=self._lease_s,
            lasts_s=None if math.isinf(lasts_s) else lasts_s,
            condition=self.health.condition(self._sent_at),
        )
        with suppress(OSError):  # a supervisor that has gone, or does not read: a job need not wait for that
            self._connection.send(SIGN_OF_LIFE + msgspec.json.encode(sign) + b"\n", socket.MSG_DONTWAIT)
