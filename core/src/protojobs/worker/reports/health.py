"""How a worker is: for probes, which do not ask the store, and for the log when the store does not answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import msgspec

from protojobs.events import Event, WorkerDegraded
from protojobs.port.records import WorkerInfo

__all__ = ["Condition", "Outages", "WorkerHealth"]

STILL_MIN_S = 30.0  # longer than a claim loop may wait for a store that is away: an outage is no reason to end a worker
_log = logging.getLogger("protojobs.worker")


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker is at one moment; ages in seconds."""

    worker: str
    is_live: bool  # its claim loop and its heartbeat thread have turned of late
    is_ready: bool  # it is registered, and the store has answered of late
    loop_s: float  # since the claim loop turned
    beat_s: float  # since the heartbeat thread turned
    answer_s: float  # since the store answered
    running: int
    slots: int


class WorkerHealth:
    """Each field has one thread that writes it; anybody may read."""

    _info: WorkerInfo | None = None  # until it is registered
    _running = 0
    _turned_at = _beat_at = _claimed_at = _good_beat_at = -math.inf

    def begins(self, info: WorkerInfo, now: float) -> None:
        """It is registered, and its threads are about to begin."""
        self._turned_at = self._beat_at = self._good_beat_at = now
        self._info = info

    def turns(self, now: float, running: int, claimed_at: float) -> None:
        """The claim loop begins another turn. `claimed_at`: when the store last answered it."""
        self._turned_at, self._running, self._claimed_at = now, running, claimed_at

    def beats(self, now: float, info: WorkerInfo, *, is_good: bool) -> None:
        """The heartbeat thread has made a beat, and the store has answered it or has not."""
        self._beat_at, self._info = now, info
        if is_good:
            self._good_beat_at = now

    def condition(self, now: float) -> Condition | None:
        """How the worker is; None before it has begun."""
        if (info := self._info) is None:
            return None
        loop_s, beat_s = now - self._turned_at, now - self._beat_at
        answer_s = now - max(self._claimed_at, self._good_beat_at)
        # A worker whose threads have stood still for a lease is as good as dead: others may have its jobs.
        still_s = max(info.lease_s, STILL_MIN_S)
        return Condition(
            worker=info.id,
            is_live=max(loop_s, beat_s) <= still_s,
            is_ready=answer_s
            <= info.lease_s / 2,  # in doubt from then on, and starting nothing: docs/how-to/outages.md
            loop_s=loop_s,
            beat_s=beat_s,
            answer_s=answer_s,
            running=self._running,
            slots=info.concurrency,
        )


class Outages:
    """Tells the log and the observers that the store does not answer: once when that begins, once when it is over."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self.is_away = False

    def missed(self, worker: str, error: Exception | None) -> None:
        """The store has not answered a call, or (no error) its heartbeats."""
        if not self.is_away:
            self.is_away = True
            reason = str(error or "two heartbeats in a row got no answer")
            _log.error("degraded: the store does not answer; staying, and trying again: %s", reason)
            self._send(WorkerDegraded(worker=worker, reason=reason))

    def over(self) -> None:
        """It answers."""
        if self.is_away:
            self.is_away = False
            _log.warning("the store answers again")
