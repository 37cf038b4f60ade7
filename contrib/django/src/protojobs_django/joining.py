"""Django's own connection, as SQLAlchemy sees it: what it runs there is part of Django's transaction.

SQLAlchemy neither begins, commits nor closes there, and changes nothing of the connection: that is Django's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine
from sqlalchemy.dialects.mysql.mysqldb import MySQLDialect_mysqldb
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGExecutionContext_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["Joining"]


class _Theirs:
    """The part of a SQLAlchemy dialect that would begin, end or set up a connection: here all that is Django's."""

    def on_connect(self) -> Callable[..., None]:
        """Nothing is set up: SQLAlchemy would put functions and handlers of its own in the place of Django's."""
        return _leave_alone

    def do_begin(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Django has begun it."""

    def do_commit(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Django commits."""

    def do_rollback(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Django rolls back."""

    def do_close(self, dbapi_connection: DBAPIConnection) -> None:
        """Django closes it."""

    def do_terminate(self, dbapi_connection: DBAPIConnection) -> None:
        """As above."""


def _leave_alone(_connection: DBAPIConnection) -> None:
    pass


class _AwareCursors(PGExecutionContext_psycopg):
    """Times come with their zone, also where the site has USE_TZ = False and Django's connection cuts it off."""

    def create_default_cursor(self) -> DBAPICursor:
        from psycopg.types.datetime import TimestamptzLoader  # not there for sites on other databases

        cursor = super().create_default_cursor()
        cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
        return cursor


class DjangosPostgreSQL(_Theirs, PGDialect_psycopg):
    """Django's connection to PostgreSQL, by psycopg 3."""

    supports_statement_cache = True

    execution_ctx_cls = _AwareCursors


class DjangosSQLite(_Theirs, SQLiteDialect_pysqlite):
    """Django's connection to SQLite."""

    supports_statement_cache = True


class DjangosMysqlclient(_Theirs, MySQLDialect_mysqldb):
    """Django's connection to MariaDB or MySQL, by mysqlclient."""

    supports_statement_cache = True


class DjangosPyMySQL(_Theirs, MySQLDialect_pymysql):
    """The same by PyMySQL, which stands in for mysqlclient after `pymysql.install_as_MySQLdb()`."""

    supports_statement_cache = True


class Joining:
    """Makes SQLAlchemy's connections over Django's. An Engine for each address remembers what the server can do."""

    def __init__(self) -> None:
        self._engines: dict[URL, Engine] = {}
        self._raw: ContextVar[object] = ContextVar("protojobs_django_raw")

    @contextmanager
    def joined(self, wrapper: BaseDatabaseWrapper, url: URL) -> Generator[Connection]:
        """SQLAlchemy's connection over Django's `wrapper`, which leads to `url`, for the length of the block."""
        wrapper.ensure_connection()
        raw = wrapper.connection
        token = self._raw.set(raw)
        try:
            conn = self._engine(url, raw).connect()
        finally:
            self._raw.reset(token)
        with conn:
            yield conn

    def _engine(self, url: URL, raw: object) -> Engine:
        if url not in self._engines:
            named = url.set(drivername=f"{url.get_backend_name()}+{_dialect_for(url, raw)}")
            # To look for hstore SQLAlchemy would open a connection of its own.
            options = {"use_native_hstore": False} if url.get_backend_name() == "postgresql" else {}
            self._engines[url] = create_engine(named, creator=self._raw.get, poolclass=NullPool, **options)
        return self._engines[url]


def _dialect_for(url: URL, raw: object) -> str:
    if url.get_backend_name() != "mysql":
        return "protojobs_django"
    is_pymysql = type(raw).__module__.startswith("pymysql.")
    return "protojobs_django_pymysql" if is_pymysql else "protojobs_django_mysqldb"
