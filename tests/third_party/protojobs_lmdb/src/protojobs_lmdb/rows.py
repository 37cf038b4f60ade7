"""A job's row, the index keys that follow from it, and the step in which both change together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import lmdb
from msgspec import convert, msgpack
from msgspec.structs import replace

from protojobs.errors import ContractBroken, LeaseLost
from protojobs.lifecycle import TRANSITIONS, JobState, Verb
from protojobs.records import ExportedJob, Fence, JobRecord, Settlement, WorkerRecord

__all__ = ["Row", "Step", "key_of", "micros", "record"]


class Row(ExportedJob, frozen=True, kw_only=True):
    """A job as it is stored, with its row of failed_jobs. While it moves: its place in the export, and its old state."""

    export: str = ""
    moved_from: JobState = JobState.PENDING


_rows, _workers = msgpack.Decoder(Row), msgpack.Decoder(WorkerRecord)


def record(row: Row) -> JobRecord:
    """The row as people see it."""
    return convert(row, JobRecord, from_attributes=True)


def micros(moment: datetime) -> int:
    """Microseconds since 1970, not less than 0."""
    return max(0, (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


def key_of(*parts: str | int | datetime) -> bytes:
    """A key that sorts part by part: names hold no control character, so NUL ends each; numbers get equal length."""
    texts = [f"{micros(part):016x}" if isinstance(part, datetime) else part for part in parts]
    return b"".join((f"{text:03}" if isinstance(text, int) else text).encode() + b"\0" for text in texts)


def _index(row: Row) -> set[bytes]:
    """Every place where the row is looked for: a function of the row, so that no index can ever disagree."""
    keys = {key_of("in", row.queue, row.status, row.id)}
    if row.status is JobState.PENDING:
        keys.add(key_of("due", row.queue, 100 - row.priority, row.available_at, row.id))
    elif row.status is JobState.PROCESSING:
        keys.add(key_of("held", row.reserved_by, row.id))
    elif row.status is JobState.MOVING:
        keys.add(key_of("moving", *row.export.split("/"), row.id))
    elif row.processed_at is not None:
        keys.add(key_of("ended", row.status, row.processed_at, row.id))
    if row.failed is not None:
        keys |= {key_of("failed", row.failed.failed_at, row.failed.id), key_of("failure", row.failed.id)}
    return keys


class Step:
    """One transaction and its moment: reads, and the only two ways in which a job changes (`write`, `move`)."""

    def __init__(self, txn: lmdb.Transaction[bytes], now: datetime) -> None:
        self.txn, self.now = txn, now

    def row(self, job_id: str) -> Row | None:
        """The job, if it is there."""
        found = self.txn.get(key_of("job", job_id))
        return None if found is None else _rows.decode(found)

    def rows(self, start: bytes, end: bytes | None = None) -> Iterator[Row]:
        """The jobs of an index, in its order, from the prefix `start` on; up to the key `end`."""
        return (_rows.decode(self.txn.get(key_of("job", job_id.decode()), b"")) for _, job_id in self.scan(start, end))

    def scan(self, start: bytes, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values below the prefix `start`, or from the key `start` up to (without) the key `end`."""
        with self.txn.cursor() as cursor:
            is_there = cursor.set_range(start)
            while is_there and (key := cursor.key()) < (end or start + b"\xff"):
                yield key, cursor.value()
                is_there = cursor.next()

    def scan_back(self, prefix: bytes, before: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values below the prefix from the last on, or from the last one before the key `before`."""
        with self.txn.cursor() as cursor:
            is_there = cursor.prev() if cursor.set_range(before or prefix + b"\xff") else cursor.last()
            while is_there and (key := cursor.key()).startswith(prefix):
                yield key, cursor.value()
                is_there = cursor.prev()

    def write(self, old: Row | None, new: Row | None) -> None:
        """Store `new` in the place of `old`, with its index keys and the counts; None is no row."""
        was, will_be = (_index(old) if old else set()), (_index(new) if new else set())
        job_id = new.id if new else old.id if old else ""
        for key in was - will_be:
            self.txn.delete(key)
        for key in will_be - was:
            self.txn.put(key, job_id.encode())
        for row, step in ((old, -1), (new, 1)):
            if row is not None and (old is None or new is None or old.status is not new.status):
                self.add(key_of("count", row.queue, row.status), step)
        if new is None:
            self.txn.delete(key_of("job", job_id))
        else:
            self.txn.put(key_of("job", job_id), msgpack.encode(new))

    def move(self, row: Row, verb: Verb, to: JobState | None, **changes: object) -> Row:
        """Bring a job to its next state (None: delete it), if the table of lifecycle.py has that move."""
        if to not in TRANSITIONS.get((row.status, verb), ()):
            raise ContractBroken(f"job {row.id}: {verb} cannot lead from {row.status} to {to}.")
        new = replace(row, **({"reserved_by": ""} | changes), status=to or row.status)
        self.write(row, new if to else None)
        return new

    def add(self, key: bytes, step: int) -> int:
        """Count; a count of zero takes no place."""
        count = int(self.txn.get(key, b"0")) + step
        _ = self.txn.put(key, b"%d" % count) if count else self.txn.delete(key)
        return count

    def current(self, claim: Settlement | Fence) -> Row | None:
        """The job, if this is its current claim: id, claim_seq and holder, all three."""
        row = self.row(claim.id)
        if row is None or (row.claim_seq, row.reserved_by) != (claim.claim_seq, claim.reserved_by):
            return None
        return row if row.reserved_by else None

    def put_worker(self, worker: WorkerRecord) -> None:
        """Store a worker's row, its lease counted from now."""
        ends_at = self.now + timedelta(seconds=worker.lease_s)
        seen = replace(worker, heartbeat_at=self.now, lease_ends_at=ends_at)
        self.txn.put(key_of("worker", worker.id), msgpack.encode(seen))

    def workers(self) -> list[WorkerRecord]:
        """Every worker whose row stands."""
        return [_workers.decode(value) for _, value in self.scan(key_of("worker"))]

    def standing(self, worker: str) -> WorkerRecord:
        """The worker's row. Raises LeaseLost when there is none."""
        found = self.txn.get(key_of("worker", worker))
        if found is None:
            raise LeaseLost(f"worker {worker}: its lease no longer stands.", mend="Register under a new id.")
        return _workers.decode(found)
