"""Short jobs are handed over before a slot is free: so many as are run within 10 ms. docs/decisions/0019.

A thread that waits for the claim loop after each run loses 50 us, much for a job of less than a millisecond, and so
does the event loop. So such jobs lie ready in a line in front of the threads, or of the event loop, which take the next
one by themselves. What lies there too long comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from protojobs.port.records import ClaimedJob

__all__ = ["HANDOVER_WAIT_S", "Handover", "Line"]

Line: TypeAlias = Literal["threads", "loop"]
"""In front of what a job lies ready."""

SHORT_RUN_S = 0.001  # jobs that take longer do not mind the claim loop's 50 us
AHEAD_S = 0.01  # so much work of short jobs lies ready in front of the threads
AHEAD_MAX = 200  # jobs
HANDOVER_WAIT_S = 0.25  # a job that no thread has begun after so long is taken back


class Handover:
    """Knows how long the jobs of each name run. `line_of(name)`: where jobs of that name may lie ready, if anywhere.

    Only in one line at a time, and in none beside a run that is at work elsewhere: a thread (or the event loop) has
    room then that is not free, and would begin at once what is meant to lie ready.
    """

    def __init__(self, concurrency: int, line_of: Callable[[str], Line | None], now: float) -> None:
        self.progress_at = now  # when a run ended, or nothing lay ready
        self._concurrency = concurrency
        self._line_of = line_of
        self._mean_s: dict[str, float] = {}  # by name
        self._lines: dict[str, Line] = {}  # by name, of those that have one: it is asked for each job
        self._on_loop: set[tuple[str, int]] = set()
        self._elsewhere: set[tuple[str, int]] = set()  # runs that have a slot, and neither a thread nor a task

    def room(self, name: str, running: int) -> int:
        """How many jobs may be handed over beyond those that have a slot, if this is the next and so many run."""
        mean_s = self._mean_s.get(name, SHORT_RUN_S)
        if mean_s >= SHORT_RUN_S or self._elsewhere or (line := self._line(name)) is None:
            return 0
        if len(self._on_loop) != (running if line == "loop" else 0):
            return 0
        return int(min(AHEAD_MAX, AHEAD_S * self._concurrency / max(mean_s, 1e-6)))

    def begin(self, jobs: Sequence[ClaimedJob]) -> None:
        """These, all alike, are started."""
        line = None if jobs[0].reclaims else self._line(jobs[0].job_name)
        if line != "threads":
            place = self._elsewhere if line is None else self._on_loop
            place.update([(job.id, job.claim_seq) for job in jobs])

    def end(self, now: float, key: tuple[str, int]) -> None:
        """It has a slot no more."""
        self.progress_at = now
        if self._on_loop:
            self._on_loop.discard(key)
        if self._elsewhere:
            self._elsewhere.discard(key)

    def measure(self, name: str, duration_s: float) -> None:
        """A run took so long. A thread that waits for the interpreter's lock in the middle says nothing of its job."""
        mean_s = self._mean_s.get(name, duration_s)
        self._mean_s[name] = mean_s + (min(duration_s, 4 * mean_s + SHORT_RUN_S / 4) - mean_s) / 8

    def is_late(self, now: float) -> bool:
        """Whether no run has ended for so long that what lies ready shall come back: others may be quicker."""
        return now >= self.progress_at + HANDOVER_WAIT_S

    def _line(self, name: str) -> Line | None:
        line = self._lines.get(name)
        if line is None and (line := self._line_of(name)) is not None:  # else not remembered: anybody may push any name
            self._lines[name] = line
        return line
