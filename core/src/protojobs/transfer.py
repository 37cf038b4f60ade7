"""Moves the jobs and schedules of one store to another: export a page, import it there, drop it here, to the end.

Pending, scheduled and failed jobs move, each as it is: id, data, settings, attempts, times, failed_jobs row. A job on
its way is `moving` at the source under the transfer's token; nobody can claim it there. Whenever we die, the same
transfer started again under the same token goes on:

* before or in an export: the step is atomic; either nothing has happened, or a page is moving under the token.
* between export and import: the page is at the source only, moving. The next run is given it again first.
* in an import: the step is atomic. The next run exports the same page and imports it again, if need be.
* between import and drop: the page is in both stores. At the source it cannot be claimed, so only the copy at the
  destination can run. The next run imports it again, which the destination answers with "known id", and drops it.
* after a drop: the page is at the destination only.

So no job is ever in neither store, or runnable in both. One thing is left to people: a page that was stored at the
destination, worked *and pruned* (or cleared) there before a killed transfer is started again would be stored anew. So
start it again within the retention of finished jobs at the destination, a day by default.

Jobs that workers hold at the source stay there, and so do finished ones. While the source is still written to, the
transfer follows until a whole pass finds nothing new.

Schedules move after the jobs. Each is stored at the destination as it is, but held there: paused, and with a mark of
the transfer for its last job. Then it is put to rest at the source (it waits for no time), freed at the destination
with what the source says of its pause and last job, and removed at the source. So whenever we die, the time that it
waits for is kept, it can fire in one store at most, and the next run goes on. One that the destination has too (code
declares it there) stays as it is there, and takes over up to when it has fired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from socket import gethostname
from typing import TypeVar
from uuid import NAMESPACE_URL, uuid5
from zlib import crc32

from msgspec import Struct
from msgspec.structs import replace

from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.entropy import fresh_id
from protojobs.errors import ContractBroken, OptionInvalid, StoreUnavailable
from protojobs.names import check_count, check_name
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState
from protojobs.port.records import BATCH_BYTES_MAX, BATCH_JOBS_MAX, ExportedJob, JobFilter, WorkerInfo, payload_bytes
from protojobs.port.schedules import Schedule, SchedulePage, only
from protojobs.queue.pushing import until_answered
from protojobs.timetable.timetable import timetable_of

__all__ = ["TransferReport", "are_one_store", "token_for", "transfer"]

PATIENCE_S = 30.0  # a store that does not answer is asked again for so long, at each step
PASSES_MAX = 1_000  # through the source; more than two happen only while others write there
_TRIES = 100  # to move a schedule that is changed at the same moment
_FOUND_PAGES_MAX = 100  # pages of `find` when looking for jobs that another transfer has left behind
_SERVERS = ("postgresql", "mysql", "mariadb", "redis", "rediss", "valkey", "valkeys")  # without a host on this machine

_T = TypeVar("_T")


class TransferReport(Struct, frozen=True, kw_only=True):
    """What a transfer did, and what it left at the source. `is_complete`: no backlog is left there."""

    moved: int
    already_there: int  # of those moved, how many the destination had: from a killed run, as a rule
    schedules: int = 0
    pending: int  # pushed or given back at the source since the last pass
    failed: int
    processing: int  # held by workers of the source: stop those, and transfer again
    moving: int  # on their way under another token; counted up to a bound

    @property
    def is_complete(self) -> bool:
        """Whether all there was has moved."""
        return not (self.pending or self.failed or self.processing or self.moving)


def token_for(destination_url: str) -> str:
    """A token that a killed transfer finds again: one for each destination, whatever its password is today.

    It does not depend on the source, since it is kept there. A file is told apart by its whole path and this machine's
    name, and so is a server on this machine: the same URL means another store in another folder, or elsewhere.
    """
    scheme, _, rest = destination_url.partition("://")
    if rest.startswith("/") and scheme.partition("+")[0] not in _SERVERS:
        path, mark, options = rest[1:].removeprefix("file:").partition("?")
        place = f"{gethostname()}/{Path(path).resolve()}{mark}{options}"
    else:
        place = rest.rpartition("@")[2]
        hosts = place.partition("?")[0].partition("/")[0].split(",")
        place = f"{gethostname()}/{place}" if any(map(_is_here, hosts)) else place
    return f"transfer-{crc32(f'{scheme}://{place}'.encode()):08x}"


def _is_here(host: str) -> bool:
    """Whether a host, perhaps with a port, means another machine on another machine."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return not name or ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost" or name.lower().endswith(".localhost")


