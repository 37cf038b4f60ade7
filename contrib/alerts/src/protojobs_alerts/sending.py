"""Delivers messages: a thread and a bounded queue for each channel, so that a slow one holds up no other."""

from __future__ import annotations

import logging
import queue as queues
import threading
from typing import Protocol

from protojobs.entropy import jittered
from protojobs_alerts.messages import Message

__all__ = ["Channel", "SendFailed", "Sender"]

BACKLOG_MAX = 100  # messages that wait for a channel; beyond it the newest are dropped, and counted in the log
PAUSES_S = (1.0, 5.0, 30.0, 120.0)  # before another try
_log = logging.getLogger("protojobs.alerts")


class SendFailed(Exception):
    """A channel did not take a message. The text holds no secret. `may_retry`: it may take it later."""

    def __init__(self, why: str, *, may_retry: bool) -> None:
        super().__init__(why)
        self.may_retry = may_retry


class Channel(Protocol):
    """A way by which messages go out. `name` is for people, and holds no secret."""

    @property
    def name(self) -> str:
        """Such as `webhook to chat.example.com`."""
        ...

    def send(self, message: Message) -> None:
        """Deliver it within bounded time. Raises SendFailed."""
        ...


class Sender:
    """Delivers in order, at least once each: five tries over some minutes, then the message is given up and logged."""

    def __init__(self, channel: Channel, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        self.dropped = 0
        self._channel = channel
        self._pauses_s = pauses_s
        self._backlog: queues.Queue[Message | None] = queues.Queue(BACKLOG_MAX)
        self._hurry = threading.Event()  # no more waiting: the process ends
        self._thread = threading.Thread(target=self._run, name="protojobs-alerts", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Hand it over. Never waits."""
        try:
            self._backlog.put_nowait(message)
        except queues.Full:
            self.dropped += 1
            _log.error("%s is too slow: %d alert messages were dropped", self._channel.name, self.dropped)

    def close(self, timeout: float) -> None:
        """Return when all is delivered or given up, or after so many seconds. There is no waiting between tries now."""
        self._hurry.set()
        try:
            self._backlog.put(None, timeout=timeout)
        except queues.Full:
            _log.error("%s: %d alert messages are left behind", self._channel.name, self._backlog.qsize())
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        while (message := self._backlog.get()) is not None:
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        for pause_s in (*self._pauses_s, None):
            try:
                self._channel.send(message)
            except SendFailed as failure:
                if pause_s is None or not failure.may_retry:
                    _log.error("%s did not take alert message %s: %s", self._channel.name, message.id, failure)
                    return
                _log.warning("%s, trying again: %s", self._channel.name, failure)
                self._hurry.wait(jittered(pause_s))
            except Exception:  # noqa: BLE001  (a channel of the application's own: the next message has its own chance)
                _log.exception("%s failed with alert message %s", self._channel.name, message.id)
                return
            else:
                return
