"""Finds the jobs that match a query: the store filters what it can, the rest is tested here, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC
from functools import cached_property
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.errors import OptionInvalid, QueryInvalid, shown
from protojobs.inspector.redaction import READ_CHARS_MAX, Redaction
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState
from protojobs.port.observing import Observes
from protojobs.port.records import FailedJob, FailedPage, JobRecord
from protojobs.querying.query import Query

__all__ = ["LIST_CHARS_MAX", "PAGES_MAX", "Batch", "Found", "Search"]

LIST_CHARS_MAX = 300  # of a job's data in a list
ERROR_CHARS_MAX = 4_000  # of a failed job's traceback in a list, its end
PAGES = (500, 1_500)  # rows of the first round trip of a search, and of the others
HEAVY_PAGE = 250  # where each row may carry 64 KiB
PAGES_MAX = 40  # of a search that shows none of them: what is counted in 1 s, if the store has much to pass over
ROWS_S = 1.0  # a page is looked at for so long, once it has come; the next goes on at the row at which that ended
IDS_MAX = 500  # that a query may name
GROUPS_MAX = 100  # among which the beginning of a fingerprint is looked up
_FINGERPRINT_CHARS = 16
_MARK = "@"  # in a cursor: the last row seen, the mark, the cursor of the page in which it stood


class Found(Struct, frozen=True):
    """A job that matches. `cursor` leads to what follows it."""

    job: JobRecord
    failure: FailedJob | None
    cursor: str | None


class Batch(Struct, frozen=True):
    """What came of one page of the store. `cursor` is None at the end."""

    found: list[Found]
    examined: int
    cursor: str | None


class _Row(NamedTuple):
    job: JobRecord | None
    failure: FailedJob | None
    cursor: str | None


class Search:
    """One query on one store. Newest id first, but failed jobs by when they failed, the latest first."""

    def __init__(
        self,
        driver: Store,
        query: Query,
        redaction: Redaction,
        *,
        chars_max: int | None = LIST_CHARS_MAX,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.query = query
        self.driver = driver
        self._clock = clock
        self._redaction = redaction
        self._chars_max = chars_max  # of the data of each job that is found; None: all of it
        self._is_heavy = bool(redaction) or any(term.key.startswith(("data.", "meta.")) for term in query.terms)
        self.is_of_failed = query.which.states == (JobState.FAILED,)

    @property
    def is_decided(self) -> bool:
        """Whether all that the store shows matches. It cannot tell failed jobs by their names."""
        return self.query.is_decided_by_store and not (self.is_of_failed and self.query.which.job_name)

    def batches(self, cursor: str | None = None, *, page: int | None = None) -> Iterator[Batch]:
        """The matching jobs, a page of the store at a time, from `cursor` on; `page` rows, or as many as a search
        takes. Fewer where to look at them takes long.

        What is removed behind the walk does not disturb it, and what comes while it goes on is not met.
        """
        if self.query.is_void:
            yield Batch([], 0, None)
            return
        if self.query.ids is not None:
            yield self._by_ids(self.query.ids)
            return
        size = page or (HEAVY_PAGE if self._is_heavy or self.is_of_failed else PAGES[0])
        last, page_cursor = _read(cursor)
        while True:
            batch = self._failed(last, page_cursor, size) if self.is_of_failed else self._jobs(last, page_cursor, size)
            yield batch
            if batch.cursor is None:
                return
            last, page_cursor = _read(batch.cursor)
            size = page or (PAGES[1] if size >= PAGES[0] else HEAVY_PAGE)

    def _by_ids(self, ids: Sequence[str]) -> Batch:
        if len(ids) > IDS_MAX:
            raise QueryInvalid(f"The query names {len(ids)} jobs.", mend=f"At most {IDS_MAX} are allowed.")
        jobs = self.driver.get(ids)
        failed = [job.id for job in jobs if job.status is JobState.FAILED]
        failures = {row.job_id: row for row in self.driver.get_failed(failed)} if failed else {}
        newest_first = sorted(jobs, key=lambda job: job.id, reverse=True)
        matching = [self._match(_Row(job, failures.get(job.id), None)) for job in newest_first]
        return Batch([match for match in matching if match is not None], len(jobs), None)

    def _jobs(self, last: str, page_cursor: str | None, size: int) -> Batch:
        chars = self._chars(LIST_CHARS_MAX)
        page = self.driver.find(self.query.which, limit=size, cursor=page_cursor, chars_max=chars)
        jobs = [job for job in page.jobs if not last or job.id < last]
        rows = [_Row(job, None, f"{job.id}{_MARK}{page_cursor or ''}") for job in jobs]
        return self._batch(rows, page.cursor)

    def _failed(self, last: str, page_cursor: str | None, size: int) -> Batch:
        page = self._failed_page(page_cursor, size)
        rows = [row for row in page.jobs if not last or _key(row) < last]
        jobs = {job.id: job for job in self.driver.get([row.job_id for row in rows])} if rows else {}
        return self._batch(
            [_Row(jobs.get(row.job_id), row, f"{_key(row)}{_MARK}{page_cursor or ''}") for row in rows], page.cursor
        )

    def _failed_page(self, page_cursor: str | None, size: int) -> FailedPage:
        chars = self._chars(READ_CHARS_MAX if self.query.needs_failure else ERROR_CHARS_MAX)
        driver = self.driver
        if self.query.fingerprint is not None and driver.capabilities.observing and isinstance(driver, Observes):
            if self._whole is None:
                return FailedPage(jobs=())
            return driver.failed_alike(self._whole, limit=size, cursor=page_cursor, chars_max=chars)
        return driver.failed(queue=self.query.which.queue, limit=size, cursor=page_cursor, chars_max=chars)

    @cached_property
    def _whole(self) -> str | None:
        """The fingerprint that begins as the query says, once for all pages. None: there is none."""
        start = (self.query.fingerprint or "").lower()
        if len(start) >= _FINGERPRINT_CHARS or not isinstance(self.driver, Observes):
            return start
        groups = self.driver.failure_groups(limit=GROUPS_MAX, counted_max=1, chars_max=1)
        fingerprints = [group.fingerprint for group in groups if group.fingerprint.startswith(start)]
        if len(fingerprints) > 1:
            what = f"fp:{start} is the beginning of {len(fingerprints)} fingerprints."
            raise QueryInvalid(what, mend="Write more of it.")
        return fingerprints[0] if fingerprints else None

    def _chars(self, usual: int) -> int | None:
        """How much to ask for of the data (and traceback) of each row."""
        if self._chars_max is None:
            return None
        return READ_CHARS_MAX if self._is_heavy else usual

    def _batch(self, rows: Sequence[_Row], following: str | None) -> Batch:
        """Those of the rows that match, up to the one at which the time is over."""
        matching: list[Found] = []
        match: Found | None = None
        ends = self._clock.monotonic() + ROWS_S
        for examined, row in enumerate(rows, 1):
            match = self._match(row)
            if match is not None:
                matching.append(match)
            if examined < len(rows) and self._clock.monotonic() >= ends:
                return Batch(matching, examined, row.cursor)
        cursor = None if following is None else f"{_MARK}{following}"
        if match is not None:  # nothing stands behind it in this page
            matching[-1] = replace(match, cursor=cursor)
        return Batch(matching, len(rows), cursor)

    def _match(self, row: _Row) -> Found | None:
        """Held against the query as the viewer sees it: nobody can search for what is hidden from them."""
        failure = row.failure
        if row.job is None:  # gone since its row in failed_jobs was read
            return None
        whole = None if self._chars_max is None else READ_CHARS_MAX
        job = self._redaction.listed(row.job, whole)
        if not self.query.matches(job, failure):
            return None
        if failure is not None:
            failure = self._redaction.listed(failure, self._chars_max)
        if self._chars_max is not None and len(job.data) > self._chars_max:
            job = replace(job, data=job.data[: self._chars_max])
        return Found(job, failure, row.cursor)


def _read(cursor: str | None) -> tuple[str, str | None]:
    if cursor is None:
        return "", None
    last, mark, page_cursor = cursor.partition(_MARK)
    if not mark:
        raise OptionInvalid(f"{shown(cursor, 60)} is no cursor of this list.", mend="Pass one that the list gave.")
    return last, page_cursor or None


def _key(row: FailedJob) -> str:
    """In the order of the list: later is greater."""
    return f"{row.failed_at.astimezone(UTC).isoformat(timespec='microseconds')}/{row.id}"
