"""A URL, or an application's own Engine, becomes the connections of the driver and the dialect of its database."""

from __future__ import annotations

from sqlalchemy import URL, Engine

from protojobs.errors import OptionInvalid
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.connecting.urls import archive_of, check_engine, make_engine, make_sessions_engine, parse
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.migrations.version import check

__all__ = ["opened"]


def opened(
    where: str | URL | Engine,
    *,
    time_offset: float,
    timeout: float,
    is_pooled: bool,
    listen_url: str | None,
    archive: str | None,
) -> Connections:
    """The connections to a store, none of which is open yet. See `SQLAlchemyDriver` for the options."""
    is_ours = not isinstance(where, Engine)
    if isinstance(where, Engine):
        check_engine(where)
        engine = where
        _, archives = archive_of(where.url, archive)
    elif isinstance(where, str | URL):
        url, archives = archive_of(parse(where), archive)
        engine = make_engine(url, timeout=timeout, is_pooled=is_pooled)
    else:
        raise OptionInvalid(
            f"A driver is made from a URL or an Engine, not from {type(where).__name__}.",
            mend="From an AsyncEngine, give its sync URL.",
        )
    listen = archive_of(parse(listen_url))[0] if listen_url else None if is_pooled else engine.url
    dialect = _dialect(engine, time_offset, is_ours=is_ours, timeout=timeout, listen=listen, archives=archives)
    if is_ours:
        dialect.prepare(engine)

    def make_sessions() -> Engine:
        sessions = make_sessions_engine(engine.url, is_pooled=is_pooled)
        dialect.prepare_sessions(sessions)
        return sessions

    connections = Connections(engine, dialect, make_sessions=make_sessions if is_ours else None, check=check)
    dialect.attach(connections.run)
    return connections


def _dialect(
    engine: Engine, time_offset: float, *, is_ours: bool, timeout: float, listen: URL | None, archives: bool
) -> Dialect:
    match engine.dialect.name:
        case "sqlite":
            from protojobs_sqlalchemy.sqlite.dialect import SQLiteDialect

            return SQLiteDialect(engine, time_offset, is_ours=is_ours)
        case "postgresql":
            from protojobs_sqlalchemy.postgresql.dialect import PostgreSQLDialect  # its DBAPI is an extra

            return PostgreSQLDialect(engine, time_offset, timeout=timeout, listen=listen, archives=archives)
        case _:
            from protojobs_sqlalchemy.mariadb.dialect import MariaDBDialect  # its DBAPI is an extra

            return MariaDBDialect(engine, time_offset, is_ours=is_ours)
