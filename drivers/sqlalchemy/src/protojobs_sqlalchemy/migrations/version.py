"""Whether the tables are there, and of the version that this release works on. `migrating.py` changes them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, String, column, func, inspect, select, table

from protojobs.errors import ConfigurationError, SchemaOutdated, shown
from protojobs_sqlalchemy.connecting.translation import MIGRATE
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.migrations import HEAD, REVISIONS
from protojobs_sqlalchemy.tables.tables import VERSION_TABLE

__all__ = ["check", "check_file", "check_place", "is_readable", "outdated", "version_of"]


def check_file(engine: Engine) -> None:
    """Raise SchemaOutdated for a SQLite file that does not exist: only a migration makes one, looking must not."""
    path = engine.url.database
    if engine.dialect.name == "sqlite" and path and not path.startswith("file:") and not Path(path).exists():
        raise SchemaOutdated(f"There is no database {masked(engine.url)} yet.", mend=MIGRATE)


def check(conn: Connection) -> None:
    """Raise SchemaOutdated unless the tables are of this release's version, or of a newer one that it can work on."""
    check_place(conn)
    version = version_of(conn)
    if version != HEAD and not is_readable(conn, version):
        raise outdated(conn, version)


def check_place(conn: Connection) -> None:
    """Raise ConfigurationError where there is no place for tables: no database is named, or no schema is there."""
    place = masked(conn.engine.url)
    if conn.dialect.name in ("mysql", "mariadb") and conn.execute(select(func.database())).scalar() is None:
        raise ConfigurationError(f"{place} names no database.", mend="Name one behind the host: mysql://HOST/NAME.")
    if conn.dialect.name != "postgresql" or conn.execute(select(func.current_schema())).scalar() is not None:
        return
    path = str(conn.exec_driver_sql("SHOW search_path").scalar())
    user = str(conn.execute(select(func.current_user())).scalar())
    names = [name.strip().strip('"').replace("$user", user) for name in path.split(",")]
    there = set(conn.execute(select(column("nspname", String())).select_from(table("pg_namespace"))).scalars())
    if found := [name for name in names if name in there]:
        raise ConfigurationError(
            f"{place}: the user {shown(user)} may not use the schema {shown(found[0])} of its search_path.",
            mend=f'GRANT USAGE, CREATE ON SCHEMA "{found[0]}" TO "{user}";',
        )
    raise ConfigurationError(
        f"{place}: the search_path is {shown(path)}, and no such schema exists.",
        mend=f'CREATE SCHEMA "{names[-1]}"; or correct the search_path.',
    )


def version_of(conn: Connection) -> str | None:
    """The version of the tables; None where there are none."""
    # Asked of the catalogue first: on PostgreSQL a SELECT that fails would spoil a caller's transaction.
    if not inspect(conn).has_table(VERSION_TABLE):
        return None
    return conn.execute(select(column("version_num", String())).select_from(table(VERSION_TABLE))).scalar()


def is_readable(conn: Connection, version: str | None) -> bool:
    """Whether tables of a newer version say that this release can work on them."""
    if version is None or version in REVISIONS:
        return False
    if "readable_from" not in {found["name"] for found in inspect(conn).get_columns(VERSION_TABLE)}:
        return False
    since = conn.execute(select(column("readable_from", String())).select_from(table(VERSION_TABLE))).scalar()
    return since in REVISIONS


def outdated(conn: Connection, version: str | None) -> SchemaOutdated:
    """The error for tables of this version."""
    place = masked(conn.engine.url)
    if version is None:
        return SchemaOutdated(f"The database {place} has no tables of protojobs yet.", mend=MIGRATE)
    if version in REVISIONS:
        return SchemaOutdated(f"The tables in {place} are of version {version}; this is {HEAD}.", mend=MIGRATE)
    return SchemaOutdated(
        f"The tables in {place} are of version {version}, which is newer than this release ({HEAD}) can work on.",
        mend="Upgrade protojobs-sqlalchemy here too.",
    )
