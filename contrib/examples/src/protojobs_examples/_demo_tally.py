"""Counts what the demo's jobs do, from the events of the worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from protojobs import events

__all__ = ["Count", "Tally"]

_WHY_CHARS_MAX = 76  # with its indent a line of a narrow terminal


class Count:
    """One queue's numbers."""

    def __init__(self, pushed: int) -> None:
        self.pushed = pushed
        self.completed = 0
        self.retried = 0
        self.failed = 0
        self.run_s = 0.0

    @property
    def ended(self) -> int:
        """Jobs that will not run again."""
        return self.completed + self.failed


class Tally:
    """The numbers of every queue, and a word for each thing that a person would want to know of.

    Listeners are called on a thread of the worker's; whoever reads the numbers reads them as they stand.
    """

    def __init__(self, pushed: Mapping[str, int], tell: Callable[[str], None]) -> None:
        self.counts = {queue: Count(number) for queue, number in pushed.items()}
        self.all_ended = threading.Event()
        self._tell = tell

    @contextmanager
    def listening(self) -> Generator[None]:
        """Listen to the events of this process, until the end of the block."""
        listeners: dict[str, Callable[..., object]] = {
            "job.processed": self._processed,
            "job.retrying": self._retrying,
            "job.failed": self._failed,
            "job.lost": self._lost,
        }
        for name, listener in listeners.items():
            events.on(name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                events.off(name, listener)

    def _processed(self, event: events.JobProcessed) -> None:
        count = self.counts[event.queue]
        count.completed += 1
        count.run_s += event.duration_s
        if event.attempt > 1:
            self._tell(f"{_short(event)}: attempt {event.attempt} worked")
        self._look()

    def _retrying(self, event: events.JobRetrying) -> None:
        self.counts[event.queue].retried += 1
        left = (event.available_at - datetime.now(UTC)).total_seconds() if event.available_at else 0.0
        self._tell(f"{_short(event)}: attempt {event.attempt} failed, next in {max(left, 0.0):.1f} s{_why(event)}")

    def _failed(self, event: events.JobFailed) -> None:
        self.counts[event.queue].failed += 1
        self._tell(
            f"{_short(event)}: attempt {event.attempt} failed, its last: kept among the failed jobs{_why(event)}"
        )
        self._look()

    def _lost(self, event: events.JobReclaimed) -> None:
        self.counts[event.queue].retried += 1
        self._tell(f"{_short(event)}: taken back from the worker that was killed, runs again")

    def _look(self) -> None:
        if all(count.ended >= count.pushed for count in self.counts.values()):
            self.all_ended.set()


def _short(event: events.JobEvent) -> str:
    return event.job_class.rpartition(".")[2]


def _why(event: events.JobRetrying | events.JobFailed) -> str:
    text = f"{type(event.exception).__name__}: {event.exception}" if event.exception else ""
    return f"\n    {text if len(text) <= _WHY_CHARS_MAX else text[: _WHY_CHARS_MAX - 3] + '...'}"
