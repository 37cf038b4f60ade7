"""LISTEN on PostgreSQL: a thread with a connection of its own wakes the threads of this process that wait for jobs."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable

import psycopg

from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs_sqlalchemy.connecting.forks import start_afresh_in_children
from protojobs_sqlalchemy.waking.threads import Wakeup

__all__ = ["BACK_CHANNEL", "CHANNEL", "Listener", "is_heard"]

CHANNEL = "protojobs"
BACK_CHANNEL = "protojobs_back"  # jobs of this queue have come back to their old places in the line
_PROBE_CHANNEL = "protojobs_probe"  # nobody waits for it, so asking wakes no worker
_PROBE_S = 2.0
_TURN_S = 1.0  # how often the thread looks whether it is still wanted
_UNWANTED_S = 30.0  # nobody waited for so long: end, so that the server need not keep notifications for us
_RETRY_S = 1.0
_JOIN_S = 2.0
_log = logging.getLogger("protojobs.sqlalchemy")


class Listener:
    """Starts with the first wait, ends when nobody waits any more; survives server restarts and forks."""

    def __init__(
        self,
        wakeup: Wakeup,
        connect: Callable[[], psycopg.Connection[tuple[object, ...]]],
        came_back: Callable[[set[str]], None] = lambda _: None,
        *,
        channel: str = CHANNEL,
        back_channel: str = BACK_CHANNEL,
    ) -> None:
        self._channel, self._back_channel = channel, back_channel
        self._wakeup = wakeup
        self._came_back = came_back
        self._connect = connect
        self._wanted_at = 0.0
        self.start_afresh()
        start_afresh_in_children(self)

    def start_afresh(self) -> None:
        """A forked child begins like this: no thread of its parent's follows, whichever was just being started."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop: socket.socket | None = None  # closing it ends the thread at once

    def want(self) -> None:
        """Be sure that somebody listens."""
        self._wanted_at = SYSTEM_CLOCK.monotonic()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stop, heard = socket.socketpair()
                self._thread = threading.Thread(
                    target=self._listen, args=(heard,), name="protojobs-listen", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Stop listening; the next wait starts again."""
        with self._lock:
            thread, stop, self._thread, self._stop = self._thread, self._stop, None, None
        if stop is not None:
            stop.close()
        if thread is not None:
            thread.join(_JOIN_S)

    def _listen(self, stop: socket.socket) -> None:
        with stop:
            while self._is_wanted():
                try:
                    with self._connect() as conn:
                        conn.execute(f"LISTEN {self._channel}; LISTEN {self._back_channel}".encode())
                        self._wakeup.wake_all()  # what came before nobody heard
                        self._pass_on(conn, stop)
                        return
                except (psycopg.Error, OSError):  # the worker polls meanwhile
                    pass
                except Exception:  # noqa: BLE001  (a mistake of ours: without the pause each wait would begin anew)
                    _log.exception("listening for notifications failed in a way that it should not; trying again")
                stop.settimeout(_RETRY_S)
                try:
                    stop.recv(1)  # ends when `close` closes the other side
                    return
                except TimeoutError:
                    continue

    def _pass_on(self, conn: psycopg.Connection[tuple[object, ...]], stop: socket.socket) -> None:
        """Wake for every notification, until asked to stop."""
        with selectors.DefaultSelector() as selector:  # select() itself knows no file number above 1,023
            selector.register(conn.fileno(), selectors.EVENT_READ)
            selector.register(stop, selectors.EVENT_READ)
            while self._is_wanted():
                ready = [key.fileobj for key, _ in selector.select(_TURN_S)]
                if stop in ready:
                    return
                if ready:
                    notes = list(conn.notifies(timeout=0))
                    self._came_back({note.payload for note in notes if note.channel == self._back_channel})
                    self._wakeup.wake({note.payload for note in notes})

    def _is_wanted(self) -> bool:
        return SYSTEM_CLOCK.monotonic() - self._wanted_at < _UNWANTED_S


def is_heard(
    connect: Callable[[], psycopg.Connection[tuple[object, ...]]], notify: Callable[[str, str], object]
) -> bool:
    """Whether what `notify(channel, payload)` sends arrives within two seconds at a connection that listens."""
    payload = fresh_id()
    with connect() as conn:
        conn.execute(f"LISTEN {_PROBE_CHANNEL}")
        notify(_PROBE_CHANNEL, payload)
        ends_at = SYSTEM_CLOCK.monotonic() + _PROBE_S
        while (left := ends_at - SYSTEM_CLOCK.monotonic()) > 0:
            if any(note.payload == payload for note in conn.notifies(timeout=left, stop_after=1)):
                return True
    return False
