"""Creating, upgrading, removing and checking the tables."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, String, column, inspect, select, table, text

from protojobs.errors import SchemaOutdated
from protojobs_sqlalchemy.connections import Connections
from protojobs_sqlalchemy.dialects import Dialect, Mode
from protojobs_sqlalchemy.migrations import HEAD, REVISIONS
from protojobs_sqlalchemy.tables import VERSION_TABLE
from protojobs_sqlalchemy.translation import MIGRATE
from protojobs_sqlalchemy.urls import masked

__all__ = ["Schema", "check"]

_alembic = threading.Lock()  # Alembic's `op` and `context` are one per process


class Schema:
    """The tables' versions: up, down, as text. Safe from many processes at once, and after a death half-way."""

    def __init__(self, connections: Connections, dialect: Dialect) -> None:
        self._connections = connections
        self._dialect = dialect

    def migrate(self, *, down: bool = False) -> list[str]:
        """Bring the tables to this release's version, or remove them; answers the revisions that were run."""
        applied: list[str] = []

        def step(conn: Connection) -> None:
            applied.clear()
            unlock = self._dialect.lock_schema(conn)
            try:
                self._alembic(conn, applied, down=down)
                if down:
                    conn.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
            finally:
                unlock()

        self._connections.run(step, Mode.STORE)
        return applied

    def sql(self, *, down: bool = False) -> str:
        """The statements that `migrate` would run on an empty (or, for `down`, a full) database."""
        out = io.StringIO()
        config = _config()
        config.output_buffer = out
        config.attributes["dialect_name"] = self._connections.engine.dialect.name
        with _alembic:
            if down:
                command.downgrade(config, f"{HEAD}:base", sql=True)
                return f"{out.getvalue()}DROP TABLE {VERSION_TABLE};\n"
            command.upgrade(config, "head", sql=True)
        return out.getvalue()

    def _alembic(self, conn: Connection, applied: list[str], *, down: bool) -> None:
        config = _config()
        config.attributes["connection"] = conn
        config.attributes["on_version_apply"] = [_noting(applied)]
        with _alembic:
            version = _version(conn)
            if version is not None and version not in REVISIONS:
                raise _outdated(conn, version)
            if down:
                command.downgrade(config, "base")
            else:
                command.upgrade(config, "head")


def check(conn: Connection) -> None:
    """Raise SchemaOutdated unless the database is of exactly the version that this release works on."""
    version = _version(conn)
    if version != HEAD:
        raise _outdated(conn, version)


def _version(conn: Connection) -> str | None:
    # Asked of the catalogue first: on PostgreSQL a SELECT that fails would spoil a caller's transaction.
    if not inspect(conn).has_table(VERSION_TABLE):
        return None
    return conn.execute(select(column("version_num", String())).select_from(table(VERSION_TABLE))).scalar()


def _outdated(conn: Connection, version: str | None) -> SchemaOutdated:
    place = masked(conn.engine.url)
    if version is None:
        return SchemaOutdated(f"The database {place} has no tables of protojobs yet.", mend=MIGRATE)
    if version in REVISIONS:
        return SchemaOutdated(f"The tables in {place} are of version {version}; this is {HEAD}.", mend=MIGRATE)
    return SchemaOutdated(
        f"The tables in {place} are of version {version}, which is newer than this release ({HEAD}).",
        mend="Upgrade protojobs-sqlalchemy here too.",
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "protojobs_sqlalchemy:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["version_table"] = VERSION_TABLE
    return config


def _noting(applied: list[str]) -> Callable[..., None]:
    def note(*, step: object, **_rest: object) -> None:
        is_upgrade = getattr(step, "is_upgrade", True)
        revision = getattr(step, "up_revision_id" if is_upgrade else "down_revision_ids", None)
        source = getattr(step, "source_revision_ids", ())
        applied.append(str(revision) if is_upgrade else ", ".join(source))

    return note
