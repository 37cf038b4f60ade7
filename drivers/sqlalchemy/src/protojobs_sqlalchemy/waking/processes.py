"""A doorbell between the processes of one machine, for databases that cannot call anybody: SQLite, MariaDB, MySQL.

Who waits owns a datagram socket with a name in Linux's abstract namespace; who has stored jobs sends the names of their
queues there. Nothing lies in the file system, so nothing can be stale, in the way or forbidden. It is a hint: who hears
it looks into the store. Where it is not heard (other systems, other containers, other machines) polling finds the jobs.
Every user of the machine can ring; that costs a worker a look.
"""

from __future__ import annotations

import atexit
import socket
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cache

from protojobs.clock import SYSTEM_CLOCK

__all__ = ["hears", "listening", "ring"]

_PLACES = 16  # more waiting processes than that poll
_GAP = 1  # so many empty places are passed over: looking for somebody in the next one costs a call each
_BYTES_MAX = 2_048  # of names; a longer list rings for all


def ring(store: str, queues: Iterable[str]) -> None:
    """Tell the processes of this machine that wait for one of `queues` of this store. Never waits, never raises."""
    said = "\n".join(queues).encode()  # no name holds a control character
    mouth = _mouth() if said and sys.platform == "linux" else None
    if mouth is None:
        return
    empty = 0
    for place in range(_PLACES):
        try:
            mouth.sendto(said if len(said) <= _BYTES_MAX else b"", _address(store, place))
            empty = 0
        except BlockingIOError:
            empty = 0  # it has been told so often that it cannot have listened yet
        except OSError:
            empty += 1
            if empty > _GAP:
                return


@cache
def _mouth() -> socket.socket | None:
    """One for the process: making it costs as much as ringing. A forked child may use its parent's, it has no state."""
    try:
        mouth = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:  # out of file descriptors, perhaps
        return None
    mouth.setblocking(False)
    atexit.register(mouth.close)
    return mouth


@contextmanager
def listening(store: str) -> Generator[socket.socket | None]:
    """An ear for this store, for the length of the block; None where there is none to be had.

    What was stored before it opened it does not hear: look after that.
    """
    ear = _bound(store) if sys.platform == "linux" else None
    try:
        yield ear
    finally:
        if ear is not None:
            ear.close()


def hears(ear: socket.socket, queues: Sequence[str], timeout: float) -> bool:
    """Whether there is a ring for one of `queues`; waits up to `timeout` seconds for it, whoever else is rung for."""
    ends_at = SYSTEM_CLOCK.monotonic() + timeout
    mine, left = set(queues), timeout
    try:
        while True:
            ear.settimeout(max(left, 0.0))
            said = ear.recv(_BYTES_MAX)
            if not said or not mine.isdisjoint(said.decode(errors="replace").split("\n")):
                return True
            left = ends_at - SYSTEM_CLOCK.monotonic()
            if left <= 0:
                return False
    except OSError:  # nobody rang in time
        return False


def _bound(store: str) -> socket.socket | None:
    """A socket in the first place that is free: so the places stay close together."""
    try:
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:
        return None
    for place in range(_PLACES):
        try:
            ear.bind(_address(store, place))
        except OSError:
            continue
        return ear
    ear.close()
    return None


def _address(store: str, place: int) -> bytes:
    return f"\0protojobs/{store}/{place}".encode()
