"""The archive of completed jobs, for a database that has none: it is empty and takes no job.

PostgreSQL's is in `postgresql/archive.py`. Whatever the driver's options say, an archive is read and pruned;
`archive=daily` says that completed jobs are put there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct
from sqlalchemy import Connection, FromClause

from protojobs.port.records import Fence
from protojobs_sqlalchemy.tables.tables import Tables

__all__ = ["Archive", "TurnedOver"]


class TurnedOver(Struct, frozen=True):
    """What became of the partitions."""

    dropped: int = 0  # jobs that went with theirs
    denied: str = ""  # the server's words, where the role may not make or drop them


class Archive:
    """Where completed jobs lie besides `jobs`."""

    takes_completed = False  # whether jobs are put there when they complete
    tables: Sequence[FromClause] = ()

    def __init__(self, tables: Tables) -> None:
        self.all_jobs: FromClause = tables.jobs  # and the archive's too

    def has_jobs(self, conn: Connection) -> bool:
        """Whether anything may lie there: asked once, since the first job comes after a new start."""
        return False

    def holds(self, conn: Connection, ids: Iterable[str]) -> set[str]:
        """Those of the ids whose jobs lie there."""
        return set()

    def without_known(self, conn: Connection, stored: set[str]) -> set[str]:
        """Of the ids that this transaction has just inserted, the new ones; the others are taken out again."""
        return stored

    def complete(self, conn: Connection, claim: Fence, now: datetime) -> bool:
        """Complete a job into the archive and count it; False where the claim is not its current one."""
        raise NotImplementedError("this archive takes no jobs")

    def move(self, conn: Connection, completed: Mapping[str, str], now: datetime, shard: int) -> None:
        """Move completed jobs, which this transaction holds, there and count them; `completed`: id -> queue."""
        raise NotImplementedError("this archive takes no jobs")

    def clear(self, conn: Connection, queue: str, room: int) -> tuple[int, bool]:
        """Delete up to `room` jobs of a queue: how many went, and whether there are more."""
        return 0, False

    def turn_over(self, conn: Connection, now: datetime, *, ended_by: datetime | None) -> TurnedOver:
        """Drop the partitions of days that ended by `ended_by`; make those of the next days, if it takes jobs.

        Passed over, for the next call, is what another process does at this moment, and what others hold locked.
        """
        return TurnedOver()

    def prune(self, conn: Connection, age: float, now: datetime, room: int, *, goes_by_days: bool) -> tuple[int, bool]:
        """Delete one by one what goes with no partition: up to `room` jobs older than so many seconds. As `clear`."""
        return 0, False
