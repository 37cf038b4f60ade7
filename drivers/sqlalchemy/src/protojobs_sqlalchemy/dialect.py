"""What differs from database to database. A module that is not about one database asks the dialect, never its name.

`Dialect` has the answers that most databases share; `sqlite/`, `postgresql/` and `mariadb/` say what is different
there. Which of them a store has is decided once, in `driver.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Protocol, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Insert, Table, func
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from protojobs.port.diagnosis import Finding
from protojobs.port.lifecycle import JobState
from protojobs.port.records import ClaimReply, NewJob, Pruned, Settlement
from protojobs.port.schedules import Schedule
from protojobs_sqlalchemy.archive import Archive
from protojobs_sqlalchemy.tables.conditions import Conditions
from protojobs_sqlalchemy.tables.tables import Tables
from protojobs_sqlalchemy.tables.types import is_job_id

__all__ = [
    "Age",
    "Change",
    "Dialect",
    "FailedAlike",
    "LiveLane",
    "Look",
    "Mode",
    "Run",
    "Stored",
    "TurnReply",
    "TurnRequest",
    "Use",
]


class Mode(Enum):
    """How one atomic step runs."""

    SINGLE = "single"  # it is one statement, atomic by itself
    READ = "read"
    WORK = "work"  # claims, settlements, leases: a power cut may undo the last of them, which only repeats work
    STORE = "store"  # what nobody would send again: a power cut must not undo it


class Use(Enum):
    """Whose connections a step takes. Whoever holds all of one use makes nobody of another wait."""

    CALL = "call"  # what applications and jobs ask for: pushes, questions, administration
    WORK = "work"  # what the threads of a worker do: claims, results, reclaims, maintenance, schedules
    BEAT = "beat"  # heartbeats


class TurnRequest(Struct, frozen=True, kw_only=True):
    """One turn of a worker: what it settles, and what it wants next."""

    worker: str
    settlements: Sequence[Settlement] = ()
    queues: Sequence[str] = ()
    slots: int = 0
    limit: int = 0


class TurnReply(ClaimReply, frozen=True, kw_only=True):
    """The reply to a turn that has lent rows which no driver wrote: `unreadable` are the settlements that fail them."""

    unreadable: tuple[Settlement, ...]


class Stored(Struct, frozen=True):
    """What `enqueue` did."""

    ids: set[str]  # of the jobs that it stored; the others were there
    told: Collection[str] = ()  # queues whose workers in other processes heard of it by its commit


class FailedAlike(Struct, frozen=True):
    """Failed jobs of one fingerprint."""

    fingerprint: str
    first_at: datetime
    last_id: str  # of failed_jobs
    number: int  # counted up to one more than the bound


Age: TypeAlias = tuple[Sequence[JobState], float | None]
"""States of finished jobs, and from how many seconds after their end on they are pruned (None: not these)."""

Change: TypeAlias = Callable[[ReadOnlyColumnCollection[str, ColumnElement[Any]]], Mapping[str, ColumnElement[Any]]]
"""From the row that was to be inserted, what to set in the one that is there."""

LiveLane: TypeAlias = Sequence[Any]
"""(queue, priority, when its first job is due, how many are due, how many are not yet)."""

Look: TypeAlias = Callable[[Connection], Iterator[Finding]]
"""One look of the doctor."""


class Run(Protocol):
    """Runs a step on a connection of the driver's."""

    def __call__(self, step: Callable[[Connection], object], mode: Mode) -> object:
        """Run it; see `Connections.run`."""
        ...


