"""The frozen values that cross the port between core and a driver.

Times are aware UTC datetimes of the *store's* clock, durations are seconds. A driver neither reads nor changes the
contents of `data`, `retry_policy` and `meta`: they are text that core wrote and core will read.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import force_setattr

from protojobs.names import served_queue
from protojobs.port.lifecycle import JobState, Verb

__all__ = [
    "BATCH_BYTES_MAX",
    "BATCH_JOBS_MAX",
    "COUNTED_MAX",
    "JOB_FIELDS",
    "RESEND_WINDOW_S",
    "CancelAnswer",
    "Capabilities",
    "ClaimReply",
    "ClaimedJob",
    "Cleared",
    "Enqueued",
    "ExportedJob",
    "FailedJob",
    "FailedPage",
    "Fence",
    "Heartbeat",
    "JobFilter",
    "JobPage",
    "JobRecord",
    "LostJob",
    "NewJob",
    "Pruned",
    "QueueInfo",
    "Reclaimed",
    "RetryAnswer",
    "Settled",
    "SettleStatus",
    "Settlement",
    "Stats",
    "WorkerInfo",
    "WorkerRecord",
    "payload_bytes",
]

RESEND_WINDOW_S = 3600.0  # a push may be sent again for so long; until then pruning keeps its first copy
BATCH_JOBS_MAX = 1_000  # jobs in one enqueue, settlements in one settle
BATCH_BYTES_MAX = 8 * 1024 * 1024  # payload bytes in one enqueue or one claim
COUNTED_MAX = 100_000  # live jobs that are counted one by one
JOB_FIELDS = (  # what a job, a schedule and a job that is pushed again have in common
    *("queue", "job_name", "job_class", "data", "priority"),
    *("max_retries", "retry_delay", "retry_policy", "timeout"),
)


def payload_bytes(data: str | bytes) -> int:
    """How much of BATCH_BYTES_MAX a payload takes."""
    return len(data) if data.isascii() or isinstance(data, bytes) else len(data.encode())


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a store can do. The product reads it too: core refuses to send what is not claimed here."""

    transactions: bool = False
    """`enqueue_in` joins the caller's own transaction (SupportsTransaction)."""
    async_transactions: bool = False
    """`aenqueue_in` joins an AsyncSession or AsyncConnection (SupportsAsyncTransaction)."""
    cross_process: bool = True
    """Workers in other processes see the same jobs. Without it each process has a store of its own, or all but one
    are refused theirs, with StoreUnavailable."""
    server_time: bool = True
    """Store time is a server's clock. Otherwise it is this machine's, and stepping it moves due times."""
    durable: bool = True
    """An acknowledged job outlives the process, at the latest with the settings that the driver's page names."""
    concurrent_calls: bool = False
    """Two calls at once are answered sooner than one after the other, as by a server: a worker then settles
    beside its claim."""
    observing: bool = False
    """Keeps what charts, error groups and the audit log need (`protojobs.port.observing.Observes`)."""
    unique_keys: bool = False
    """Reserved: `NewJob.unique_key` is enforced. No driver may claim it yet, and each ignores the field."""
    limits: bool = False
    """Reserved: `NewJob.limit_keys` and `partition` are obeyed. As `unique_keys`."""
    results: bool = False
    """`Settlement.result` and `Settlement.then` are stored, and shown by `protojobs.port.results.Results`."""


class NewJob(Struct, frozen=True, kw_only=True):
    """A job on its way into the store. Made by core, which has checked every field."""

    id: str
    """A UUIDv7, made by the client: sending it again after an unknown outcome stores it once."""
    queue: str
    job_name: str
    """The key by which a worker finds the code."""
    job_class: str
    """Module and qualified name, for people and events."""
    data: str
    """JSON text, or what a transform made of it."""
    priority: int = 0
    """-100 to 100, higher first."""
    max_retries: int = 3
    """Runs after the first: at most max_retries + 1 attempts."""
    retry_delay: float = 60.0
    retry_policy: str | None = None
    """JSON of a `Backoff`; None: the default one."""
    timeout: float = 60.0
    """Seconds, 0 = none. The worker sees to it."""
    delay: float = 0.0
    """Due this many seconds after the store's now, unless `available_at` is given."""
    available_at: datetime | None = None
    """Due at this moment, where the user named one."""
    meta: str | None = None
    """A JSON object of strings that travels with the job: trace context and the like."""
    unique_key: str | None = None
    """Reserved, see Capabilities.unique_keys: ignore it."""
    limit_keys: tuple[str, ...] = ()
    """Reserved, see Capabilities.limits: ignore it."""
    partition: str | None = None
    """Reserved, see Capabilities.limits: ignore it."""


