"""Whether the tables are there, and of a version that this release works on. `migrating.py` changes them."""

from __future__ import annotations

from sqlalchemy import Connection, String, column, inspect, select, table

from protojobs.errors import SchemaOutdated
from protojobs_sqlalchemy.connecting.translation import MIGRATE
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.migrations import HEAD, REVISIONS
from protojobs_sqlalchemy.tables.tables import VERSION_TABLE

__all__ = ["check", "is_readable", "outdated", "version_of"]


def check(conn: Connection, dialect: Dialect) -> None:
    """Raise SchemaOutdated unless the tables are of this release's version, or of a newer one that it can work on."""
    dialect.check_place(conn)
    version = version_of(conn)
    if version != HEAD and not is_readable(conn, version):
        raise outdated(conn, version)


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
    if "readable_from" not in {stored["name"] for stored in inspect(conn).get_columns(VERSION_TABLE)}:
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
