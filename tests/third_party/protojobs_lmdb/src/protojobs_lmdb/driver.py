"""The verbs on an LMDB file. What each promises is written in protojobs.port.driver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice

from msgspec import convert, msgpack
from msgspec.structs import replace

from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs.errors import LeaseLost, OptionInvalid, shown
from protojobs.port import records, rules
from protojobs.port.lifecycle import FINISHED, JobState, Verb
from protojobs.port.records import COUNTED_MAX, CancelAnswer, ClaimedJob, Enqueued, RetryAnswer, Settled, Settlement
from protojobs_lmdb.file import LAYOUT
from protojobs_lmdb.rows import MICROSECOND, Row, Step, id_in, key_of
from protojobs_lmdb.schedules import Schedules

LOOK_S = 0.02  # how often `wait` looks whether there was a transaction, which takes a few microseconds
SEEN_MAX = 10_000  # rows that one call looks at, whatever it finds


class LmdbDriver(Schedules):
    port_version = 1
    capabilities = records.Capabilities(server_time=False)
    url_names_file = True

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
        rules.check_jobs(jobs)
        with self.step(write=True) as step:
            return insert(step, [rules.new_row(job, step.now) for job in jobs])

    def register(self, worker: records.WorkerInfo) -> None:
        with self.step(write=True) as step:
            put_worker(step, worker)

    def heartbeat(self, worker: str, progress: Mapping[records.Fence, float]) -> records.Heartbeat:
        with self.step(write=True) as step:
            put_worker(step, standing(step, worker))
            for claim, share in progress.items():
                if (row := step.row(claim.id)) and rules.is_current(row, claim):
                    step.write(row, replace(row, progress=share))
            marked = [row for row in step.rows("held", worker) if row.cancel_requested_at]
            cancels = tuple(convert(row, records.Fence, from_attributes=True) for row in marked)
            ends_in = rules.first_end(workers(step).values(), step.now, apart_from=worker)
            return records.Heartbeat(cancels=cancels, others_end_in=ends_in, at=step.now)

    def leave(self, worker: str) -> None:
        with self.step(write=True) as step:
            step.txn.delete(key_of("worker", worker))

    def reclaim(self, limit: int, *, until: datetime | None = None) -> records.Reclaimed:
        with self.step(write=True) as step:
            if until is not None and step.now > until:
                return records.Reclaimed(has_more=True)
            standing = workers(step)
            lapsed = {name: worker for name, worker in standing.items() if worker.lease_ends_at <= step.now}
            for name in lapsed:
                step.txn.delete(key_of("worker", name))
            # Those of the lapsed first: only of them is it known how their worker ran them.
            names = [*lapsed, *(name for name in step.groups("held") if name not in standing)]
            rows = list(islice(chain.from_iterable(step.rows("held", name) for name in names), limit + 1))
            lost = [step.put(row, rules.reclaim(row, lapsed.get(row.reserved_by), step.now)) for row in rows[:limit]]
            has_more, ends_in = len(rows) > limit, rules.first_end(workers(step).values(), step.now)
            return records.Reclaimed(jobs=tuple(lost), workers=tuple(lapsed), has_more=has_more, others_end_in=ends_in)

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        with self.step(write=True) as step:
            return claim_due(step, worker, queues, slots, limit)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return list(self.settle_and_claim("", settlements, (), slots=0, limit=0).settled)

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> records.ClaimReply:
        rules.check_settlements(settlements)
        with self.step(write=True) as step:
            settled = tuple(settle(step, settlement) for settlement in settlements)
            try:
                claims = claim_due(step, worker, queues, slots, limit) if limit else []
            except LeaseLost:
                return records.ClaimReply(settled=settled, lease_lost=True)
            return records.ClaimReply(settled=settled, claimed=tuple(claims))

    def held(self, worker: str) -> list[ClaimedJob]:
        with self.step() as step:
            return [rules.as_claimed(row) for row in step.rows("held", worker)]

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        while True:  # LMDB has no bell; to look is a few reads of shared memory
            with self.step() as step:
                is_due = next(ready(step, queues), None) is not None
            left = ends_at - SYSTEM_CLOCK.monotonic()
            if is_due or left <= 0:
                return is_due
            SYSTEM_CLOCK.sleep(min(LOOK_S, left))

    def get(self, ids: Sequence[str]) -> list[records.JobRecord]:
        with self.step() as step:
            rows = filter(None, map(step.row, dict.fromkeys(rules.check_batch(ids))))
            return [convert(row, records.JobRecord, from_attributes=True) for row in rows]

    def find(
        self, which: records.JobFilter, *, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> records.JobPage:
        rows, cursor = self._page("job", cursor, limit, lambda row: rules.is_wanted(row, which))
        jobs = (convert(row, records.JobRecord, from_attributes=True) for row in rows)
        return records.JobPage(jobs=tuple(rules.shortened(job, chars_max) for job in jobs), cursor=cursor)

    def failed(
        self, *, queue: str | None = None, limit: int = 50, cursor: str | None = None, chars_max: int | None = None
    ) -> records.FailedPage:
        rows, cursor = self._page("failed", cursor, limit, lambda row: queue in (None, row.queue))
        jobs = (rules.shortened(row.failed, chars_max) for row in rows if row.failed)
        return records.FailedPage(jobs=tuple(jobs), cursor=cursor)

    def _page(
        self, index: str, cursor: str | None, limit: int, is_wanted: Callable[[Row], bool]
    ) -> tuple[list[Row], str | None]:
        page: list[Row] = []
        if cursor is not None and not cursor.startswith(f"{index}\0"):
            raise OptionInvalid(f"{shown(cursor)} is no cursor of this list.", mend="Pass one that the list gave.")
        with self.step() as step:
            for seen, key in enumerate(step.keys_back(index, cursor)):
                if len(page) >= limit or seen >= SEEN_MAX:
                    return page, cursor
                row, cursor = step.row(id_in(key)), key.decode()
                page += [row] if row and is_wanted(row) else []
        return page, None

    def get_failed(self, ids: Sequence[str]) -> list[records.FailedJob]:
        with self.step() as step:
            jobs = [step.row(one) or next(failures(step, [one]), None) for one in rules.check_batch(ids)]
            return list({row.id: row.failed for row in jobs if row and row.failed}.values())

    def stats(self, queue: str | None = None, *, counted_max: int = COUNTED_MAX) -> records.Stats:
        with self.step() as step:
            return count(step, step.groups("count") if queue is None else [queue], counted_max)

    def queues(
        self, *, after: str = "", limit: int = SEEN_MAX, counted_max: int = COUNTED_MAX
    ) -> list[records.QueueInfo]:
        with self.step() as step:
            paused = set(step.groups("paused"))
            names = sorted(name for name in paused.union(step.groups("count")) if name > after)
            return [info(step, name, name in paused, counted_max) for name in names[:limit]]

    def workers(self) -> list[records.WorkerRecord]:
        with self.step() as step:
            rows = islice(workers(step).values(), SEEN_MAX)
            return [replace(row, processing=sum(1 for _ in step.keys("held", row.id))) for row in rows]

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        with self.step(write=True) as step:
            rows = map(step.row, rules.check_batch(ids))
            return [step.put(row, rules.cancel(row, reason, step.now)) for row in rows]

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        with self.step(write=True) as step:
            return [step.put(row, rules.retry_failed(row, step.now)) for row in failures(step, rules.check_batch(ids))]

    def forget_failed(self, ids: Sequence[str]) -> int:
        with self.step(write=True) as step:
            return remove(step, Verb.FORGET, filter(None, failures(step, dict.fromkeys(rules.check_batch(ids)))))[
                "total"
            ]

    def clear(self, queue: str, *, limit: int = 1_000) -> records.Cleared:
        with self.step(write=True) as step:
            rows = chain.from_iterable(step.rows("in", queue, state) for state in JobState)
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
        limit: int = 1_000,
    ) -> records.Pruned:
        ages = dict.fromkeys(FINISHED, completed_older_than) | {JobState.FAILED: failed_older_than}
        with self.step(write=True) as step:
            ends = {state: step.now - timedelta(seconds=age) for state, age in ages.items() if age is not None}
            old = chain.from_iterable(step.rows("ended", state, before=end) for state, end in ends.items())
            return convert(remove(step, Verb.PRUNE, old, limit), records.Pruned)

    def export_jobs(
        self, token: str, *, cursor: str | None = None, limit: int = 500
    ) -> tuple[list[records.ExportedJob], str | None]:
        with self.step(write=True) as step:
            start = key_of("moving", token, int(cursor or 0) + 1)
            rows = list(islice(step.rows("moving", token, start=start), limit + 1))
            others = chain(step.rows("due"), step.rows("ended", JobState.FAILED))
            rows += islice(others, limit + 1 - len(rows))  # one more than a page: is there another?
            page = [row if row.token else begin(step, row, token) for row in rows[:limit]]
            jobs = [
                convert(replace(row, status=row.moved_from), records.ExportedJob, from_attributes=True) for row in page
            ]
            return jobs, str(page[-1].number) if len(rows) > limit else None

    def import_jobs(self, jobs: Sequence[records.ExportedJob]) -> list[Enqueued]:
        with self.step(write=True) as step:
            return insert(step, rules.check_batch(jobs))

    def drop_exported(self, token: str, ids: Sequence[str]) -> int:
        with self.step(write=True) as step:
            rows = filter(None, map(step.row, dict.fromkeys(rules.check_batch(ids))))
            return remove(step, Verb.DROP_EXPORTED, (row for row in rows if row.token == token))["total"]


def insert(step: Step, jobs: Iterable[records.ExportedJob]) -> list[Enqueued]:
    answers: list[Enqueued] = []
    for job in jobs:
        is_known = step.row(job.id) is not None
        answers.append(Enqueued(id=job.id, duplicate_of=job.id if is_known else None))
        if not is_known:
            step.write(None, convert(job, Row, from_attributes=True))
    return answers


def workers(step: Step) -> dict[str, records.WorkerRecord]:
    rows = [standing(step, id_in(key)) for key in step.keys("worker")]
    return {row.id: row for row in sorted(rows, key=lambda row: (row.started_at, row.id))}


def standing(step: Step, worker: str) -> records.WorkerRecord:
    if (packed := step.txn.get(key_of("worker", worker))) is None:
        raise LeaseLost(f"worker {worker}: its lease no longer stands.", mend="Register under a new id.")
    return msgpack.decode(packed, type=records.WorkerRecord)


def put_worker(step: Step, worker: records.WorkerInfo) -> None:
    step.txn.put(key_of("worker", worker.id), msgpack.encode(rules.renewed(worker, step.now)))


def ready(step: Step, queues: Iterable[str]) -> Iterator[bytes]:
    """The keys of the due jobs: queues in the caller's order, then the highest priority, then (available_at, id)."""
    paused = set(step.groups("paused"))
    for queue in dict.fromkeys(queues):
        for lane in step.groups("due", queue) if queue not in paused else ():
            yield from step.keys("due", queue, lane, before=step.now + MICROSECOND)


