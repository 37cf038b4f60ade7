"""What differs from database to database: the hot statements, how a step begins, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Protocol

from msgspec import Struct
from sqlalchemy import Connection, Engine

from protojobs.port.records import ClaimReply, NewJob, Settlement

__all__ = ["Ask", "Dialect", "Mode", "Run", "Turned", "Use"]


class Mode(Enum):
    """How one atomic step runs."""

    SINGLE = "single"  # it is one statement, atomic by itself
    READ = "read"
    WORK = "work"  # claims, settlements, leases: a power cut may undo the last of them, which only repeats work
    STORE = "store"  # what nobody would send again: a power cut must not undo it


class Use(Enum):
    """Whose connections a step takes. Whoever holds all of one use makes nobody of another wait."""

    CALL = "call"  # what applications and jobs ask for: pushes, questions, administration
    WORK = "work"  # what the threads of a worker do: claims, results, reclaims, upkeep, schedules
    BEAT = "beat"  # heartbeats


class Ask(Struct, frozen=True, kw_only=True):
    """One turn of a worker: what it settles, and what it wants next."""

    worker: str
    settlements: Sequence[Settlement] = ()
    queues: Sequence[str] = ()
    slots: int = 0
    limit: int = 0


class Turned(ClaimReply, frozen=True, kw_only=True):
    """A turn that has lent rows which no driver wrote: `unreadable` are the settlements that set them aside."""

    unreadable: tuple[Settlement, ...]


class Run(Protocol):
    """Runs a step on a connection of the driver's."""

    def __call__(self, step: Callable[[Connection], object], mode: Mode) -> object:
        """As `Connections.run`."""
        ...


class Dialect(Protocol):
    """One database's way. Connections come in autocommit mode; `begin` and `end` frame a step of several statements."""

    time_offset: float  # seconds added to the clock of the store
    turn_mode: Mode  # how `turn` is to be run
    archives: bool  # whether completed jobs are put into the archive (postgresql_archive.py)

    def prepare(self, engine: Engine) -> None:
        """Fit out the connections of our engine for steps. Never called for an application's engine."""
        ...

    def prepare_sessions(self, engine: Engine) -> None:
        """Fit out those of our engine for the application's sessions: as plain as an engine of its own would be."""
        ...

    def attach(self, run: Run) -> None:
        """Learn how to run a step outside of any verb."""
        ...

    def begin(self, conn: Connection, mode: Mode) -> None:
        """Open the step's transaction."""
        ...

    def end(self, conn: Connection, mode: Mode) -> None:
        """Commit it."""
        ...

    def restore(self, conn: Connection) -> None:
        """After a rollback: give the connection back the settings of the application's that `begin` changed."""
        ...

    def now(self, conn: Connection) -> datetime:
        """Store time; the same for two calls in one step only where the caller keeps it."""
        ...

    def is_conflict(self, error: BaseException) -> bool:
        """Whether the step met another one (deadlock, busy, serialization) and may simply run again."""
        ...

    def is_unusable(self, error: BaseException) -> bool:
        """Whether the connection is of no more use, although the database's library does not say so."""
        ...

    def is_schema_missing(self, error: BaseException) -> bool:
        """Whether a table or column is not there."""
        ...

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        """How `enqueue` of these is to be run."""
        ...

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> set[str]:
        """Insert the jobs whose id is not there; answers the ids that were stored."""
        ...

    def turn(self, conn: Connection, ask: Ask) -> ClaimReply:
        """Settle, then claim; the worker's row is locked first, and `lease_lost` says that it is gone. See Turned."""
        ...

    def ring(self, queues: Iterable[str], *, takes_none: bool = False, came_back: bool = False) -> None:
        """Wake those who wait for these queues, here and in other processes. After the commit; never raises.

        `takes_none`: take no connection in this thread. After a session's commit it may have the only one of its pool,
        and be that of an event loop; and a worker's thread waits for no pool that jobs share. `came_back`: the jobs
        have their old places in the line, where claims that remember a lane may not look again for a while.
        """
        ...

    def ring_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        """Ring when the caller's transaction commits, where the database can do that."""
        ...

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """The port's `wait`."""
        ...

    def has_archive(self, conn: Connection) -> bool:
        """Whether completed jobs may lie in the archive: asked once, since its first one comes after a new start."""
        ...

    def identity(self, conn: Connection) -> str:
        """Which database this is, however it was addressed."""
        ...

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        """Make other migrations wait until the function that this returns is called (or the transaction ends)."""
        ...

    def close(self) -> None:
        """Give back what `wait` and `ring` hold."""
        ...