class Enqueued(Struct, frozen=True, kw_only=True):
    """What became of one NewJob: stored, or already there (`duplicate_of` is the id that is stored)."""

    id: str
    duplicate_of: str | None = None


class Fence(Struct, frozen=True, kw_only=True):
    """One claim of one job. All three must match for a settlement to count."""

    id: str
    claim_seq: int
    reserved_by: str


class ClaimedJob(Struct, frozen=True):
    """A job lent to a worker, as it stands after the claim (`attempts` includes the run that begins now).

    Also by position: twenty names cost two microseconds, as much as all the rest that a driver does for a row.
    """

    id: str
    claim_seq: int
    reserved_by: str
    queue: str
    job_name: str
    job_class: str
    data: str
    priority: int
    attempts: int
    max_retries: int
    retry_delay: float
    retry_policy: str | None
    timeout: float
    available_at: datetime
    reserved_at: datetime
    crashes: int
    returns: int
    reclaims: int
    meta: str | None = None
    is_cancel_requested: bool = False


class ClaimReply(Struct, frozen=True, kw_only=True):
    """The answer to `settle_and_claim`. `settled` has one entry per settlement, in their order."""

    settled: tuple[Settled, ...] = ()
    claimed: tuple[ClaimedJob, ...] = ()
    lease_lost: bool = False


class Settlement(Struct, frozen=True, kw_only=True):
    """What a worker says of one claim. `verb` is one of complete, retry, fail, snooze, release, cancel."""

    id: str
    claim_seq: int
    reserved_by: str
    verb: Verb
    delay: float = 0.0
    """retry, snooze, release: due this many seconds after the store's now, unless `available_at` is given."""
    available_at: datetime | None = None
    """retry, snooze, release: due at this moment. For a release that is the job's own, which it keeps."""
    error: str = ""
    """fail: the traceback, for failed_jobs.exception."""
    fingerprint: str = ""
    """fail: the same for failures with one cause, to group them by; at most 32 characters."""
    reason: str = ""
    """cancel, release: why, for people."""
    counts_return: bool = False
    """release of a run that had begun: one more in `returns`; past RETURNS_FREE it is spent."""
    counts_crash: bool = False
    """retry, fail: one more in `crashes`."""
    result: str | None = None
    """complete: JSON text of what the run returned, at most RESULT_BYTES_MAX. Sent where `results` is claimed only."""
    then: tuple[NewJob, ...] = ()
    """complete: jobs that are enqueued in the step that completes this one. Sent where `results` is claimed only."""


class SettleStatus(StrEnum):
    """How a settlement was taken."""

    APPLIED = "applied"
    REPEATED = "repeated"  # this very claim was settled before; nothing was done again
    STALE = "stale"  # the claim is no longer the job's current one, or the job is gone; nothing was done


class Settled(Struct, frozen=True):
    """The answer to one settlement, and where the job stands after it. `state` is None when the job is gone.

    Also by position, as ClaimedJob.
    """

    id: str
    status: SettleStatus
    state: JobState | None = None
    available_at: datetime | None = None


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """A worker introducing itself. A fresh id per process start, never used again once its lease was lost."""

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    """As it was told: names, `mail.*` for all that begin so, `urgent=5` with a weight. A driver keeps the texts."""
    concurrency: int
    lease_s: float
    isolates: bool = False
    """Suspects run in children of their own, so this worker's death says nothing about them."""


class Heartbeat(Struct, frozen=True, kw_only=True):
    """The answer to a heartbeat that the store accepted."""

    cancels: tuple[Fence, ...] = ()
    """The claims of this worker that a person wants cancelled, at each beat until they are settled."""
    others_end_in: float | None = None
    """Seconds to the first lease end among the other workers' rows: negative once it has come, None without others.
    The worker reclaims then. `rules.first_end` computes it."""
    at: datetime | None = None
    """The store time of this beat: what `reclaim(until=...)` is given is counted from it."""


class LostJob(Struct, frozen=True, kw_only=True):
    """A job taken back from a worker whose lease had ended."""

    id: str
    queue: str
    job_name: str
    job_class: str
    attempts: int
    state: JobState  # pending, or cancelled where a person had asked for that
    reserved_by: str


class Reclaimed(Struct, frozen=True, kw_only=True):
    """One round of reclaiming."""

    jobs: tuple[LostJob, ...] = ()
    workers: tuple[str, ...] = ()
    """The ids of the workers whose rows were deleted in this round."""
    has_more: bool = False
    """Another round is asked for at once."""
    others_end_in: float | None = None
    """As in `Heartbeat`, among all rows that stand."""


