"""Finds what is wrong in the store by the rules of the settings. Reads only, and each read is bounded."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from protojobs.port.driver import Store
from protojobs.port.records import FailedJob, QueueInfo, WorkerRecord
from protojobs_alerts.settings import AlertSettings

__all__ = ["FINDINGS_MAX", "Failures", "Finding", "error_type", "findings", "in_words", "printable"]

FINDINGS_MAX = 200  # reported one by one; the rest as a number
PAGE, PAGES_MAX = 100, 10  # failed jobs read in one look
FAILURES_MAX = 20_000  # remembered in all
TAIL_CHARS = 4_000  # of a traceback that are read, to find the error in it ...
WHOLE_MAX = 20  # ... and of so many in one look the whole, where that is but the end of what the error said
OVERLAP = timedelta(seconds=60)  # a failure may be committed that much after a later one
NAME_CHARS, DETAIL_CHARS = 100, 200
_FRAME = '  File "'
_ERROR_LINE = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?$")

Kind = Literal["failed", "oldest", "depth", "workers", "store", "more"]


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is wrong. Those with the same `key` are one alert, which goes on.

    `new`: how many of `count` came since the look before, where things are counted that happen.
    """

    kind: Kind
    text: str
    queue: str = ""
    job_name: str = ""
    error: str = ""
    count: int = 0
    seconds: float = 0.0
    new: int = 0

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes two findings the same alert."""
        return (self.kind, self.queue, self.job_name, self.error)


class _Failure(Struct, frozen=True):
    failed_at: datetime
    id: str
    job_name: str
    error: str
    queue: str
    detail: str


class Failures:
    """The failed jobs of the last `window_s` seconds. Each look reads only what is new since the one before.

    A failure that is retried or forgotten between two looks is not seen; one that was seen counts for the window.
    """

    def __init__(self, store: Store, window_s: float, *, with_detail: bool = False) -> None:
        self._store = store
        self._window = timedelta(seconds=window_s)
        self._with_detail = with_detail
        self._kept: deque[_Failure] = deque()  # in the order in which they were found
        self._known: set[str] = set()
        self._newest: datetime | None = None
        self._cut_at: datetime | None = None  # when there were more than one look reads

    def look(self, now: datetime) -> list[Finding]:
        """Groups by job and error, the largest first. `now` is store time."""
        if self._cut_at is not None and self._cut_at < now - self._window:
            self._cut_at = None
        jobs, newest, is_cut = self._unknown(now)
        failures = self._failures(jobs)
        # Only now, when all is read: if the store fails in the middle of a look, the next one reads the same again.
        self._newest = newest
        self._cut_at = now if is_cut else self._cut_at
        self._known.update(one.id for one in failures)
        self._kept.extend(reversed(failures))
        while self._kept and (self._kept[0].failed_at < now - self._window or len(self._kept) > FAILURES_MAX):
            self._known.discard(self._kept.popleft().id)
        new = Counter((one.job_name, one.error) for one in failures)
        counts = Counter((one.job_name, one.error) for one in self._kept)
        latest = {(one.job_name, one.error): one for one in self._kept}
        return [self._finding(latest[key], count, new[key]) for key, count in counts.most_common()]

    def _unknown(self, now: datetime) -> tuple[list[FailedJob], datetime | None, bool]:
        """Those that no look before has seen, when the latest of all failed, and whether more are there."""
        since, newest = now - self._window, self._newest
        if newest is not None:
            since = max(since, newest - OVERLAP)
        unknown: dict[str, FailedJob] = {}
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            page = self._store.failed(limit=PAGE, cursor=cursor, chars_max=TAIL_CHARS)
            for job in page.jobs:
                if job.failed_at < since:
                    return list(unknown.values()), newest, False
                newest = max(newest or job.failed_at, job.failed_at)
                if job.id not in self._known:
                    unknown[job.id] = job
            if (cursor := page.cursor) is None:
                return list(unknown.values()), newest, False
        return list(unknown.values()), newest, True

    def _failures(self, jobs: Sequence[FailedJob]) -> list[_Failure]:
        headless = [job.id for job in jobs if len(job.exception) >= TAIL_CHARS and _FRAME not in job.exception]
        whole: dict[str, str] = {}
        if headless:
            whole = {job.id: job.exception for job in self._store.get_failed(headless[:WHOLE_MAX])}
        lost = set(headless) - whole.keys()
        return [self._failure(job, "" if job.id in lost else whole.get(job.id, job.exception)) for job in jobs]

    def _failure(self, job: FailedJob, traceback: str) -> _Failure:
        error, text = error_type(traceback)
        detail = printable(text, DETAIL_CHARS) if self._with_detail else ""
        return _Failure(job.failed_at, job.id, printable(job.job_name), error, printable(job.queue), detail)

    def _finding(self, last: _Failure, count: int, new: int) -> Finding:
        times = "once" if count == 1 else f"{count:,} times"
        if self._cut_at is not None:
            times = f"at least {times}"
        since = in_words(self._window.total_seconds())
        text = f"Job {last.job_name} failed for good {times} in {since} with {last.error} (queue {last.queue})."
        return Finding(
            kind="failed",
            text=f"{text} The last one said: {last.detail}" if last.detail else text,
            job_name=last.job_name,
            error=last.error,
            count=count,
            new=new,
        )


def findings(
    settings: AlertSettings, queues: Sequence[QueueInfo], workers: Sequence[WorkerRecord], now: datetime
) -> Iterator[Finding]:
    """What is wrong with queues and workers. A paused queue is somebody's wish, and no alert."""
    oldest, depth = settings.oldest_limits, settings.depth_limits
    is_due = False
    for info in queues:
        due, waited_s = info.stats.pending - info.stats.scheduled, info.oldest_ready_s or 0.0
        name = printable(info.name)
        if info.is_paused:
            continue
        is_due = is_due or due > 0
        if (limit := oldest.of(info.name)) is not None and waited_s > limit:
            text = f"Queue {name} is behind: its oldest due job has waited {in_words(waited_s)}."
            yield Finding(kind="oldest", text=text, queue=name, seconds=waited_s, count=due)
        if (most := depth.of(info.name)) is not None and due > most:
            text = f"Queue {name} is full: {due:,} jobs are due."
            yield Finding(kind="depth", text=text, queue=name, count=due)
    if settings.workers and is_due and not any(worker.lease_ends_at >= now for worker in workers):
        yield Finding(kind="workers", text="Jobs are due, and no worker is alive.")


def error_type(traceback: str) -> tuple[str, str]:
    """The name of the exception of a traceback's text, and the first line of what it said.

    Only the line that a traceback has for it is taken for the name: any other may be of the job's data.
    """
    lines = traceback.splitlines()
    frames = [index for index, line in enumerate(lines) if line.startswith(_FRAME)]
    rest = lines[frames[-1] + 1 :] if frames else lines
    line = next((line for line in rest if not line.startswith(" ")), "")
    match = _ERROR_LINE.match(line)
    return (printable(match[1]), match[2] or "") if match else ("an error", "")


def printable(text: str, chars_max: int = NAME_CHARS) -> str:
    """Fit for a line that a person reads: neither control characters nor such that turn the text around, and short."""
    plain = "".join("?" if unicodedata.category(c)[0] == "C" else c for c in text[: chars_max + 1])
    plain = plain.replace("\u2028", "?").replace("\u2029", "?")
    return plain if len(plain) <= chars_max else f"{plain[: chars_max - 3]}..."


def in_words(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