def are_one_store(source: Store, destination: Store) -> bool:
    """Whether both drivers look at the same jobs, whatever their URLs say. Registers a worker for a moment."""
    probe = WorkerInfo(id=fresh_id(), host="transfer", pid=0, queues=("transfer",), concurrency=1, lease_s=60.0)
    source.register(probe)
    try:
        return any(worker.id == probe.id for worker in destination.workers())
    finally:
        source.leave(probe.id)


def transfer(
    source: Store,
    destination: Store,
    *,
    token: str,
    batch: int = 500,
    progress: Callable[[int], None] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> TransferReport:
    """Move every pending, scheduled and failed job of `source` to `destination`; see this module for what holds.

    `token` names the transfer: the same one goes on with what a killed run has left; `token_for` makes one. It must be
    another for each destination. `progress` is called after each page of up to `batch` jobs with the number moved.

    Raises OptionInvalid when both are one store, and StoreUnavailable when one of them does not answer for half a
    minute; then start the same transfer again.
    """
    check_name("token", token)
    check_count("batch", batch, minimum=1, maximum=BATCH_JOBS_MAX)
    if are_one_store(source, destination):
        raise OptionInvalid("Source and destination are the same store.", mend="Give two.")
    haul = _Haul(source, destination, token, batch, clock)
    for _ in range(PASSES_MAX):
        moved_in_pass = 0
        for moved in haul.one_pass():
            moved_in_pass += moved
            if progress is not None:
                progress(haul.moved)
        if not moved_in_pass:
            break
    haul.move_schedules()
    return haul.report()


class _Haul:
    """The work of one transfer, and its counts."""

    def __init__(self, source: Store, destination: Store, token: str, batch: int, clock: Clock) -> None:
        self.moved = 0
        self._already_there = self._schedules = 0
        self._source = source
        self._destination = destination
        self._token = token
        self._batch = batch
        self._clock = clock
        self._mark = str(uuid5(NAMESPACE_URL, f"protojobs:transfer/{token}"))  # no job has this id

    def one_pass(self) -> Iterator[int]:
        """Walk through the source once; yields the number of jobs of each page, when it has arrived."""
        cursor: str | None = None
        while True:
            # Every call here may be repeated after an unknown outcome; that is what the three verbs are made for.
            page, cursor = self._ask(partial(self._source.export_jobs, self._token, cursor=cursor, limit=self._batch))
            if page:
                self._deliver(page)
                yield len(page)
            if cursor is None:
                return

    def move_schedules(self) -> None:
        """Move every schedule. Each call may be repeated: what it asks for is a state, compared before it is made.

        Raises ScheduleUnreadable, when all others have moved, for one that only its own release can move.
        """
        cursor: str | None = None
        left = SchedulePage()
        while True:
            page = self._ask(partial(self._source.list_schedules, limit=BATCH_JOBS_MAX, cursor=cursor))
            for schedule in page.schedules:
                self._move_schedule(schedule.id)
                self._schedules += 1
            left = replace(left, unreadable=left.unreadable + page.unreadable)
            if (cursor := page.cursor) is None:
                only(left)
                return

    def _move_schedule(self, schedule_id: str) -> None:
        """One step after the other, each decided by what both stores say of it: so a killed run is gone on with."""
        freed: int | None = None  # the version at the source that this run has set free at the destination
        for _ in range(_TRIES):
            known = self._one(self._source, schedule_id)
            if known is None:  # an earlier try has moved it
                return
            there = self._one(self._destination, schedule_id)
            rests = known.next_due_at is None
            # Another version: edited since, by somebody who thought that it is still there. That is to come along.
            if there is None or there.last_job_id == self._mark or freed not in (None, known.version):
                wanted = self._freed(known, there) if rests else self._held(known, there)
                freed = known.version if rests else None
            else:
                wanted = self._up_to_date(there, known) if rests else there
            if there is None or replace(wanted, version=there.version) != there:
                self._save(self._destination, wanted, 0 if there is None else there.version)
            elif not rests:
                self._save(self._source, replace(known, next_due_at=None), known.version)
            else:
                self._ask(partial(self._source.remove_schedule, schedule_id))
                return
        raise ContractBroken(f'schedule "{schedule_id}" changed {_TRIES} times while it was to be moved.')

    def _one(self, store: Store, schedule_id: str) -> Schedule | None:
        return only(self._ask(partial(store.get_schedules, [schedule_id])))

    def _save(self, store: Store, schedule: Schedule, version: int) -> None:
        """If nobody was faster; the next look tells."""
        self._ask(partial(store.save_schedule, schedule, version=version))

    def _held(self, known: Schedule, there: Schedule | None) -> Schedule:
        """As it stands at the destination before it rests at the source: it keeps the time, and cannot fire."""
        return replace(known, is_paused=True, last_job_id=self._mark, last_due_at=_last_of(known, there))

    def _freed(self, known: Schedule, held: Schedule | None) -> Schedule:
        """One that rests at the source, with the time that was kept for it."""
        return self._up_to_date(replace(known, next_due_at=None if held is None else held.next_due_at), held)

    def _up_to_date(self, kept: Schedule, other: Schedule | None) -> Schedule:
        """`kept`, which waits for no time up to the latest that was fired in either store."""
        last, due = _last_of(kept, other), kept.next_due_at
        if due is None or (last is not None and due <= last):  # it has ended, as a rule, or has fired at the source
            due = timetable_of(kept).after(last or self._ask(self._destination.now))
        return replace(kept, last_due_at=last, next_due_at=due)

    def report(self) -> TransferReport:
        """The counts, and what is at the source now."""
        stats = self._ask(self._source.stats)
        return TransferReport(
            moved=self.moved,
            already_there=self._already_there,
            schedules=self._schedules,
            pending=stats.pending,
            failed=stats.failed,
            processing=stats.processing,
            moving=self._count_moving(),
        )

    def _deliver(self, page: Sequence[ExportedJob]) -> None:
        for part in _within_bytes(page):
            answers = self._ask(partial(self._destination.import_jobs, part))
            known = {job.id: job for job, answer in zip(part, answers, strict=False) if answer.duplicate_of is not None}
            if len(answers) != len(part) or any(a.id != job.id for a, job in zip(answers, part, strict=True)):
                raise ContractBroken(f"{type(self._destination).__name__} did not answer for every job it was given.")
            self._check_known(known)
            self._already_there += len(known)
        self._ask(partial(self._source.drop_exported, self._token, [job.id for job in page]))
        self.moved += len(page)

    def _check_known(self, known: Mapping[str, ExportedJob]) -> None:
        """Refuse to drop our copy of a job where the other is the older one, and on its way to be dropped itself.

        So it is when a transfer the other way has died between its import and its drop. Each export adds one to
        claim_seq, so of two copies that both move the higher one is the later; the other transfer drops its own.
        """
        there = self._ask(partial(self._destination.get, list(known))) if known else []
        leaving = [job.id for job in there if job.status is JobState.MOVING and job.claim_seq < known[job.id].claim_seq]
        if leaving:
            raise OptionInvalid(
                f"{len(leaving)} job(s), such as {leaving[0]}, were on their way from the destination to here.",
                mend="Finish that transfer first, then start this one again.",
            )

    def _ask(self, call: Callable[[], _T]) -> _T:
        try:
            return until_answered(call, PATIENCE_S, self._clock)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"{error.message} {self.moved:,} jobs have arrived, up to {self._batch} are on their way.",
                mend=f"Start the same transfer again (token {self._token}).",
            ) from error

    def _count_moving(self) -> int:
        number, cursor = 0, None
        for _ in range(_FOUND_PAGES_MAX):
            find = partial(self._source.find, JobFilter(states=(JobState.MOVING,)), limit=500, cursor=cursor)
            page = self._ask(find)
            number += len(page.jobs)
            if (cursor := page.cursor) is None:
                break
        return number


def _last_of(*schedules: Schedule | None) -> datetime | None:
    """The latest time that any of them has fired or passed over."""
    return max((one.last_due_at for one in schedules if one is not None and one.last_due_at is not None), default=None)


def _within_bytes(page: Sequence[ExportedJob]) -> Iterator[list[ExportedJob]]:
    """Cut a page where its texts would be more than a store likes to take at once."""
    part: list[ExportedJob] = []
    size = 0
    for job in page:
        failed_bytes = payload_bytes(job.failed.data + job.failed.exception) if job.failed else 0
        job_bytes = payload_bytes(job.data) + failed_bytes
        if part and size + job_bytes > BATCH_BYTES_MAX:
            yield part
            part, size = [], 0
        part.append(job)
        size += job_bytes
    yield part
