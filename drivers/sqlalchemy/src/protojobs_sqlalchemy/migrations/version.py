"""Whether the tables are there, and of a version that this release works on. `migrating.py` changes them."""

from __future__ import annotations

from sqlalchemy import Connection, String, TableClause, column, inspect, select, table

from protojobs.errors import SchemaOutdated
from protojobs_sqlalchemy.connecting.translation import MIGRATE
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.migrations import HEAD, REVISIONS
from protojobs_sqlalchemy.tables.naming import VERSION_TABLE, Names

__all__ = ["check", "is_readable", "outdated", "pending", "version_of"]


def check(conn: Connection, dialect: Dialect) -> None:
    """Raise SchemaOutdated unless the tables are of this release's version, or of a newer one that it can work on."""
    dialect.check_place(conn)
    names = dialect.names
    version = version_of(conn, names)
    if version != HEAD and not is_readable(conn, names, version):
        raise outdated(conn, names, version)


def pending(conn: Connection, dialect: Dialect) -> list[str]:
    """The revisions that are to be run before this release can work on the tables.

    Raises SchemaOutdated for tables of a newer version that it cannot work on.
    """
    dialect.check_place(conn)
    names = dialect.names
    version = version_of(conn, names)
    if version is None:
        return list(REVISIONS)
    if version in REVISIONS:
        return list(REVISIONS[REVISIONS.index(version) + 1 :])
    if is_readable(conn, names, version):
        return []
    raise outdated(conn, names, version)


def version_of(conn: Connection, names: Names) -> str | None:
    """The version of the tables; None where there are none."""
    # Asked of the catalogue first: on PostgreSQL a SELECT that fails would spoil a caller's transaction.
    if not inspect(conn).has_table(names.bare(VERSION_TABLE), names.schema):
        return None
    return conn.execute(select(column("version_num", String())).select_from(_version_table(names))).scalar()


def is_readable(conn: Connection, names: Names, version: str | None) -> bool:
    """Whether tables of a newer version say that this release can work on them."""
    return version is not None and version not in REVISIONS and _readable_from(conn, names) in REVISIONS


def outdated(conn: Connection, names: Names, version: str | None) -> SchemaOutdated:
    """The error for tables of this version."""
    place = names.said(masked(conn.engine.url))
    if version is None:
        return SchemaOutdated(f"The database {place} has no tables of protojobs yet.", mend=MIGRATE)
    if version in REVISIONS:
        return SchemaOutdated(f"The tables in {place} are of version {version}; this is {HEAD}.", mend=MIGRATE)
    since = _readable_from(conn, names)
    return SchemaOutdated(
        f"The tables in {place} are of version {version}, which is newer than this release ({HEAD})"
        + (" can work on." if since is None else f": only a release that knows {since} can work on them."),
        mend="Upgrade protojobs-sqlalchemy here too. Or stop the newer release, and with it take the tables back:"
        f" protojobs migrate --to {HEAD}",
    )


def _readable_from(conn: Connection, names: Names) -> str | None:
    stored = inspect(conn).get_columns(names.bare(VERSION_TABLE), names.schema)
    if "readable_from" not in {each["name"] for each in stored}:
        return None
    return conn.execute(select(column("readable_from", String())).select_from(_version_table(names))).scalar()


def _version_table(names: Names) -> TableClause:
    return table(names.bare(VERSION_TABLE), schema=names.schema)
