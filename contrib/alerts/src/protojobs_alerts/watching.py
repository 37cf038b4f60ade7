"""Watches the store: looks every few seconds, and hands alerts that are due to the channels."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence

from protojobs import JobQueue
from protojobs.clock import SYSTEM_CLOCK, Clock, within
from protojobs.entropy import fresh_id
from protojobs.errors import DriverError
from protojobs.stopping import Wakeup
from protojobs_alerts.findings import FINDINGS_MAX, Failures, Finding, findings, in_words
from protojobs_alerts.mail import Mail
from protojobs_alerts.messages import Message, Notice, messages_of
from protojobs_alerts.sending import Channel, Sender
from protojobs_alerts.settings import AlertSettings
from protojobs_alerts.throttling import Throttle
from protojobs_alerts.webhook import Webhook

__all__ = ["Watcher", "channels_of"]

COUNTED_MIN = 1_000  # jobs of each queue
ANSWER_S = 10.0  # for all questions of one look
STORE_S = 60.0  # a store that has not answered for so long is an alert itself
END_S = 10.0  # for what is still to be sent when the watch ends
_log = logging.getLogger("protojobs.alerts")


def channels_of(settings: AlertSettings) -> list[Channel]:
    """The ways that the settings name."""
    channels: list[Channel] = []
    if settings.webhook:
        channels.append(Webhook(settings.webhook, settings.webhook_token))
    if settings.mail_server:
        channels.append(Mail(settings))
    return channels


class Watcher:
    """Looks every `look` seconds. It promises one message per alert and interval as long as one watcher runs."""

    def __init__(self, queue: JobQueue, settings: AlertSettings, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._driver = queue.driver
        self._settings = settings
        self._clock = clock
        self._failures = Failures(queue.driver, settings.failed_window, with_detail=settings.detail == "error")
        # No further than a limit needs: it is asked every few seconds.
        self._counted_max = max(COUNTED_MIN, int(settings.depth_limits.highest) + 1)
        self._throttle = Throttle(settings.interval)
        self._answered_s = clock.monotonic()
        self._is_away = False

    def run(self, stop: Wakeup, channels: Sequence[Channel]) -> None:
        """Watch until `stop`. Never raises for a store or a channel that is away."""
        senders = [Sender(channel) for channel in channels]
        while not stop.is_set():
            for message in self.turn():
                for sender in senders:
                    sender.put(message)
            stop.wait(self._settings.look)
        for sender in senders:
            sender.close(END_S / len(senders))

    def turn(self) -> list[Message]:
        """Look once; the messages that are due now."""
        now_s = self._clock.monotonic()
        try:
            results = self._findings()
        except DriverError as error:
            if not self._is_away:
                self._is_away = True
                _log.error("the store does not answer: %s", error)
            notices = self._throttle.turn(now_s, self._outage(now_s), is_complete=False)
        else:
            self._answered_s, self._is_away = now_s, False
            notices = self._throttle.turn(now_s, _listed(results), unlisted=results[FINDINGS_MAX:])
        return self.messages(notices)

    def look(self) -> list[Finding]:
        """What is wrong now, whatever was sent before: 200 things, and the number of the others. Raises DriverError."""
        return _listed(self._findings())

    def _findings(self) -> list[Finding]:
        with within(ANSWER_S):
            now, workers = self._driver.now(), self._driver.workers()
            queues = self._driver.queues(counted_max=self._counted_max)
            failed = self._failures.look(now) if self._settings.failed else []
        results = [finding for finding in failed if finding.count >= self._settings.failed]
        results += findings(self._settings, queues, workers, now)
        return sorted(results, key=lambda finding: finding.kind != "workers")  # never cut off the list

    def messages(self, notices: Sequence[Notice]) -> list[Message]:
        """The notices as messages of now."""
        name = self._settings.name or socket.gethostname()
        return list(messages_of(notices, name=name, at=self._clock.now(), ids=_ids()))

    def _outage(self, now_s: float) -> list[Finding]:
        lasts_s = now_s - self._answered_s
        if lasts_s < STORE_S:
            return []
        text = f"The store has not answered for {in_words(lasts_s)}."
        return [Finding(kind="store", text=text, seconds=lasts_s)]


def _listed(results: list[Finding]) -> list[Finding]:
    if (more := len(results) - FINDINGS_MAX) <= 0:
        return results
    return [*results[:FINDINGS_MAX], Finding(kind="more", text=f"{more:,} further alerts.", count=more)]


def _ids() -> Iterator[str]:
    while True:
        yield fresh_id()
