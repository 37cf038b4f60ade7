"""A job's row, the keys by which it is looked for, and the step in which both change together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import lmdb
from msgspec import msgpack

from protojobs.port.lifecycle import JobState
from protojobs.port.records import ExportedJob

T = TypeVar("T")
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


class Row(ExportedJob, frozen=True, kw_only=True):
    """A job as it is stored, its row of failed_jobs included; the rest is for while it moves to another store."""

    token: str = ""
    number: int = 0
    moved_from: JobState | None = None

    def keys(self) -> set[bytes]:
        """Every key by which it is looked for: a function of the row alone, so that no index can disagree with it."""
        places: dict[JobState, tuple[str | int | datetime, ...]] = {
            JobState.PENDING: ("due", self.queue, 100 - self.priority, self.available_at, self.id),
            JobState.PROCESSING: ("held", self.reserved_by, self.id),
            JobState.MOVING: ("moving", self.token, self.number, self.id),
        }
        ended = ("ended", self.status, self.processed_at or EPOCH, self.id)
        keys = {key_of("in", self.queue, self.status, self.id), key_of(*places.get(self.status, ended))}
        if (row := self.failed) is not None:
            keys |= {key_of("failed", row.failed_at, row.id, self.id), key_of("failure", row.id, self.id)}
        return keys


_rows = msgpack.Decoder(Row)


def micros(moment: datetime) -> int:
    """Microseconds since 1970, where time begins."""
    return max(0, (moment - EPOCH) // MICROSECOND)


def key_of(*parts: str | int | datetime) -> bytes:
    """A key that sorts part by part. NUL ends each, which no name holds; numbers are written equally long.

    Somebody may look for half of a surrogate pair, which is no text: there is no such key, and it is no error.
    """
    numbers = [micros(part) if isinstance(part, datetime) else part for part in parts]
    return "".join(f"{part:016x}\0" if isinstance(part, int) else f"{part}\0" for part in numbers).encode(
        errors="surrogatepass"
    )


class Step:
    """A transaction and its moment. Jobs change by `write` alone."""

    def __init__(self, txn: lmdb.Transaction[bytes], now: datetime) -> None:
        self.txn, self.now = txn, now

    def keys(self, *parts: str, start: bytes = b"", before: datetime | None = None) -> Iterator[bytes]:
        """The keys that begin with the parts, from `start` on; if a time comes next, only those `before` it."""
        prefix = key_of(*parts)
        end = key_of(*parts, before) if before else prefix + b"\xff"
        with self.txn.cursor() as cursor:
            is_there = cursor.set_range(start or prefix)
            while is_there and cursor.key() < end:
                yield cursor.key()
                is_there = cursor.next()

    def keys_back(self, index: str, before: str | None) -> Iterator[bytes]:
        """The keys of an index from its end backwards, or from the last one `before` that key."""
        with self.txn.cursor() as cursor:
            is_there = cursor.set_range(before.encode() if before else key_of(index) + b"\xff")
            is_there = cursor.prev() if is_there else cursor.last()
            while is_there and cursor.key().startswith(key_of(index)):
                yield cursor.key()
                is_there = cursor.prev()

    def groups(self, *parts: str) -> Iterator[str]:
        """What follows the parts in the keys, each once: queues, the priorities of one, holders."""
        prefix = start = key_of(*parts)
        while key := next(self.keys(*parts, start=start), None):
            group = key.removeprefix(prefix).split(b"\0")[0]
            yield group.decode()
            start = prefix + group + b"\1"

    def row(self, job_id: str) -> Row | None:
        packed = self.txn.get(key_of("job", job_id))
        return None if packed is None else _rows.decode(packed)

    def rows(self, *parts: str, start: bytes = b"", before: datetime | None = None) -> Iterator[Row]:
        """The jobs of these keys, in their order."""
        return self.rows_at(self.keys(*parts, start=start, before=before))

    def rows_at(self, keys: Iterable[bytes]) -> Iterator[Row]:
        """The jobs whose ids are the last parts of the keys."""
        return filter(None, (self.row(id_in(key)) for key in keys))

    def write(self, old: Row | None, new: Row | None) -> None:
        """Put `new` in the place of `old`, its keys and counts with it; None is no row."""
        was, will_be = (old.keys() if old else set[bytes]()), (new.keys() if new else set[bytes]())
        for key in was - will_be:
            self.txn.delete(key)
        for key in will_be - was:
            self.txn.put(key, b"")
        if old is not None:
            self.count(-1, "count", old.queue, old.status)
            self.txn.delete(key_of("job", old.id))
        if new is not None:
            self.count(1, "count", new.queue, new.status)
            self.txn.put(key_of("job", new.id), msgpack.encode(new))

    def put(self, old: Row | None, outcome: tuple[Row | None, T]) -> T:
        """Write what a rule made of a row, and pass on the rule's answer."""
        new, answer = outcome
        if new is not old:
            self.write(old, new)
        return answer

    def count(self, by: int, *parts: str) -> int:
        """Add to a counter, and read it; one that comes to zero takes no place."""
        number = int(self.txn.get(key_of(*parts), b"0")) + by
        if by:
            self.txn.put(key_of(*parts), b"%d" % number) if number else self.txn.delete(key_of(*parts))
        return number


def id_in(key: bytes) -> str:
    """The last part of a key."""
    return key.split(b"\0")[-2].decode()