class WorkerRecord(WorkerInfo, frozen=True, kw_only=True):
    """A worker as the store knows it. Registering anew sets all three times; a heartbeat the last two."""

    started_at: datetime
    heartbeat_at: datetime
    lease_ends_at: datetime
    processing: int = 0
    """How many jobs it holds."""

    def serves(self, queue: str) -> bool:
        """Whether it claims jobs of that queue."""
        return any(served_queue(text).matches(queue) for text in self.queues)


class JobRecord(Struct, frozen=True, kw_only=True):
    """A job as it stands in the store. `status` is the documented column's name for its state."""

    id: str
    queue: str
    job_name: str
    job_class: str
    data: str
    status: JobState
    priority: int
    attempts: int
    max_retries: int
    retry_delay: float
    retry_policy: str | None
    timeout: float
    created_at: datetime
    available_at: datetime
    reserved_at: datetime | None
    processed_at: datetime | None
    reserved_by: str
    """The id of the worker that holds it; empty outside processing."""
    claim_seq: int
    crashes: int
    returns: int
    reclaims: int
    progress: float | None = None
    """From 0 to 1, as its run reported last; 1.0 of a completed job. None: no run has reported any."""
    cancel_requested_at: datetime | None = None
    reason: str | None = None
    """Why it was cancelled or last released."""
    meta: str | None = None

    def __post_init__(self) -> None:
        """A job that is done is wholly done, whatever its last report said."""
        if self.progress is not None and self.status is JobState.COMPLETED:
            force_setattr(self, "progress", 1.0)


class JobFilter(Struct, frozen=True, kw_only=True):
    """Which jobs `find` shows; every field that is set must match."""

    states: tuple[JobState, ...] = ()  # empty: all
    queue: str | None = None
    job_name: str | None = None


class JobPage(Struct, frozen=True, kw_only=True):
    """A page of jobs, newest first. `cursor` is None on the last page; a page may be short and still have one."""

    jobs: tuple[JobRecord, ...]
    cursor: str | None = None


class FailedJob(Struct, frozen=True, kw_only=True):
    """A row of `failed_jobs`."""

    id: str
    job_id: str
    queue: str
    job_class: str
    job_name: str
    data: str
    attempts: int
    exception: str  # the whole traceback, at most 64 KiB
    failed_at: datetime
    fingerprint: str = ""


class FailedPage(Struct, frozen=True, kw_only=True):
    """A page of failed jobs, newest first. `cursor` is None on the last page."""

    jobs: tuple[FailedJob, ...]
    cursor: str | None = None


class Stats(Struct, frozen=True, kw_only=True):
    """How many jobs are where. `scheduled` and the due ones together are `pending`."""

    pending: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    scheduled: int = 0  # pending, not yet due
    is_estimate: bool = False  # live states beyond 100,000 may be estimated

    @property
    def total(self) -> int:
        """All jobs that are kept, cancelled ones included."""
        return self.pending + self.processing + self.completed + self.failed + self.cancelled


class QueueInfo(Struct, frozen=True, kw_only=True):
    """A queue that has jobs, or is paused."""

    name: str
    is_paused: bool
    stats: Stats
    oldest_ready_s: float | None = None  # for how long the oldest due job has waited; None: none is due


class CancelAnswer(StrEnum):
    """What `cancel` did to one job."""

    CANCELLED = "cancelled"  # it was pending, and is cancelled now
    REQUESTED = "requested"  # it is processing: marked, its worker will see it
    FINISHED = "finished"  # it had ended before
    MISSING = "missing"


class RetryAnswer(StrEnum):
    """What `retry_failed` did to one failed job."""

    REQUEUED = "requeued"
    CONFLICT = "conflict"  # its job is not failed any more (or its unique key is taken): left as it is
    MISSING = "missing"


class Cleared(Struct, frozen=True, kw_only=True):
    """What one round of `clear` removed. `has_more` asks for another round."""

    pending: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    has_more: bool = False

    @property
    def total(self) -> int:
        """All jobs removed."""
        return self.pending + self.completed + self.failed + self.cancelled


class Pruned(Struct, frozen=True, kw_only=True):
    """What one round of `prune` removed. `has_more` asks for another round."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    has_more: bool = False

    @property
    def total(self) -> int:
        """All jobs removed."""
        return self.completed + self.failed + self.cancelled


class ExportedJob(JobRecord, frozen=True, kw_only=True):
    """A job on its way to another store; `status` is the state it had, and shall have there."""

    failed: FailedJob | None = None
    """Its row of failed_jobs, if it has one."""
