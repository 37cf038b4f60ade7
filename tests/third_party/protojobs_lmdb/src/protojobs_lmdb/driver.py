"""The verbs on an LMDB file. What each promises is written in protojobs.protocols."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, TypeVar

from msgspec import convert, msgpack
from msgspec.structs import asdict, replace

from protojobs import records
from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs.errors import LeaseLost, OptionInvalid
from protojobs.lifecycle import FINISHED, RETURNS_FREE, SUSPECT_RECLAIMS, TRANSITIONS, JobState, Verb
from protojobs.protocols import PORT_VERSION
from protojobs.records import CancelAnswer, ClaimedJob, Enqueued, RetryAnswer, Settled, Settlement, SettleStatus
from protojobs_lmdb.file import LAYOUT, Handle
from protojobs_lmdb.rows import Row, Step, id_in, key_of

Shown = TypeVar("Shown")

LOOK_S = 0.02  # how often `wait` looks whether there was a transaction, which takes two microseconds
SEEN_MAX = 10_000  # rows that one call looks at, whatever it finds
MICROSECOND = timedelta(microseconds=1)
SHARED = set(records.NewJob.__struct_fields__) & set(Row.__struct_fields__)
ZERO = {"attempts": 0, "claim_seq": 0, "crashes": 0, "returns": 0, "reclaims": 0}
NEW = {**ZERO, "status": JobState.PENDING, "reserved_by": "", "reserved_at": None, "processed_at": None}
LEADS_TO = {Verb.COMPLETE: JobState.COMPLETED, Verb.FAIL: JobState.FAILED, Verb.CANCEL: JobState.CANCELLED}
LEADS_TO |= dict.fromkeys((Verb.RETRY, Verb.SNOOZE, Verb.RELEASE), JobState.PENDING)


class LmdbDriver(Handle):
    """See protojobs.protocols.Store."""

    port_version = PORT_VERSION
    capabilities = records.Capabilities(server_time=False)

    def setup(self) -> None:
        with self.step(write=True, is_set_up=False) as step:
            step.txn.put(b"layout", LAYOUT)

    def teardown(self) -> None:
        with self.step(write=True, is_set_up=False) as step:  # the file stays: others may have it open
            for key in list(step.txn.cursor().iternext(values=False)):
                step.txn.delete(key)

    def now(self) -> datetime:
        with self.step() as step:
            return step.now

    def enqueue(self, jobs: Sequence[records.NewJob]) -> list[Enqueued]:
        if len(check(jobs)) and sum(len(job.data.encode()) for job in jobs) > records.BATCH_BYTES_MAX:
            raise OptionInvalid("These are too many bytes at once.", mend=f"At most {records.BATCH_BYTES_MAX}.")
        with self.step(write=True) as step:
            return [insert(step, new_row(step, job)) for job in jobs]

    def register(self, worker: records.WorkerInfo) -> None:
        with self.step(write=True) as step:
            put_worker(step, asdict(worker) | {"started_at": step.now})

    def heartbeat(self, worker: str, progress: Mapping[records.Fence, float]) -> records.Heartbeat:
        with self.step(write=True) as step:
            put_worker(step, asdict(standing(step, worker)))
            for claim, share in progress.items():
                if row := current(step, claim):
                    step.write(row, replace(row, progress=share))
            marked = [row for row in step.rows("held", worker) if row.is_cancel_requested]
            cancels = tuple(convert(row, records.Fence, from_attributes=True) for row in marked)
            return records.Heartbeat(cancels=cancels, others_end_in=first_end(step, worker))

    def leave(self, worker: str) -> None:
        with self.step(write=True) as step:
            step.txn.delete(key_of("worker", worker))

    def reclaim(self, limit: int) -> records.Reclaimed:
        with self.step(write=True) as step:
            workers = {worker.id: worker for worker in all_workers(step)}
            lapsed = {name: worker for name, worker in workers.items() if worker.lease_ends_at <= step.now}
            for name in lapsed:
                step.txn.delete(key_of("worker", name))
            # Those of the lapsed first: only of them is it known how their worker ran them.
            gone = sorted(set(step.groups("held")) - (workers.keys() - lapsed), key=lambda name: name not in lapsed)
            rows = list(islice(chain.from_iterable(step.rows("held", name) for name in gone), limit + 1))
            jobs = tuple(take_back(step, row, lapsed.get(row.reserved_by)) for row in rows[:limit])
            has_more, ends_in = len(rows) > limit, first_end(step)
            return records.Reclaimed(jobs=jobs, workers=tuple(lapsed), has_more=has_more, others_end_in=ends_in)

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        with self.step(write=True) as step:
            return lend(step, worker, queues, slots, limit)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return list(self.settle_and_claim("", settlements, (), slots=0, limit=0).settled)

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> records.ClaimReply:
        if any(said.verb not in LEADS_TO for said in check(settlements)):
            raise OptionInvalid("One of the verbs does not settle a claim.", mend="Use one of the six that do.")
        with self.step(write=True) as step:
            settled = tuple(settle_one(step, said) for said in settlements)
            try:
                lent = lend(step, worker, queues, slots, limit) if limit else ()
            except LeaseLost:
                return records.ClaimReply(settled=settled, lease_lost=True)
            return records.ClaimReply(settled=settled, claimed=tuple(lent))

    def held(self, worker: str) -> list[ClaimedJob]:
        with self.step() as step:
            return [convert(row, ClaimedJob, from_attributes=True) for row in step.rows("held", worker)]

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        ends_at, due_at, seen = SYSTEM_CLOCK.monotonic() + timeout, 0.0, -1
        while True:  # LMDB has no bell, but it numbers its transactions: without a new one nothing has changed
            with self.step() as step:
                if step.txn.id() != seen:
                    seen, due_at = step.txn.id(), SYSTEM_CLOCK.monotonic() + due_in(step, queues)
            now = SYSTEM_CLOCK.monotonic()
            if now >= min(due_at, ends_at):
                return now >= due_at
            SYSTEM_CLOCK.sleep(min(LOOK_S, ends_at - now, due_at - now))

    def get(self, ids: Sequence[str]) -> list[records.JobRecord]:
        with self.step() as step:
            return [record(row) for job_id in dict.fromkeys(check(ids)) if (row := step.row(job_id))]

    def find(self, which: records.JobFilter, *, limit: int = 50, cursor: str | None = None) -> records.JobPage:
        with self.step() as step:
            rows, cursor = page(step, "job", cursor, limit, lambda row: matches(row, which))
            return records.JobPage(jobs=tuple(map(record, rows)), cursor=cursor)

    def failed(self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None) -> records.FailedPage:
        with self.step() as step:
            rows, cursor = page(step, "failed", cursor, limit, lambda row: queue in (None, row.queue))
            return records.FailedPage(jobs=tuple(row.failed for row in rows if row.failed), cursor=cursor)

    def get_failed(self, ids: Sequence[str]) -> list[records.FailedJob]:
        with self.step() as step:
            return [row.failed for row in failures(step, ids) if row and row.failed]

    def stats(self, queue: str | None = None) -> records.Stats:
        with self.step() as step:
            return count(step, known_queues(step) if queue is None else [queue])

    def queues(self) -> list[records.QueueInfo]:
        with self.step() as step:
            return [
                records.QueueInfo(name=name, is_paused=is_paused(step, name), stats=count(step, [name]))
                for name in known_queues(step)[:SEEN_MAX]
            ]

    def workers(self) -> list[records.WorkerRecord]:
        with self.step() as step:
            rows = sorted(all_workers(step), key=lambda worker: (worker.started_at, worker.id))[:SEEN_MAX]
            return [replace(row, processing=sum(1 for _ in step.keys("held", row.id))) for row in rows]

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        with self.step(write=True) as step:
            return [cancel_one(step, job_id, reason) for job_id in check(ids)]

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        with self.step(write=True) as step:
            return [retry_one(step, failed_id) for failed_id in check(ids)]

    def forget_failed(self, ids: Sequence[str]) -> int:
        with self.step(write=True) as step:
            rows = [row for row in failures(step, ids) if row.status is JobState.FAILED]
            return remove(step, Verb.FORGET, rows, len(rows))["total"]

    def clear(self, queue: str, *, limit: int = 1_000) -> records.Cleared:
        with self.step(write=True) as step:
            states = [state for state in JobState if (state, Verb.CLEAR) in TRANSITIONS]
            rows = chain.from_iterable(step.rows("in", queue, state) for state in states)
            return convert(remove(step, Verb.CLEAR, rows, limit), records.Cleared)

    def pause(self, queue: str) -> bool:
        with self.step(write=True) as step:
            return step.txn.put(key_of("paused", queue), b"", overwrite=False)

    def resume(self, queue: str) -> bool:
        with self.step(write=True) as step:
            return step.txn.delete(key_of("paused", queue))

    def prune(
        self,
        *,
        completed_older_than: float | None = None,
        failed_older_than: float | None = None,
        arrived_before: float = 0.0,
        limit: int = 1_000,
    ) -> records.Pruned:
        ages = dict.fromkeys(FINISHED, completed_older_than) | {JobState.FAILED: failed_older_than}
        with self.step(write=True) as step:
            ends = {state: step.now - timedelta(seconds=age) for state, age in ages.items() if age is not None}
            old = chain.from_iterable(step.rows("ended", state, before=end) for state, end in ends.items())
            arrived_by = step.now - timedelta(seconds=arrived_before)
            rows = (row for row in old if row.created_at < arrived_by)
            return convert(remove(step, Verb.PRUNE, rows, limit), records.Pruned)

    def export_jobs(
        self, token: str, *, cursor: str | None = None, limit: int = 500
    ) -> tuple[list[records.ExportedJob], str | None]:
        with self.step(write=True) as step:
            start = key_of("moving", token, int(cursor or 0) + 1)
            rows = list(islice(step.rows("moving", token, start=start), limit + 1))
            waiting = chain(step.rows("due"), step.rows("ended", JobState.FAILED))
            more = list(islice(waiting, max(0, limit - len(rows)) + 1))
            rows += [begin_to_move(step, row, token) for row in more[: max(0, limit - len(rows))]]
            is_last = len(rows) <= limit and len(more) <= limit - len(rows) ...
