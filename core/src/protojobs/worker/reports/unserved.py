"""Queues with due jobs that no living worker serves: which they are, and a worker that says so in its log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from protojobs.errors import shown
from protojobs.port.driver import Store
from protojobs.port.records import QueueInfo, WorkerRecord

__all__ = ["Unserved", "every_queue", "unserved"]

AGAIN_S = 600.0  # between two lines about the same queues
_PAGE, _PAGES_MAX = 500, 20
_COUNTED_MAX = 1_000  # jobs of each queue: whether there are many, not how many
_SHOWN_MAX = 5
_log = logging.getLogger("protojobs.worker")


def every_queue(driver: Store) -> Iterator[QueueInfo]:
    """The queues by name, the first 10,000, a page in each round trip; the jobs of each are counted up to 1,000."""
    after = ""
    for _ in range(_PAGES_MAX):
        page = driver.queues(after=after, limit=_PAGE, counted_max=_COUNTED_MAX)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].name


def unserved(queues: Iterable[QueueInfo], workers: Iterable[WorkerRecord], now: datetime) -> list[QueueInfo]:
    """Those with due jobs that none of the workers serves whose lease stands. Paused ones wait by wish."""
    alive = [worker for worker in workers if worker.lease_ends_at > now]
    due = [info for info in queues if info.oldest_ready_s is not None and not info.is_paused]
    return [info for info in due if not any(worker.serves(info.name) for worker in alive)]


class Unserved:
    """Of one worker: it tells of such queues when they are others than before, and once in ten minutes."""

    def __init__(self, driver: Store) -> None:
        self._driver = driver
        self._told: Sequence[str] = ()
        self._told_at = float("-inf")

    def look(self, now: float, queues: Iterable[QueueInfo]) -> None:
        """Write a line if there is something to say of these queues. Raises DriverErrors."""
        names = [info.name for info in unserved(queues, self._driver.workers(), self._driver.now())]
        if names and (names != self._told or now >= self._told_at + AGAIN_S):
            more = f" and {len(names) - _SHOWN_MAX:,} more" if len(names) > _SHOWN_MAX else ""
            listed = ", ".join(shown(name) for name in names[:_SHOWN_MAX])
            _log.warning("no worker serves %s%s, where jobs are due; start one for them", listed, more)
            self._told_at = now
        self._told = names
