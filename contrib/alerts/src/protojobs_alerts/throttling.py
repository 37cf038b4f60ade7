"""Decides when an alert is sent: at its beginning, once in each interval while it lasts, and when it is over.

Pure: time is handed in. It lives in memory, so a restarted process sends again what is still wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from protojobs_alerts.findings import Finding
from protojobs_alerts.messages import Notice

__all__ = ["ALERTS_MAX", "Throttle"]

ALERTS_MAX = 2_000  # remembered, those that are over and may come back included


class _Alert(Struct):
    finding: Finding
    sent_s: float  # when a firing was sent last
    began_s: float
    held_back: int = 0  # things that happened since, and are not sent yet
    is_firing: bool = True
    is_sent: bool = True  # this firing, and not only one before it
    has_unsent_end: bool = False


class Throttle:
    """At most one message about a beginning or a lasting alert in `interval_s`, and one about its end.

    What is held back meanwhile is counted, and the next message says how much it was.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._alerts: dict[tuple[str, str, str, str], _Alert] = {}

    def turn(
        self, now_s: float, findings: Sequence[Finding], *, unlisted: Sequence[Finding] = (), is_complete: bool = True
    ) -> list[Notice]:
        """The notices that are due for these findings.

        `unlisted` are beyond the number that is sent: those of them that were sent before go on without a message.
        Without `is_complete`, an alert that is missing among them is not taken for over.
        """
        notices = [notice for finding in findings if (notice := self._present(now_s, finding)) is not None]
        for finding in unlisted:
            if (alert := self._alerts.get(finding.key)) is not None:
                self._goes_on(now_s, alert, finding)
        if is_complete:
            missing = self._alerts.keys() - {finding.key for finding in (*findings, *unlisted)}
            for key in sorted(missing):
                if (notice := self._absent(now_s, key)) is not None:
                    notices.append(notice)
        if (surplus := len(self._alerts) - ALERTS_MAX) > 0:  # the longest silent ones go
            for key in sorted(self._alerts, key=lambda key: self._alerts[key].sent_s)[:surplus]:
                del self._alerts[key]
        return notices

    def _present(self, now_s: float, finding: Finding) -> Notice | None:
        alert = self._alerts.get(finding.key)
        if alert is None:
            self._alerts[finding.key] = _Alert(finding, now_s, now_s)
            return Notice(status="firing", finding=finding)
        self._goes_on(now_s, alert, finding)
        if now_s - alert.sent_s < self._interval_s:
            return None
        notice = Notice(status="firing", finding=finding, lasts_s=now_s - alert.began_s, held_back=alert.held_back)
        alert.sent_s, alert.held_back, alert.is_sent, alert.has_unsent_end = now_s, 0, True, False
        return notice

    def _goes_on(self, now_s: float, alert: _Alert, finding: Finding) -> None:
        alert.finding = finding
        alert.held_back += finding.new
        if not alert.is_firing:
            alert.is_firing, alert.is_sent, alert.began_s = True, False, now_s

    def _absent(self, now_s: float, key: tuple[str, str, str, str]) -> Notice | None:
        alert = self._alerts[key]
        if alert.is_firing:
            alert.is_firing = False
            if not alert.is_sent:  # it began and ended while messages were held back
                alert.has_unsent_end = True
                return None
            return self._over(now_s, alert)
        if now_s - alert.sent_s < self._interval_s:
            return None
        if alert.has_unsent_end:
            alert.sent_s, alert.has_unsent_end = now_s, False
            return self._over(now_s, alert)
        del self._alerts[key]
        return None

    def _over(self, now_s: float, alert: _Alert) -> Notice:
        held_back, alert.held_back, alert.is_sent = alert.held_back, 0, False
        return Notice(status="resolved", finding=alert.finding, lasts_s=now_s - alert.began_s, held_back=held_back)
