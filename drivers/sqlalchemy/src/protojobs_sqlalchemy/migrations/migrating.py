"""Creating, upgrading and removing the tables, by Alembic."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, String, column, table, text, update

from protojobs.errors import ConfigurationError, OptionInvalid, shown
from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import Mode
from protojobs_sqlalchemy.migrations import HEAD, REVISIONS
from protojobs_sqlalchemy.migrations.making import Tables, lacking
from protojobs_sqlalchemy.migrations.version import is_readable, outdated, version_of
from protojobs_sqlalchemy.tables.naming import VERSION_TABLE, Names
from protojobs_sqlalchemy.verbs.administration import turn_over

__all__ = ["Schema", "alembic_config"]

_alembic = threading.Lock()  # Alembic's `op` and `context` are one per process


class Schema:
    """The tables' versions: up, down, as text. Safe from many processes at once, and after a death half-way."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._dialect = connections.dialect
        self._names = connections.dialect.names

    def migrate(self, *, down: bool = False, to: str | None = None) -> list[str]:
        """Bring the tables to this release's version or to that of `to`, or remove them.

        Answers the revisions that were run. Raises ConfigurationError where a step back to `to` would lose something,
        and OptionInvalid for a version that this release does not know; nothing is done then.
        """
        if to is not None and to not in REVISIONS:
            raise OptionInvalid(
                f"There is no version {shown(to)} of the tables.", mend=f"This release knows {', '.join(REVISIONS)}."
            )
        target = "base" if down else to or HEAD
        applied: list[str] = []

        def step(conn: Connection) -> None:
            applied.clear()
            self._dialect.check_place(conn)
            unlock = self._dialect.lock_schema(conn)
            try:
                if not down:
                    self._dialect.make_place(conn)
                self._alembic(conn, applied, target)
                if down:
                    conn.execute(text(f"DROP TABLE IF EXISTS {self._names.quoted(VERSION_TABLE)}"))
            finally:
                unlock()

        self._connections.run(step, Mode.STORE, is_repeatable=True, needs_tables=False)
        self._connections.are_tables_checked = False
        if target == HEAD:
            self._connections.check_tables()
            if self._dialect.archive.takes_completed:
                turn_over(self._connections, None)
        return applied

    def sql(self, *, down: bool = False) -> str:
        """The statements that `migrate` would run on an empty (or, for `down`, a full) database."""
        out = io.StringIO()
        config = alembic_config(self._names)
        config.output_buffer = out
        config.attributes["dialect_name"] = self._connections.engine.dialect.name
        with _alembic:
            if down:
                command.downgrade(config, f"{HEAD}:base", sql=True)
                return f"{out.getvalue()}DROP TABLE {self._names.quoted(VERSION_TABLE)};\n"
            command.upgrade(config, "head", sql=True)
        schema = self._names.schema
        made = "" if schema is None else f'CREATE SCHEMA IF NOT EXISTS "{schema}";\n\n'
        return made + out.getvalue()

    def _alembic(self, conn: Connection, applied: list[str], target: str) -> None:
        config = alembic_config(self._names)
        config.attributes["connection"] = conn
        config.attributes["on_version_apply"] = [_noting(applied)]
        with _alembic:
            version = version_of(conn, self._names)
            if version is not None and version not in REVISIONS:
                if target == HEAD and is_readable(conn, self._names, version):
                    return  # a newer release has migrated, and this one goes on working
                raise outdated(conn, self._names, version)
            if target == "base":
                command.downgrade(config, target)
            elif version is not None and REVISIONS.index(target) < REVISIONS.index(version):
                _check_nothing_is_lost(conn, self._names, config, version, target)
                command.downgrade(config, target)
                _note_readable_from_of(conn, self._names, config, target)
            else:
                if version != target:
                    self._dialect.check_may_create(conn)
                    to_come = _to_come(config, version, target)
                    _check_names_are_free(conn, self._names, self._dialect.schema(conn), to_come)
                command.upgrade(config, target)


def _to_come(config: Config, version: str | None, target: str) -> Iterator[tuple[str, Sequence[Column[object]]]]:
    """The tables that an upgrade from this version to `target` makes, with their columns."""
    for script in ScriptDirectory.from_config(config).iterate_revisions(target, version or "base"):
        made: Tables = getattr(script.module, "tables", dict)()
        yield from made.items()


def _check_nothing_is_lost(conn: Connection, names: Names, config: Config, version: str, target: str) -> None:
    """Raise where a step back on the way from this version to `target` throws something away, before any is run."""
    for script in ScriptDirectory.from_config(config).iterate_revisions(version, target):
        queries: Sequence[str] = getattr(
            script.module, f"losing_on_{conn.dialect.name}", getattr(script.module, "losing", ())
        )  # without a row of these there is nothing to lose yet
        is_there = not queries or any(conn.exec_driver_sql(names.sql(query)).first() for query in queries)
        if (lost := script.module.step_back_loses) and is_there:
            raise ConfigurationError(
                f"The step back from {script.revision} to {script.down_revision} would lose {lost}. Nothing was done.",
                mend=f"Go back to {script.revision} at most. To remove all tables with all jobs, there is"
                " protojobs migrate --down.",
            )


def _note_readable_from_of(conn: Connection, names: Names, config: Config, version: str) -> None:
    """Let the tables say again what they said before the steps that were taken back."""
    since: str | None = getattr(ScriptDirectory.from_config(config).get_revision(version).module, "readable_from", None)
    if since is not None:
        versions = table(names.bare(VERSION_TABLE), column("readable_from", String), schema=names.schema)
        conn.execute(update(versions).values(readable_from=since))


def _check_names_are_free(
    conn: Connection, names: Names, schema: str | None, tables: Iterable[tuple[str, Sequence[Column[object]]]]
) -> None:
    """Raise where a table of the application's has the name of one of ours, before anything is made.

    One of ours, from a starter that died half-way, has all its columns.
    """
    for name, columns in tables:
        name = names.bare(name)
        if absent := lacking(conn, name, columns, schema):
            raise ConfigurationError(
                f"{names.said(masked(conn.engine.url))} has a table {shown(name)} already, which is not of protojobs:"
                f" it has no {', '.join(absent)}.",
                mend="Give protojobs names of its own in the URL, "
                + ("?prefix=pj_" if schema is None else "?schema=NAME or ?prefix=pj_")
                + ", or another database.",
            )


def alembic_config(names: Names) -> Config:
    """Alembic's settings, for the scripts inside this package."""
    config = Config()
    config.set_main_option("script_location", "protojobs_sqlalchemy:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["names"] = names
    return config


def _noting(applied: list[str]) -> Callable[..., None]:
    def note(*, step: object, **_rest: object) -> None:
        is_upgrade = getattr(step, "is_upgrade", True)
        revision = getattr(step, "up_revision_id" if is_upgrade else "down_revision_ids", None)
        source = getattr(step, "source_revision_ids", ())
        applied.append(str(revision) if is_upgrade else ", ".join(source))

    return note
