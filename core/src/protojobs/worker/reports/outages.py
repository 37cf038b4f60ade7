"""Tells of a store that does not answer: once when that begins, and once when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

from protojobs.events import Event, WorkerDegraded

__all__ = ["Outages"]

_log = logging.getLogger("protojobs.worker")


class Outages:
    """What log and observers hear of them."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self._is_away = False

    def missed(self, worker: str, error: Exception | None) -> None:
        """The store has not answered a call, or (no error) its heartbeats."""
        if not self._is_away:
            self._is_away = True
            reason = str(error or "two heartbeats in a row got no answer")
            _log.error("degraded: the store does not answer; staying, and trying again: %s", reason)
            self._send(WorkerDegraded(worker=worker, reason=reason))

    def over(self) -> None:
        """It answers."""
        if self._is_away:
            self._is_away = False
            _log.warning("the store answers again")
