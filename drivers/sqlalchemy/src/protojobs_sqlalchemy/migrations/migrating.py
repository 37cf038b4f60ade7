"""Creating, upgrading and removing the tables, by Alembic."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, text

from protojobs.errors import ConfigurationError, shown
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import Mode
from protojobs_sqlalchemy.migrations import HEAD, REVISIONS
from protojobs_sqlalchemy.migrations.making import Tables, lacking
from protojobs_sqlalchemy.migrations.version import is_readable, outdated, version_of
from protojobs_sqlalchemy.tables.tables import VERSION_TABLE

__all__ = ["Schema", "alembic_config"]

_alembic = threading.Lock()  # Alembic's `op` and `context` are one per process


class Schema:
    """The tables' versions: up, down, as text. Safe from many processes at once, and after a death half-way."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._dialect = connections.dialect

    def migrate(self, *, down: bool = False) -> list[str]:
        """Bring the tables to this release's version, or remove them; answers the revisions that were run."""
        applied: list[str] = []

        def step(conn: Connection) -> None:
            applied.clear()
            self._dialect.check_place(conn)
            unlock = self._dialect.lock_schema(conn)
            try:
                self._alembic(conn, applied, down=down)
                if down:
                    conn.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
            finally:
                unlock()

        self._connections.run(step, Mode.STORE, is_repeatable=True, needs_tables=False)
        return applied

    def sql(self, *, down: bool = False) -> str:
        """The statements that `migrate` would run on an empty (or, for `down`, a full) database."""
        out = io.StringIO()
        config = alembic_config()
        config.output_buffer = out
        config.attributes["dialect_name"] = self._connections.engine.dialect.name
        with _alembic:
            if down:
                command.downgrade(config, f"{HEAD}:base", sql=True)
                return f"{out.getvalue()}DROP TABLE {VERSION_TABLE};\n"
            command.upgrade(config, "head", sql=True)
        return out.getvalue()

    def _alembic(self, conn: Connection, applied: list[str], *, down: bool) -> None:
        config = alembic_config()
        config.attributes["connection"] = conn
        config.attributes["on_version_apply"] = [_noting(applied)]
        with _alembic:
            version = version_of(conn)
            if version is not None and version not in REVISIONS:
                if not down and is_readable(conn, version):
                    return  # a newer release has migrated, and this one goes on working
                raise outdated(conn, version)
            if down:
                command.downgrade(config, "base")
            else:
                if version != HEAD:
                    self._dialect.check_may_create(conn)
                    _check_names_are_free(conn, self._dialect.schema(conn), _to_come(config, version))
                command.upgrade(config, "head")


def _to_come(config: Config, version: str | None) -> Iterator[tuple[str, Sequence[Column[object]]]]:
    """The tables that an upgrade from this version makes, with their columns."""
    for script in ScriptDirectory.from_config(config).iterate_revisions(HEAD, version or "base"):
        made: Tables = getattr(script.module, "tables", dict)()
        yield from made.items()


def _check_names_are_free(
    conn: Connection, schema: str | None, tables: Iterable[tuple[str, Sequence[Column[object]]]]
) -> None:
    """Raise where a table of the application's has the name of one of ours, before anything is made.

    One of ours, from a starter that died half-way, has all its columns.
    """
    for name, columns in tables:
        if absent := lacking(conn, name, columns, schema):
            raise ConfigurationError(
                f"{masked(conn.engine.url)} has a table {shown(name)} already, which is not of protojobs:"
                f" it has no {', '.join(absent)}.",
                mend="Give protojobs another database"
                + ("." if schema is None else ", or a schema of its own: ?options=-csearch_path%3DNAME in the URL."),
            )


def alembic_config() -> Config:
    """Alembic's settings, for the scripts inside this package."""
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
