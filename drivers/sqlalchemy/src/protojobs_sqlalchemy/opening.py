"""A URL, or an application's own Engine, becomes the connections of the driver and the dialect of its database."""

from __future__ import annotations

from sqlalchemy import URL, Engine

from protojobs.errors import OptionInvalid
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.connecting.urls import archive_of, check_engine, make_engine, make_sessions_engine, parse
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.migrations.version import check
from protojobs_sqlalchemy.tables.naming import names_in
from protojobs_sqlalchemy.tables.tables import Tables, tables_of

__all__ = ["opened"]


def opened(  # noqa: PLR0913 (the options of a store)
    where: str | URL | Engine,
    *,
    time_offset: float,
    timeout: float,
    is_pooled: bool,
    listen_url: str | None,
    archive: str | None,
    schema: str | None,
    prefix: str | None,
) -> Connections:
    """The connections to a store, none of which is open yet. See `SQLAlchemyDriver` for the options."""
    is_ours = not isinstance(where, Engine)
    if isinstance(where, Engine):
        check_engine(where)
        engine = where
        _, archives = archive_of(where.url, archive)
        _, names = names_in(where.url, schema, prefix)
    elif isinstance(where, str | URL):
        url, archives = archive_of(parse(where), archive)
        url, names = names_in(url, schema, prefix)
        engine = make_engine(url, timeout=timeout, is_pooled=is_pooled)
    else:
        raise OptionInvalid(
            f"A driver is made from a URL or an Engine, not from {type(where).__name__}.",
            mend="From an AsyncEngine, give its sync URL.",
        )
    listen = _plain(listen_url) if listen_url else None if is_pooled else engine.url
    tables = tables_of(names)
    dialect = _dialect(engine, tables, time_offset, is_ours=is_ours, timeout=timeout, listen=listen, archives=archives)
    if is_ours:
        dialect.prepare(engine)

    def make_sessions() -> Engine:
        sessions = make_sessions_engine(engine.url, is_pooled=is_pooled)
        dialect.prepare_sessions(sessions)
        return sessions

    connections = Connections(engine, dialect, make_sessions=make_sessions if is_ours else None, check=check)
    dialect.attach(connections.run)
    return connections


def _plain(url: str) -> URL:
    """Without the options that are the driver's own."""
    return parse(url).difference_update_query(["archive", "schema", "prefix"])


def _dialect(  # noqa: PLR0913 (what each database takes of them)
    engine: Engine,
    tables: Tables,
    time_offset: float,
    *,
    is_ours: bool,
    timeout: float,
    listen: URL | None,
    archives: bool,
) -> Dialect:
    match engine.dialect.name:
        case "sqlite":
            from protojobs_sqlalchemy.sqlite.dialect import SQLiteDialect

            return SQLiteDialect(engine, tables, time_offset, is_ours=is_ours)
        case "postgresql":
            from protojobs_sqlalchemy.postgresql.dialect import PostgreSQLDialect  # its DBAPI is an extra

            return PostgreSQLDialect(engine, tables, time_offset, timeout=timeout, listen=listen, archives=archives)
        case _:
            from protojobs_sqlalchemy.mariadb.dialect import MariaDBDialect  # its DBAPI is an extra

            return MariaDBDialect(engine, tables, time_offset, is_ours=is_ours)
