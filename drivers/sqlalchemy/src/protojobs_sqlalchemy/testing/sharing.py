"""A plain connection on the wire of an AsyncConnection, for a driver whose verbs are plain functions.

`drain`, `stats` and the assertions of a test are called between two awaits of its coroutine. Nothing else uses the wire
then, so statements can be sent on it without the event loop. psycopg and aiosqlite both keep a plain connection inside:
libpq's, and one of sqlite3. asyncpg and asyncmy have none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from msgspec import Struct
from sqlalchemy import Connection, Dialect, Engine, StaticPool
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection

from protojobs.errors import OptionInvalid

if TYPE_CHECKING:
    import psycopg

__all__ = ["SharedConnection", "shared_connection", "not_busy"]

_DRIVERNAMES = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}


class SharedConnection(Struct, frozen=True):
    """A test's own connection, and the one that the driver sends its statements on: the same, or on the same wire.

    `check_free` raises ConfigurationError while another task waits for an answer on that wire.
    """

    theirs: Connection
    ours: Connection
    check_free: Callable[[], None]


def not_busy() -> None:
    """The `check_free` of a plain connection: one thread uses it."""


def shared_connection(connection: AsyncConnection) -> SharedConnection:
    """The plain connection beneath this one. OptionInvalid where there is none, or no transaction is open."""
    theirs = connection.sync_connection
    if theirs is None or not theirs.in_transaction():
        raise OptionInvalid(
            "The AsyncConnection has no transaction for this test's jobs.",
            mend="Begin one first: transaction = await connection.begin().",
        )
    check_free, dialect = not_busy, connection.engine.dialect
    raw = cast("object", theirs.connection.driver_connection)
    if dialect.name == "postgresql" and "psycopg" in dialect.driver:
        from protojobs_sqlalchemy.testing import postgresql

        wire = cast("psycopg.AsyncConnection[object]", raw)
        check_free = partial(postgresql.check_free, wire)
        check_free()
        plain: object = postgresql.on_the_wire_of(wire)
    else:
        plain = getattr(raw, "_conn", None)  # of aiosqlite, which has no public name for it
        if not isinstance(plain, sqlite3.Connection):
            raise OptionInvalid(
                f"An AsyncConnection on {dialect.name}+{dialect.driver} has no plain connection inside that the driver"
                " could share.",
                mend="In these tests, make the engine with create_async_engine on postgresql+psycopg or"
                " sqlite+aiosqlite; or let job_queue_store return the URL of a database of the tests' own.",
            )
    return SharedConnection(theirs, _engine_on(plain, theirs).connect(), check_free)


def _engine_on(plain: object, theirs: Connection) -> Engine:
    """An engine with this one connection. `create_engine` would roll back what its first look has begun."""
    url = theirs.engine.url.set(drivername=_DRIVERNAMES[theirs.engine.url.get_backend_name()])
    kind = url.get_dialect()
    dialect = cast("Callable[..., Dialect]", kind)(dbapi=kind.import_dbapi())

    def creator() -> DBAPIConnection:
        return cast("DBAPIConnection", plain)

    engine = Engine(StaticPool(creator, dialect=dialect, reset_on_return=None), dialect, url)
    dialect.initialize(engine.connect())
    return engine
