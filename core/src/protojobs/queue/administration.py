"""What a JobQueue can do beside pushing and working: look, cancel, retry, pause, clear, prune."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from protojobs.config import Settings, kept_s
from protojobs.errors import ConfigurationError, OptionInvalid, shown
from protojobs.events import QueuePaused, QueueResumed
from protojobs.names import check_name, check_seconds, check_text
from protojobs.port.driver import Store
from protojobs.port.records import (
    CancelAnswer,
    Cleared,
    FailedJob,
    FailedPage,
    JobFilter,
    JobPage,
    JobRecord,
    Pruned,
    QueueInfo,
    RetryAnswer,
    Stats,
    WorkerRecord,
)
from protojobs.queue.offload import offload

if TYPE_CHECKING:
    from protojobs.hooks.hooks import Hooks

__all__ = ["QueueAdministration"]

_ROUND = 1_000  # rows per round of clear and prune: a lock held for milliseconds


class QueueAdministration:
    """The administrative half of JobQueue. Bulk verbs work in rounds, so they never hold a lock for long."""

    def __init__(self, driver: Store, settings: Settings) -> None:
        if not hasattr(driver, "enqueue"):
            raise ConfigurationError(
                f"JobQueue takes a driver, not a {type(driver).__name__}.",
                mend="Write JobQueue(create_driver(url)), or JobQueue.from_config(url=url).",
            )
        self.driver = driver
        self.settings = settings

    @property
    def hooks(self) -> Hooks:
        """The plugins in use."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------- looking

    def stats(self, queue: str | None = None) -> Stats:
        """How many jobs are in which state, of one queue or of all."""
        return self.driver.stats(None if queue is None else check_name("queue", queue))

    def get(self, job_id: str) -> JobRecord | None:
        """The job as it stands in the store, or None."""
        return next(iter(self.driver.get([job_id])), None)

    def find(self, which: JobFilter | None = None, *, limit: int = 50, cursor: str | None = None) -> JobPage:
        """A page of jobs, newest first."""
        if not isinstance(which, JobFilter | None):
            raise OptionInvalid(
                f"find() takes a JobFilter, not {shown(which)}.",
                mend='Write find(JobFilter(states=(JobState.FAILED,))). Text such as "state:failed" is for'
                " Inspector(queue).jobs().",
            )
        return self.driver.find(which or JobFilter(), limit=limit, cursor=cursor)

    def failed_jobs(self, queue: str | None = None) -> Iterator[FailedJob]:
        """The failed jobs, newest first, fetched page by page while you iterate."""
        cursor: str | None = None
        while True:
            page: FailedPage = self.driver.failed(queue=queue, limit=100, cursor=cursor)
            yield from page.jobs
            if (cursor := page.cursor) is None:
                return

    def queues(self) -> list[QueueInfo]:
        """The queues that have jobs or are paused."""
        return self.driver.queues()

    def workers(self) -> list[WorkerRecord]:
        """The workers that the store knows."""
        return self.driver.workers()

    # -------------------------------------------------------------------------------------------------------- acting

    def cancel(self, job_id: str, *, reason: str = "") -> CancelAnswer:
        """Cancel a job: a pending one at once, a running one as soon as its worker sees the mark."""
        return self.driver.cancel([job_id], reason=check_text("reason", reason))[0]

    def cancel_many(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        """`cancel` for many jobs, a thousand in each round trip; answers in order."""
        check_text("reason", reason)
        return [answer for chunk in _chunks(ids) for answer in self.driver.cancel(chunk, reason=reason)]

    def retry_failed(self, ids: str | Sequence[str]) -> list[RetryAnswer]:
        """Queue failed jobs again with their own settings, by the ids of the jobs or of their `failed_jobs` rows.

        Answers in order.
        """
        wanted = [ids] if isinstance(ids, str) else list(ids)
        return [answer for chunk in _chunks(wanted) for answer in self._retried(chunk)]

    def _retried(self, ids: Sequence[str]) -> list[RetryAnswer]:
        answers = self.driver.retry_failed(ids)
        if missing := [one for one, answer in zip(ids, answers, strict=True) if answer is RetryAnswer.MISSING]:
            rows = self._rows_of(missing)
            told = dict(zip(rows, self.driver.retry_failed([*rows.values()]), strict=True)) if rows else {}
            answers = [told.pop(one, answer) for one, answer in zip(ids, answers, strict=True)]
        return answers

    def forget_failed(self, ids: str | Sequence[str]) -> int:
        """Delete failed jobs for good, by the ids of the jobs or of their `failed_jobs` rows; how many there were."""
        wanted = [ids] if isinstance(ids, str) else list(ids)
        return sum(self._forgotten(chunk) for chunk in _chunks(wanted))

    def _forgotten(self, ids: Sequence[str]) -> int:
        count = self.driver.forget_failed(ids)
        rows = self._rows_of(ids) if count < len(ids) else {}
        return count + self.driver.forget_failed([*rows.values()]) if rows else count

    def _rows_of(self, job_ids: Sequence[str]) -> dict[str, str]:
        """The `failed_jobs` rows of those among the ids that are a failed job's."""
        wanted = set(job_ids)
        return {row.job_id: row.id for row in self.driver.get_failed(job_ids) if row.job_id in wanted}

    def pause(self, queue: str) -> bool:
        """Stop handing out the queue's jobs, on all workers, from the next claim on. False: it was paused already."""
        changed = self.driver.pause(check_name("queue", queue))
        if changed:
            self.hooks.notify(QueuePaused(queue=queue))
        return changed

    def resume(self, queue: str) -> bool:
        """Hand out the queue's jobs again. False: it was not paused."""
        changed = self.driver.resume(check_name("queue", queue))
        if changed:
            self.hooks.notify(QueueResumed(queue=queue))
        return changed

    def clear(self, queue: str) -> Cleared:
        """Remove the queue's pending, finished and failed jobs, never a processing one.

        Takes away about as many as there are at the start: it ends, even if jobs keep coming.
        """
        stats = self.driver.stats(check_name("queue", queue))
        done = more = self.driver.clear(queue, limit=_ROUND)
        while more.has_more and done.total < stats.total:
            more = self.driver.clear(queue, limit=_ROUND)
            done = Cleared(
                pending=done.pending + more.pending,
                completed=done.completed + more.completed,
                failed=done.failed + more.failed,
                cancelled=done.cancelled + more.cancelled,
            )
        return done

    def prune(
        self,
        *,
        completed_older_than: float | timedelta | None = None,
        failed_older_than: float | timedelta | None = None,
    ) -> Pruned:
        """Delete finished jobs that are older than their retention, and say how many.

        Without arguments the configured retentions apply, and jobs that ended less than an hour ago are kept, so that
        a push sent again still meets its first copy. Ages given here (seconds or timedelta) do as told, for what they
        name only.
        """
        told = completed_older_than is not None or failed_older_than is not None
        completed = (
            None if completed_older_than is None else check_seconds("completed_older_than", completed_older_than)
        )
        failed = None if failed_older_than is None else check_seconds("failed_older_than", failed_older_than)
        done = Pruned()
        while True:
            more = self.driver.prune(
                completed_older_than=completed if told else kept_s(self.settings.completed_job_retention),
                failed_older_than=failed if told else kept_s(self.settings.failed_job_retention),
                limit=_ROUND,
            )
            done = Pruned(
                completed=done.completed + more.completed,
                failed=done.failed + more.failed,
                cancelled=done.cancelled + more.cancelled,
            )
            if not more.has_more:
                return done

    # --------------------------------------------------------------------------------------- the same for coroutines

    async def astats(self, queue: str | None = None) -> Stats:
        """`stats` for coroutines."""
        return await offload(self.stats, queue)

    async def aget(self, job_id: str) -> JobRecord | None:
        """`get` for coroutines."""
        return await offload(self.get, job_id)

    async def afind(self, which: JobFilter | None = None, *, limit: int = 50, cursor: str | None = None) -> JobPage:
        """`find` for coroutines."""
        return await offload(self.find, which, limit=limit, cursor=cursor)

    async def afailed_jobs(self, queue: str | None = None) -> AsyncIterator[FailedJob]:
        """`failed_jobs` for coroutines: `async for`."""
        cursor: str | None = None
        while True:
            page = await offload(self.driver.failed, queue=queue, limit=100, cursor=cursor)
            for job in page.jobs:
                yield job
            if (cursor := page.cursor) is None:
                return

    async def aqueues(self) -> list[QueueInfo]:
        """`queues` for coroutines."""
        return await offload(self.queues)

    async def aworkers(self) -> list[WorkerRecord]:
        """`workers` for coroutines."""
        return await offload(self.workers)

    async def acancel(self, job_id: str, *, reason: str = "") -> CancelAnswer:
        """`cancel` for coroutines."""
        return await offload(self.cancel, job_id, reason=reason)

    async def acancel_many(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        """`cancel_many` for coroutines."""
        return await offload(self.cancel_many, ids, reason=reason)

    async def aretry_failed(self, ids: str | Sequence[str]) -> list[RetryAnswer]:
        """`retry_failed` for coroutines."""
        return await offload(self.retry_failed, ids)

    async def aforget_failed(self, ids: str | Sequence[str]) -> int:
        """`forget_failed` for coroutines."""
        return await offload(self.forget_failed, ids)

    async def apause(self, queue: str) -> bool:
        """`pause` for coroutines."""
        return await offload(self.pause, queue)

    async def aresume(self, queue: str) -> bool:
        """`resume` for coroutines."""
        return await offload(self.resume, queue)

    async def aclear(self, queue: str) -> Cleared:
        """`clear` for coroutines."""
        return await offload(self.clear, queue)

    async def aprune(
        self,
        *,
        completed_older_than: float | timedelta | None = None,
        failed_older_than: float | timedelta | None = None,
    ) -> Pruned:
        """`prune` for coroutines."""
        return await offload(self.prune, completed_older_than=completed_older_than, failed_older_than=failed_older_than)


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _ROUND] for start in range(0, len(ids), _ROUND))
