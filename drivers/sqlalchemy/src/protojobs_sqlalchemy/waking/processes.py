"""Waiting processes of one machine are woken by others, for databases that cannot call: SQLite, MariaDB, MySQL.

A receiver is a datagram socket with a name in Linux's abstract namespace; who has stored jobs sends the names of their
queues there. Nothing lies in the file system, so nothing can be stale, in the way or forbidden. It is a hint: who
receives it looks into the store. Where none arrives (other systems, other containers, other machines) polling finds the
jobs. Every user of the machine can send one; that costs a worker a look.
"""

from __future__ import annotations

import atexit
import socket
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cache

from protojobs.clock import SYSTEM_CLOCK

__all__ = ["receiver", "receives", "send"]

_NUMBERS = 16  # of receivers of one store; more waiting processes than that poll
_GAP = 1  # so many numbers without a receiver are passed over: to look for one at the next costs a call each
_ABSENT_S = 0.002  # so long nobody is looked for again: that is two calls that fail, for each of many pushes in a row
_BYTES_MAX = 2_048  # of names; a longer list wakes all

_nobody_until: dict[str, float] = {}  # by store


def send(store: str, queues: Iterable[str]) -> None:
    """Wake the processes of this machine that wait for one of `queues` of this store. Never waits, never raises.

    Where nobody waited two milliseconds ago, who has begun since is not woken: it has looked, and looks again soon.
    """
    now = SYSTEM_CLOCK.monotonic()
    if now < _nobody_until.get(store, 0.0):
        return
    names = "\n".join(queues).encode()  # no name holds a control character
    sender = _sender() if names and sys.platform == "linux" else None
    if sender is None:
        return
    absent = met = 0
    for number in range(_NUMBERS):
        try:
            sender.sendto(names if len(names) <= _BYTES_MAX else b"", f"\0protojobs/{store}/{number}".encode())
            absent, met = 0, met + 1
        except BlockingIOError:
            absent, met = 0, met + 1  # so much was sent there that it cannot have looked yet
        except OSError:
            absent += 1
            if absent > _GAP:
                break
    if not met:
        _nobody_until[store] = now + _ABSENT_S


@cache
def _sender() -> socket.socket | None:
    """One for the process: to make it costs as much as to send. A forked child may use its parent's."""
    try:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:  # out of file descriptors, perhaps
        return None
    sender.setblocking(False)
    atexit.register(sender.close)
    return sender


@contextmanager
def receiver(store: str) -> Generator[socket.socket | None]:
    """A receiver for this store, for the length of the block; None where there is none to be had.

    What was stored before it was open does not arrive: look after that.
    """
    bound = _bound(store) if sys.platform == "linux" else None
    _nobody_until.pop(store, None)  # this process at least knows
    try:
        yield bound
    finally:
        if bound is not None:
            bound.close()


def receives(receiver: socket.socket, queues: Sequence[str], timeout: float) -> bool:
    """Whether one of `queues` is named within `timeout` seconds, whoever else is woken meanwhile."""
    ends_at = SYSTEM_CLOCK.monotonic() + timeout
    mine, left = set(queues), timeout
    try:
        while True:
            receiver.settimeout(max(left, 0.0))
            names = receiver.recv(_BYTES_MAX)
            if not names or not mine.isdisjoint(names.decode(errors="replace").split("\n")):
                return True
            left = ends_at - SYSTEM_CLOCK.monotonic()
            if left <= 0:
                return False
    except OSError:  # nothing arrived in time
        return False


def _bound(store: str) -> socket.socket | None:
    """A socket with the first number that is free: so the numbers stay close together."""
    try:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:
        return None
    for number in range(_NUMBERS):
        try:
            bound.bind(f"\0protojobs/{store}/{number}".encode())
        except OSError:
            continue
        return bound
    bound.close()
    return None