class Dialect(ABC):
    """One database's way. Connections come in autocommit mode; `begin` and `end` frame a step of several statements."""

    turn_mode = Mode.SINGLE  # how `turn` is run: it begins and commits by itself
    is_server = True
    has_marked_index = False  # whether jobs_marked leads to the jobs of a worker that somebody has cancelled
    busy_mend = "Other transactions hold the rows for too long; look for one that stays open."
    unavailable_mend = "Is the server running, and can it be reached from here?"

    def __init__(self, tables: Tables, time_offset: float) -> None:
        self.tables = tables
        self.names = tables.names
        self.time_offset = time_offset  # seconds added to the clock of the store
        self.conditions = Conditions(tables)
        self.archive: Archive = Archive(tables)

    # Connections and steps

    @abstractmethod
    def prepare(self, engine: Engine) -> None:
        """Fit out the connections of our engine for steps. Never called for an application's engine."""

    def prepare_sessions(self, engine: Engine) -> None:
        """Fit out those of our engine for the application's sessions: as plain as an engine of its own would be."""

    def attach(self, run: Run) -> None:
        """Learn how to run a step outside of any verb."""

    @abstractmethod
    def begin(self, conn: Connection, mode: Mode) -> None:
        """Open the step's transaction."""

    @abstractmethod
    def end(self, conn: Connection, mode: Mode) -> None:
        """Commit it."""

    def undo(self, conn: Connection) -> None:
        """Roll back what the step has done so far."""
        if (raw := conn.connection.dbapi_connection) is not None:
            raw.rollback()

    def restore(self, conn: Connection) -> None:
        """After a rollback: give the connection back the settings of the application's that `begin` changed."""

    @abstractmethod
    def now(self, conn: Connection) -> datetime:
        """Store time; the same for two calls in one step only where the caller keeps it."""

    def close(self) -> None:
        """Give back what `wait` and `wake` hold."""

    # What an error means

    @abstractmethod
    def is_conflict(self, error: BaseException) -> bool:
        """Whether the step met another one (deadlock, busy, serialization) and may simply run again."""

    def is_unusable(self, error: BaseException) -> bool:
        """Whether the connection is of no more use, although the database's library does not say so."""
        return False

    @abstractmethod
    def is_schema_missing(self, error: BaseException) -> bool:
        """Whether a table or column is not there."""

    def refused_mend(self, error: BaseException) -> str:
        """What to do where a statement was refused, and would be again."""
        return "It would be refused again: the database says why."

    # Where the tables are

    @abstractmethod
    def identity(self, conn: Connection) -> str:
        """Which database this is, however it was addressed."""

    @abstractmethod
    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        """Make other migrations wait until the function that this returns is called (or the transaction ends)."""

    def check_file(self) -> None:
        """Raise SchemaOutdated where to connect would make an empty database: looking must not."""

    def check_place(self, conn: Connection) -> None:
        """Raise ConfigurationError where there is no place for tables: no database is named, or no schema is there."""

    def make_place(self, conn: Connection) -> None:
        """Make the schema of the tables, where they have one of their own; ConfigurationError if the user may not."""

    def check_may_create(self, conn: Connection) -> None:
        """Raise ConfigurationError where the user may make no tables."""

    def schema(self, conn: Connection) -> str | None:
        """The schema in which tables are made, where others' tables may be seen too."""
        return None

    @abstractmethod
    def looks(self, connect: Callable[[], Connection], script: str) -> list[Look]:
        """What the doctor looks at, in order.

        `connect` opens a connection that the caller closes; `script` is the text of a whole migration.
        """

    # The words of its SQL

    def holds_id(self, job_id: str) -> bool:
        """Whether the column of ids can be compared with this text."""
        return is_job_id(job_id) is not None

    def columns(self, table: FromClause, chars_max: int | None) -> list[ColumnElement[Any]]:
        """The table's columns but for results; with a bound, no more than so many characters of its long texts leave
        the database: of `data` the first, of `exception` the last.
        """
        columns: dict[str, ColumnElement[Any]] = dict(table.c.items())
        columns.pop("result", None)  # for `get_results` only: it may be long
        if chars_max is not None:
            columns["data"] = self.first_chars(table.c.data, chars_max).label("data")
            if "exception" in columns:
                columns["exception"] = self.last_chars(table.c.exception, chars_max).label("exception")
        return list(columns.values())

    def first_chars(self, text: ColumnElement[str], number: int) -> ColumnElement[str]:
        """The first characters of a text."""
        return func.substr(text, 1, number)

    def last_chars(self, text: ColumnElement[str], number: int) -> ColumnElement[str]:
        """The last characters of a text."""
        return func.right(text, number)

    def readable_time(self, time: str) -> str:
        """SQL for a time, not NULL, that Python can read."""
        return time

    @abstractmethod
    def delete_some(self, table: str, condition: str) -> str:
        """SQL that deletes at most `:most` rows of a table."""

    @abstractmethod
    def insert_unless_there(self, table: Table) -> Insert:
        """Leave a row of the same primary key alone."""

    @abstractmethod
    def insert_or_change(self, table: Table, change: Change) -> Insert:
        """Change a row of the same primary key."""

    def inserts(self, conn: Connection, table: Table, row: Mapping[str, object]) -> bool:
        """Insert one row. False: its key is there already, and nothing was done."""
        absent = self.insert_unless_there(table).returning(*table.primary_key)
        return conn.execute(absent, row).first() is not None

    def inserts_each(self, conn: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> set[str]:
        """Insert the rows whose `id` is not there, all of different ids; the ids that were inserted."""
        absent = self.insert_unless_there(table).returning(table.c.id)
        return set(conn.execute(absent, rows).scalars())

    # The verbs that each database has statements of its own for

    @abstractmethod
    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        """How `enqueue` of these is to be run."""

    @abstractmethod
    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> Stored:
        """Insert the jobs whose id is not there: at least one."""

    @abstractmethod
    def write_settled(
        self, conn: Connection, settled: Sequence[Mapping[str, object]], failures: Sequence[Mapping[str, object]]
    ) -> None:
        """Write what `verbs.settling` has made of jobs that it locked, in as few round trips as there may be."""

    @abstractmethod
    def turn(self, conn: Connection, request: TurnRequest) -> ClaimReply:
        """Settle, then claim; the worker's row is locked first, and `lease_lost` says that it is gone."""

    @abstractmethod
    def prune(self, conn: Connection, ages: Sequence[Age], *, limit: int, now: datetime) -> Pruned:
        """Delete up to `limit` finished jobs."""

    @abstractmethod
    def move_schedules(self, conn: Connection, schedules: Sequence[Schedule]) -> None:
        """Write what has changed of these locked schedules, at least one, in one statement."""

    @abstractmethod
    def live_lanes(self, conn: Connection, values: Mapping[str, Any]) -> Iterable[LiveLane]:
        """The lanes of the first `most` queues behind `after`, each side of `now` counted up to `counted`."""

    @abstractmethod
    def failed_alike(self, conn: Connection, values: Mapping[str, int]) -> list[FailedAlike]:
        """The `groups` fingerprints that failed last, each counted up to `counted`."""

    def guess_pending(self, conn: Connection, queues: Sequence[str | None]) -> list[int]:
        """A cheap guess at the pending jobs of each queue (None: of all); 0 where nobody can guess."""
        return [0] * len(queues)

    # Waking who waits

    @abstractmethod
    def wake(self, queues: Iterable[str], *, told: Collection[str] = (), came_back: bool = False) -> None:
        """Wake those who wait for these queues, here and in other processes. After the commit; never raises.

        It takes no connection in this thread: after a session's commit that may have the only one of its pool, and be
        that of an event loop; and a worker's thread waits for no pool that jobs share. `told`: of these queues other
        processes have heard (see `Stored`). `came_back`: the jobs have their old places in the line, where claims that
        remember a lane may not look again for a while.
        """

    def wake_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        """Wake them when the caller's transaction commits, where the database can do that."""

    @abstractmethod
    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """The port's `wait`."""
