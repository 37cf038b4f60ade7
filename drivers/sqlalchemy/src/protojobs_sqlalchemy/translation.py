"""Foreign exceptions become ours here, and nowhere else."""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from protojobs.errors import ContractBroken, ProtojobsError, SchemaOutdated, StoreUnavailable
from protojobs_sqlalchemy.dialects import Dialect
from protojobs_sqlalchemy.urls import masked

__all__ = ["MIGRATE", "is_read_only", "original", "translated"]

MIGRATE = 'Type "protojobs migrate", or call driver.setup().'
_REPEATABLE = ("OperationalError", "InterfaceError", "InternalError", "Warning")
_READ_ONLY = "25006"  # PostgreSQL's: a standby, or a primary that somebody told to take no writes
_READ_ONLY_NUMBERS = {
    1290,
    1792,
    1836,
}  # MariaDB's and MySQL's: --read-only, a transaction for reading, a read-only mode
_NO_RIGHT = "42501"
_PRIMARY = 0xFF  # the low byte of SQLite's extended codes
_REFUSALS = {_NO_RIGHT, "28P01", "28000", "3D000"}  # SQLSTATEs of PostgreSQL that time will not mend, but people can


def original(error: BaseException) -> BaseException:
    """The DBAPI's own exception inside SQLAlchemy's, or the error itself."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def is_read_only(error: BaseException) -> bool:
    """Whether the server takes no writes (any more): after a failover another one does."""
    number = error.args[0] if error.args else None
    return getattr(error, "sqlstate", None) == _READ_ONLY or number in _READ_ONLY_NUMBERS


def translated(error: Exception, engine: Engine, dialect: Dialect) -> ProtojobsError | None:
    """What to raise instead of `error`; None for an error that is not the store's."""
    if isinstance(error, ProtojobsError):
        return error
    cause, place = original(error), masked(engine.url)
    if isinstance(error, PoolTimeout):
        return StoreUnavailable(
            f"All connections of the pool to {place} are in use.", mend="Give the engine a larger pool_size."
        )
    if not isinstance(cause, engine.dialect.loaded_dbapi.Error) and not isinstance(error, SQLAlchemyError | OSError):
        return None
    text = _without_password(" ".join(str(cause).split()), engine).rstrip(".?")
    if dialect.is_schema_missing(cause):
        return SchemaOutdated(f"The database {place} lacks a table or column of protojobs: {text}", mend=MIGRATE)
    if dialect.is_conflict(cause):
        return StoreUnavailable(f"{place} stayed busy: {text}.", mend=_busy_mend(engine))
    if is_read_only(cause):
        return StoreUnavailable(
            f"{place} takes no writes: {text}.",
            mend="After a failover the next call finds the new primary, if the URL, DNS or a proxy leads there.",
        )
    names = {cls.__name__ for cls in type(cause).__mro__}
    if isinstance(error, OSError) or (names & set(_REPEATABLE) and getattr(cause, "sqlstate", None) != _NO_RIGHT):
        state = getattr(cause, "sqlstate", None)
        mend = "Check the user, the password and the database's name." if state in _REFUSALS else ""
        return StoreUnavailable(
            f"{place} could not be asked: {_first_line(cause, engine)}.", mend=mend or _unavailable_mend(engine)
        )
    return ContractBroken(f"{place} refused a statement: {text}.", mend=_refused_mend(cause, engine))


def _first_line(cause: BaseException, engine: Engine) -> str:
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return _without_password(lines[0], engine).rstrip(".?")


def _without_password(text: str, engine: Engine) -> str:
    password = engine.url.password
    return text.replace(str(password), "***") if password else text


def _busy_mend(engine: Engine) -> str:
    if engine.dialect.name == "sqlite":
        return (
            "Another connection holds SQLite's only write lock; most often it is a job's own transaction that stays"
            " open while the job runs. Commit it sooner, or push with session= inside it."
        )
    return "Other transactions hold the rows for too long; look for one that stays open."


def _refused_mend(cause: BaseException, engine: Engine) -> str:
    if getattr(cause, "sqlstate", None) == _NO_RIGHT:
        return "Give this user the rights on protojobs' tables."
    code, dbapi = getattr(cause, "sqlite_errorcode", 0) & _PRIMARY, engine.dialect.loaded_dbapi
    if code and code == dbapi.SQLITE_NOTADB:
        return "The file is of another kind, or encrypted. Name another path in the URL."
    if code and code == dbapi.SQLITE_CORRUPT:
        return "The file is damaged. Put back a copy of it, or save what can be read: sqlite3 FILE .recover"
    return "It would be refused again: the database says why."


def _unavailable_mend(engine: Engine) -> str:
    if engine.dialect.name == "sqlite":
        return "Check the file, its folder's permissions and the space on the disk."
    return "Is the server running, and can it be reached from here?"
