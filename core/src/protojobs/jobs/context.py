"""JobContext: what a running job may ask and report. A parameter that is annotated with it receives one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, cast, overload

from protojobs.clock import Clock
from protojobs.errors import NotSupported, OptionInvalid, shown
from protojobs.jobs.resources import Resource
from protojobs.names import Delay
from protojobs.port.records import BATCH_BYTES_MAX, BATCH_JOBS_MAX, Fence, NewJob, payload_bytes
from protojobs.port.sessions import AsyncSession, SyncSession

if TYPE_CHECKING:
    from protojobs.jobs.accepted import DataOf, Fields, JobOf, PushedData, Ready
    from protojobs.jobs.job_class import FunctionJob

__all__ = ["NO_RESOURCES", "JobContext"]

NO_RESOURCES: Mapping[Resource[object], object] = MappingProxyType({})
_NOTHING = nullcontext()
T = TypeVar("T")


class JobContext:
    """One run of one job, seen from inside.

    `attempt` counts spent attempts from 1 (this one included); on the last one it is `max_retries + 1`. `claim_seq`
    counts every time the job was lent.
    """

    __slots__ = (
        "_cancelled",
        "_clock",
        "_ends",
        "_report",
        "_stopping",
        "attempt",
        "completer",
        "effect_probe",
        "fence",
        "has_heard_cancel",
        "id",
        "is_async",
        "is_completed",
        "is_out_of_place",
        "job_name",
        "log",
        "maker",
        "max_retries",
        "meta",
        "next_jobs",
        "queue",
        "resources",
    )

    def __init__(  # noqa: PLR0913  (built in one place, by the worker)
        self,
        fence: Fence,
        *,
        queue: str,
        job_name: str,
        attempt: int,
        max_retries: int,
        ends_at: float | None,
        meta: Mapping[str, str],
        clock: Clock,
        report: Callable[[Fence, float], None],
    ) -> None:
        self.fence = fence
        self.id = fence.id
        self.queue = queue
        self.job_name = job_name
        self.attempt = attempt
        self.max_retries = max_retries
        self.meta = meta
        self.effect_probe: Callable[[str], AbstractContextManager[None]] | None = None  # set by assert_idempotent only
        self.completer: Callable[[object, Fence], None] | None = None  # set by the worker where its driver has it
        self.maker: Callable[[object, object, Delay], NewJob] | None = None  # set by the worker where results are kept
        self.next_jobs: list[NewJob] = []  # what `then` was asked for
        self.resources = NO_RESOURCES  # that are open in this process; set by the worker
        self.is_async = False  # whether the run is on the event loop; set by the worker
        self.is_completed = False  # in a transaction of the job's own, which may still be rolled back
        self.is_out_of_place = False  # it wanted to complete the job where that cannot be done
        self.log = logging.LoggerAdapter(logging.getLogger("protojobs.job"), {"job_id": fence.id, "attempt": attempt})
        self._clock = clock
        self._ends = ends_at
        self._report = report
        self._cancelled = False
        self._stopping = False
        self.has_heard_cancel = False  # and not only been told

    @property
    def claim_seq(self) -> int:
        """How often this job has been lent, this time included; with the id it names this very run."""
        return self.fence.claim_seq

    @property
    def deadline_s(self) -> float | None:
        """Seconds left of the job's timeout; None without one, negative beyond it."""
        return None if self._ends is None else self._ends - self._clock.monotonic()

    def progress(self, share: float) -> None:
        """Report how much is done, from 0 to 1. Stored within about a second, so call it as often as you like."""
        if not 0 <= share <= 1:
            raise OptionInvalid(f"progress is {shown(share)}.", mend="It goes from 0 to 1.")
        self._report(self.fence, share)

    def cancelled(self) -> bool:
        """Whether a person wants this run to end. A plain function asks now and then, and returns early.

        A run that has heard True and returns is `cancelled`. One that does not ask completes its job.
        """
        self.has_heard_cancel = self.has_heard_cancel or self._cancelled
        return self._cancelled

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to stop: by SIGTERM, Ctrl-C, or its stop token.

        From then on the run has `shutdown_grace` left at most; then it is cut short, and runs again from its beginning.
        A long one looks at this now and then, stores how far it is, and returns `Snooze(0)`: another worker goes on,
        and no attempt is spent. A worker that ends by a limit (`--max-jobs`, `--max-memory`) waits for its runs, and
        does not say it.
        """
        return self._stopping

    def complete_in(self, session: SyncSession) -> None:
        """Complete this job inside your own transaction, so that its effects and its completion are stored together.

        `session` is a SQLAlchemy Session or Connection on the jobs' database. Call it once, at any point before your
        commit: with the commit the job is completed, for ever; if the transaction is rolled back, or its commit fails,
        the run counts as a failed attempt, whatever it returns. So the effects in that database happen exactly once.

        Raises LeaseLost when another worker has the job by now: let it pass, so that your transaction rolls back.
        Raises OptionInvalid after `then`: what comes next would not be part of your transaction.
        Raises NotSupported on a store without transactions, and in a child process. (A job that is in one only since it
        died with two workers is run by the worker instead.)
        """
        if self.next_jobs:
            raise _both_ways()
        if self.completer is None:
            self.is_out_of_place = True
            raise NotSupported(
                "This run cannot be completed in a transaction of yours.",
                mend="It takes a SQLAlchemy driver, and a run in a thread or on the event loop.",
            )
        self.completer(session, self.fence)
        self.is_completed = True

    async def acomplete_in(self, session: AsyncSession) -> None:
        """`complete_in` for an AsyncSession or AsyncConnection."""
        run_sync = getattr(session, "run_sync", None)
        if run_sync is None:
            raise OptionInvalid(f"{shown(session)} is no AsyncSession or AsyncConnection.", mend="Or call complete_in.")
        await cast("Callable[[Callable[[SyncSession], None]], Awaitable[None]]", run_sync)(self.complete_in)

    @overload
    def then(self, job: Ready, *, delay: Delay = 0.0) -> str: ...
    @overload
    def then(self, job: JobOf[PushedData] | str, data: DataOf[PushedData], *, delay: Delay = 0.0) -> str: ...
    @overload
    def then(
        self, job: JobOf[Fields] | FunctionJob[..., object], data: Mapping[str, object], *, delay: Delay = 0.0
    ) -> str: ...
    def then(self, job: object, data: object = None, *, delay: Delay = 0.0) -> str:
        """Ask for another job that is stored if and only if this run completes its own; returns the other's id.

        Both happen in one step of the store: whatever crashes, a completed job's next one is there, once, and a run
        that fails, snoozes, is cancelled or has lost its lease leaves none. `job` and `data` as for `push`; `delay` as
        for `later`, counted from the end of this run. A run may ask for 1,000 jobs, or 8 MiB of their data.

        Raises a PayloadError or OptionInvalid as `push` does, and OptionInvalid after `complete_in`. Raises
        NotSupported on a store that keeps no results.
        """
        if self.is_completed:
            raise _both_ways()
        if self.maker is None:
            raise NotSupported(
                "This store cannot store what comes next together with the end of a run.",
                mend="Push it instead, as the last thing that the run does: after a crash it may be there twice.",
            )
        new = self.maker(job, data, delay)
        size = sum([payload_bytes(other.data) for other in self.next_jobs]) + payload_bytes(new.data)
        if len(self.next_jobs) >= BATCH_JOBS_MAX or size > BATCH_BYTES_MAX:
            raise OptionInvalid(
                f"A run may ask for {BATCH_JOBS_MAX:,} jobs that come next, with {BATCH_BYTES_MAX:,} bytes of data.",
                mend="Ask for one that pushes the others.",
            )
        self.next_jobs.append(new)
        return new.id

    def effect(self, name: str) -> AbstractContextManager[None]:
        """Say that what is done inside changes the world outside: `with context.effect("charge the card"): ...`.

        A worker does nothing with it. In tests `protojobs.testing.assert_idempotent` stops the run before and after
        each effect, as a crash would, runs the job again, and compares.
        """
        return _NOTHING if self.effect_probe is None else self.effect_probe(name)

    def resource(self, declared: Resource[T]) -> T:
        """The value that this process has made of a function under `@resource`; every job here gets the same one.

        Raises NotSupported where a plain job asks for an async resource, which belongs to the event loop, and
        OptionInvalid for what was not declared when the worker started.
        """
        if getattr(declared, "is_async", False) and not self.is_async:
            raise NotSupported(
                f"The resource {declared.name} is for async jobs: it belongs to the event loop, and this job does not.",
                mend="Make the job an `async def`, or the resource a plain function.",
            )
        if declared not in self.resources:
            raise OptionInvalid(
                f"{shown(declared)} is not open here.",
                mend="Declare it under @resource, at the top of a module that is imported before the worker starts.",
            )
        return cast("T", self.resources[declared])

    @property
    def is_cancel_requested(self) -> bool:
        """Whether `cancelled()` would be true. For the worker, which does not hear it in the job's place."""
        return self._cancelled

    def request_stop(self) -> None:
        """Make `stopping` true. Called by the worker."""
        self._stopping = True

    def request_cancel(self) -> None:
        """Make `cancelled()` true. Called by the worker."""
        self._cancelled = True


def _both_ways() -> OptionInvalid:
    return OptionInvalid(
        "A run either completes its job in your transaction or asks for what comes next by `then`: both cannot be one"
        " step.",
        mend="Beside complete_in push the next job into the same transaction: queue.push(..., session=session).",
    )
