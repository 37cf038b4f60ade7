"""The worker's end of the line to its supervisor: a socket, which the worker finds in its environment.

The supervisor writes `1` or `2` when it wants the stop of a first or a second signal; when it dies the line ends, which
counts as `1`. The worker writes `ready` once it is registered in the store, and its report when it has ended.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

import msgspec

from protojobs import events
from protojobs.outcomes import WorkReport
from protojobs.stopping import StopToken

__all__ = ["LINE", "READY", "Supervisor", "join_supervisor"]

LINE = "_PROTOJOBS_SUPERVISOR"  # the descriptor's number. Not PROTOJOBS_*: those are settings
READY = b"ready"


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
    events.on("worker.starting", supervisor.is_ready)
    return supervisor


class Supervisor:
    """What a worker knows of it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def listen(self, stop: StopToken) -> None:
        """Pass its wishes on, until it has gone: then stop, since nobody would start this worker again."""
        with suppress(OSError):
            while wishes := self._line.recv(64):
                stop.stop(2 if b"2" in wishes else 1)
        stop.stop(1)

    def is_ready(self, _event: events.Event) -> None:
        """Tell it that this worker has begun."""
        self.say(READY)

    def say(self, line: bytes) -> None:
        """Tell it, if it is there."""
        with suppress(OSError):
            self._line.sendall(line + b"\n")

    def report(self, report: WorkReport) -> None:
        """Tell it why this worker ended, and what it has done."""
        self.say(msgspec.json.encode(report))
