"""`inside(connection)`: a driver whose every verb runs on one connection of a test's, in the test's transaction.

Savepoints take the place of commits, so a rollback at the end of the test removes whatever was stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import NoReturn

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from protojobs.errors import ConfigurationError, NotSupported, OptionInvalid
from protojobs.port.diagnosis import Finding
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.connecting.urls import check_engine
from protojobs_sqlalchemy.dialect import Mode, Use
from protojobs_sqlalchemy.driver import SQLAlchemyDriver
from protojobs_sqlalchemy.migrations.version import check
from protojobs_sqlalchemy.sessions.joining import Joining
from protojobs_sqlalchemy.tables.naming import names_in
from protojobs_sqlalchemy.tables.tables import Tables, tables_of
from protojobs_sqlalchemy.testing.dialects import Inside
from protojobs_sqlalchemy.testing.savepoints import Savepoints
from protojobs_sqlalchemy.testing.sharing import SharedConnection, not_busy, shared_connection

__all__ = ["InsideDriver", "inside"]

_BIND = 'Bind the sessions to it: sessionmaker(bind=connection, join_transaction_mode="create_savepoint").'


def inside(
    connection: Connection | AsyncConnection,
    *,
    schema: str | None = None,
    prefix: str | None = None,
    time_offset: float = 0.0,
) -> InsideDriver:
    """A driver for tests, all of whose statements go through this one connection, inside the transaction that is open.

    One is begun where none is open; on an AsyncConnection you begin it. It is yours to roll back at the end of the
    test; nothing here commits. The tables must be there before (`protojobs migrate` on the test database). One thread
    at a time may use the connection. `schema` and `prefix` say where in the database they are, as for
    `SQLAlchemyDriver`.

    An AsyncConnection must be on psycopg or aiosqlite: OptionInvalid for asyncpg and asyncmy, whose connections plain
    code cannot use. Between two awaits of the test all calls work, and hold up the event loop.
    """
    if isinstance(connection, AsyncConnection):
        return InsideDriver(shared_connection(connection), schema=schema, prefix=prefix, time_offset=time_offset)
    if not isinstance(connection, Connection):
        raise OptionInvalid(
            f"inside() takes a SQLAlchemy Connection or AsyncConnection, not a {type(connection).__name__}.",
            mend="Of an engine, give engine.connect(); of an AsyncEngine, what async with engine.connect() gives.",
        )
    if not connection.in_transaction():
        connection.begin()
    shared = SharedConnection(connection, connection, not_busy)
    return InsideDriver(shared, schema=schema, prefix=prefix, time_offset=time_offset)


class InsideDriver(SQLAlchemyDriver):
    """What `inside` makes. See there."""

    def __init__(
        self,
        shared: SharedConnection,
        *,
        schema: str | None = None,
        prefix: str | None = None,
        time_offset: float = 0.0,
    ) -> None:
        connection = shared.ours
        check_engine(connection.engine)
        _, names = names_in(connection.engine.url, schema, prefix)
        dialect = _dialect(connection.engine, tables_of(names), time_offset)
        dialect.enter(connection)  # on SQLite this begins what SQLAlchemy leaves to the first INSERT
        dialect.leave(connection)
        pool = _OneConnection(shared, dialect)
        connections = Connections(
            connection.engine, dialect, make_sessions=_no_sessions, check=check, pools=dict.fromkeys(Use, pool)
        )
        self._savepoints = Savepoints({shared.theirs, shared.ours})
        self._use(connections, _JoiningOne(connections, shared))

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} inside a transaction>"

    def when_rolled_back(self, callback: Callable[[], None]) -> None:
        """The port's `InOneTransaction`."""
        self._savepoints.when_rolled_back(callback)

    def setup(self) -> None:
        """Raise SchemaOutdated unless the tables are there; making them would commit on some databases."""
        self._connections.check_tables()

    def teardown(self) -> None:
        """Delete the rows of all tables, in the test's transaction."""

        def delete(conn: Connection) -> None:
            for table in self._dialect.tables.metadata.tables.values():
                conn.execute(table.delete())

        self._run(delete, Mode.STORE)

    def migrate(self, *, down: bool = False, to: str | None = None) -> NoReturn:
        raise NotSupported(
            "Tables are not made in a test's transaction, since some databases would commit it.",
            mend="Run `protojobs migrate` on the test database, or SQLAlchemyDriver(engine).setup() once before it.",
        )

    def diagnose(self) -> list[Finding]:
        raise NotSupported(
            "The doctor does not look at a test's transaction.", mend="Run `protojobs doctor` on the database."
        )


def _dialect(engine: Engine, tables: Tables, time_offset: float) -> Inside:
    match engine.dialect.name:
        case "sqlite":
            from protojobs_sqlalchemy.testing.sqlite import InsideSQLite

            return InsideSQLite(engine, tables, time_offset, is_ours=False)
        case "postgresql":
            from protojobs_sqlalchemy.testing.postgresql import InsidePostgreSQL  # its DBAPI is an extra

            return InsidePostgreSQL(engine, tables, time_offset, timeout=10.0, listen=None)
        case _:
            from protojobs_sqlalchemy.testing.mariadb import InsideMariaDB  # its DBAPI is an extra

            return InsideMariaDB(engine, tables, time_offset, is_ours=False)


def _no_sessions() -> NoReturn:
    raise NotSupported("A driver inside a connection has no engine for further sessions.", mend=_BIND)


class _OneConnection:
    """The one connection, for all uses: each verb is a savepoint. Implements StepPool."""

    at_once_max = 1

    def __init__(self, shared: SharedConnection, dialect: Inside) -> None:
        self.free = threading.Semaphore(1)
        self._shared = shared
        self._transaction = shared.theirs.get_transaction()
        self._dialect = dialect

    def idle(self) -> None:
        return None

    def connect(self) -> Connection:
        theirs = self._shared.theirs
        transaction = None if theirs.closed else theirs.get_transaction()
        if transaction is None or transaction is not self._transaction or not transaction.is_active:
            raise ConfigurationError(
                "The transaction that this test's jobs are in has ended: something has committed it or rolled it back.",
                mend=_BIND,
            )
        self._shared.check_free()
        conn = self._shared.ours
        self._dialect.enter(conn)
        return conn

    def keep(self, conn: Connection) -> None:
        self._dialect.leave(conn)

    def give_up(self, conn: Connection) -> None:
        with suppress(DBAPIError):  # the verb's own error says more
            self._dialect.undo(conn)
            self._dialect.leave(conn)

    def forget_idle(self) -> None:
        pass

    def start_afresh(self) -> None:
        self.free = threading.Semaphore(1)


class _JoiningOne(Joining):
    """Joins what goes through the one connection, and refuses what does not: its jobs would stay in the database."""

    def __init__(self, connections: Connections, shared: SharedConnection) -> None:
        super().__init__(connections)
        self._shared = shared

    @contextmanager
    def begin(self) -> Generator[Session]:
        with Session(self._shared.ours, join_transaction_mode="create_savepoint") as session, session.begin():
            yield session

    def _check_place(self, conn: Connection) -> None:
        ours = (self._shared.theirs.connection.dbapi_connection, self._shared.ours.connection.dbapi_connection)
        if not any(conn.connection.dbapi_connection is each for each in ours):
            raise OptionInvalid("The session is on another connection than this test's jobs.", mend=_BIND)
