"""What the database's libraries raise becomes one of the port's errors here, and nowhere else."""

from __future__ import annotations

import re

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from protojobs.errors import ConfigurationError, ContractBroken, ProtojobsError, SchemaOutdated, StoreUnavailable
from protojobs.port.urls import scrubbed
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import Dialect

__all__ = ["MIGRATE", "is_read_only", "is_right_missing", "original", "translated"]

MIGRATE = 'Type "protojobs migrate", or call driver.setup().'
_REPEATABLE = ("OperationalError", "InterfaceError", "InternalError", "Warning")
_READ_ONLY = "25006"  # PostgreSQL's: a standby, or a primary that somebody told to take no writes
_READ_ONLY_NUMBERS = {
    1290,
    1792,
    1836,
}  # MariaDB's and MySQL's: --read-only, a transaction for reading, a read-only mode
_NO_RIGHT = "42501"
_NO_RIGHT_NUMBERS = {1142, 1143, 1227}  # MariaDB's and MySQL's

_USER = "Check the user and the password in the URL."
_DATABASE = "Create it, or correct its name in the URL."
# What servers say to somebody who may not come in, and time will not mend, with what people can do. PostgreSQL gives
# its library no code with it. In another language than English these are told as if the server were away.
_REFUSALS = (
    (re.compile(r"(database \".*?\" does not exist|no such database.*)"), _DATABASE),
    (re.compile(r"(role \".*?\" (?:does not exist|is not permitted to log in)|no such user.*)"), _USER),
    (re.compile(r"(\S+ authentication failed for user \".*?\"|fe_sendauth: no password supplied)"), _USER),
    (re.compile(r"(permission denied for database \".*?\")"), "GRANT CONNECT ON DATABASE ... TO the user of the URL."),
    (re.compile(r"((?:no pg_hba.conf entry|pg_hba.conf rejects connection) for .*)"), "Let it in by pg_hba.conf."),
)
_REFUSAL_NUMBERS = {
    1044: "GRANT ALL ON the database TO the user of the URL.",
    1045: _USER,
    1049: _DATABASE,
    1130: "Let this host in: CREATE USER ...@HOST.",
    1698: _USER,
}


def original(error: BaseException) -> BaseException:
    """The DBAPI's own exception inside SQLAlchemy's, or the error itself."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def is_read_only(error: BaseException) -> bool:
    """Whether the server takes no writes (any more): after a failover another one does."""
    number = error.args[0] if error.args else None
    return getattr(error, "sqlstate", None) == _READ_ONLY or number in _READ_ONLY_NUMBERS


def translated(error: Exception, engine: Engine, dialect: Dialect, *, has_connected: bool) -> ProtojobsError | None:
    """What to raise instead of `error`; None for an error that is not the store's.

    A server that lets nobody in under this name is a mistake of who starts, and told as one. But a process that was let
    in before (`has_connected`) most often sees a failover, a restored database or a password that is being changed: to
    it the store is away.
    """
    if isinstance(error, ProtojobsError):
        return error
    cause, place = original(error), masked(engine.url)
    if isinstance(error, PoolTimeout):
        return StoreUnavailable(
            f"All connections of the pool to {place} are in use.", mend="Give the engine a larger pool_size."
        )
    if not isinstance(cause, engine.dialect.loaded_dbapi.Error) and not isinstance(error, SQLAlchemyError | OSError):
        return None
    text = scrubbed(" ".join(str(cause).split())).rstrip(".?")
    if dialect.is_schema_missing(cause):
        return SchemaOutdated(f"The database {place} lacks a table or column of protojobs: {text}", mend=MIGRATE)
    if dialect.is_conflict(cause):
        return StoreUnavailable(f"{place} stayed busy: {text}.", mend=dialect.busy_mend)
    if is_read_only(cause):
        return StoreUnavailable(
            f"{place} takes no writes: {text}.",
            mend="After a failover the next call finds the new primary, if the URL, DNS or a proxy leads there.",
        )
    refusal = _refusal(cause)
    if refusal is not None and not has_connected:
        return ConfigurationError(f"{place} does not let us in: {refusal[0]}.", mend=refusal[1])
    names = {cls.__name__ for cls in type(cause).__mro__}
    if isinstance(error, OSError) or (names & set(_REPEATABLE) and not is_right_missing(cause)):
        return StoreUnavailable(
            f"{place} could not be asked: {_first_line(cause)}.",
            mend=dialect.unavailable_mend if refusal is None else refusal[1],
        )
    mend = "Give this user the rights on protojobs' tables." if is_right_missing(cause) else dialect.refused_mend(cause)
    return ContractBroken(f"{place} refused a statement: {text}.", mend=mend)


def is_right_missing(error: BaseException) -> bool:
    """Whether the user may not do this."""
    return getattr(error, "sqlstate", None) == _NO_RIGHT or (error.args and error.args[0]) in _NO_RIGHT_NUMBERS


def _refusal(error: BaseException) -> tuple[str, str] | None:
    """Why the server lets nobody in under this name, and what to do; None if it says anything else."""
    number = error.args[0] if error.args else None
    if isinstance(number, int):
        mend = _REFUSAL_NUMBERS.get(number)
        return None if mend is None else (str(error.args[-1]), mend)
    # The library tries each address of each host, and tells of all attempts: one that is only away may let us in later.
    head, *attempts = re.split(r"(?m)^- host: ", str(error))
    refusals = [_refusal_in(attempt) for attempt in attempts or [head]]
    return refusals[0] if all(refusals) else None


def _refusal_in(text: str) -> tuple[str, str] | None:
    for pattern, mend in _REFUSALS:
        if (match := pattern.search(text)) is not None:
            return match[1], mend
    return None


def _first_line(cause: BaseException) -> str:
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return scrubbed(lines[0]).rstrip(".?")