def claim_due(step: Step, worker: str, queues: Iterable[str], slots: int, limit: int) -> list[ClaimedJob]:
    standing(step, worker)
    rows = rules.lendable(step.rows_at(ready(step, queues)), slots=slots, limit=limit)
    return [step.put(row, rules.claim(row, worker, step.now)) for row in rows]


def settle(step: Step, settlement: Settlement) -> Settled:
    row = step.row(settlement.id)
    return step.put(row, rules.settle(row, settlement, step.now, failed_id=fresh_id()))


def failures(step: Step, failed_ids: Iterable[str]) -> Iterator[Row | None]:
    """The jobs that have these rows of failed_jobs."""
    return (next(step.rows("failure", failed_id), None) for failed_id in failed_ids)


def info(step: Step, queue: str, is_paused: bool, counted_max: int) -> records.QueueInfo:
    firsts = (next(step.rows("due", queue, lane), None) for lane in step.groups("due", queue))
    waited_s = max(((step.now - row.available_at).total_seconds() for row in firsts if row), default=-1.0)
    return records.QueueInfo(
        name=queue,
        is_paused=is_paused,
        stats=count(step, [queue], counted_max),
        oldest_ready_s=waited_s if waited_s >= 0 else None,
    )


def count(step: Step, queues: Iterable[str], counted_max: int) -> records.Stats:
    counts = Counter[str]()
    for queue in queues:
        counts.update({state.value: step.count(0, "count", queue, state) for state in JobState})
        lanes = [step.keys("due", queue, lane, before=step.now + MICROSECOND) for lane in step.groups("due", queue)]
        counts["due"] += sum(1 for _ in islice(chain.from_iterable(lanes), counted_max))
    scheduled, is_estimate = counts["pending"] - counts["due"], counts["due"] >= counted_max
    return convert({**counts, "scheduled": scheduled, "is_estimate": is_estimate}, records.Stats)


def begin(step: Step, row: Row, token: str) -> Row:
    moving = replace(rules.export(row), token=token, number=step.count(1, "exports"), moved_from=row.status)
    step.write(row, moving)
    return moving


def remove(step: Step, verb: Verb, rows: Iterable[Row], limit: int = SEEN_MAX) -> dict[str, int]:
    """Delete those that the verb may delete: how many of each state, in all, and whether there are more."""
    removed = list(islice((row for row in rows if rules.is_removable(row, verb)), limit + 1))
    for row in removed[:limit]:
        step.write(row, None)
    counts = Counter(row.status.value for row in removed[:limit])
    return {**counts, "total": counts.total(), "has_more": len(removed) > limit}
