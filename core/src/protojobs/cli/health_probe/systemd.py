"""Notifies systemd that a service with `Type=notify` is ready, lives and stops: sd_notify(3)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from protojobs.cli.health_probe.health import Health
from protojobs.cli.showing.text import escaped

__all__ = ["Systemd"]

LOOK_S = 0.1  # until it is ready
STATUS_EVERY_S = 5.0
BEATS_PER_WATCHDOG = 3
JOIN_S = 2.0


class Systemd:
    """Notifies the service manager of this process's health, from a thread of its own, until `close`.

    WATCHDOG=1 is sent only while the process is live: that thread would turn in a worker that does nothing any more.
    """

    def __init__(self, address: str, watchdog_s: float | None, health: Callable[[], Health]) -> None:
        # A leading @ stands for Linux's abstract sockets.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._health = health
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._sent: set[str] = set()
        self._is_closed = False
        self._look: SimpleQueue[None] = SimpleQueue()  # may be put to in a signal handler
        self._thread = threading.Thread(target=self._run, name="protojobs-systemd", daemon=True)
        self._thread.start()

    @classmethod
    def from_environment(cls, health: Callable[[], Health]) -> Systemd | None:
        """For the service manager that has started this process and wants notifications, if there is one.

        To be called once: what this process starts in its turn does not notify in its name.
        """
        address = os.environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = os.environ.pop("WATCHDOG_USEC", "")
        watched_pid = os.environ.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
            return None
        is_watched = watchdog_us.isdecimal() and watched_pid in ("", str(os.getpid()))
        return cls(address, int(watchdog_us) / 1e6 if is_watched else None, health)

    def look(self) -> None:
        """Notify now: something has changed."""
        self._look.put(None)

    def close(self) -> None:
        """Notify a last time, and end."""
        self._is_closed = True
        self._look.put(None)
        self._thread.join(JOIN_S)
        self._socket.close()

    def _run(self) -> None:
        every_s = min(STATUS_EVERY_S, (self._watchdog_s or STATUS_EVERY_S) / BEATS_PER_WATCHDOG)
        while not self._is_closed:
            self._send(self._health())
            with suppress(Empty):
                self._look.get(timeout=every_s if "READY=1" in self._sent else min(LOOK_S, every_s))
        self._send(self._health())

    def _send(self, health: Health) -> None:
        lines = [f"STATUS={escaped(health.summary)}"]
        if health.is_ready:
            lines += self._once("READY=1")
        if health.state == "stopping":
            lines += self._once("STOPPING=1")
        if self._watchdog_s is not None and health.is_live:
            lines.append("WATCHDOG=1")
        with suppress(OSError):  # nobody listens, or not now: the next one comes soon
            self._socket.sendto("\n".join(lines).encode(), self._address)

    def _once(self, line: str) -> list[str]:
        if line in self._sent:
            return []
        self._sent.add(line)
        return [line]
