"""Creating, upgrading and removing the tables, by Alembic."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from protojobs_sqlalchemy.connections import Connections
from protojobs_sqlalchemy.dialects import Dialect, Mode
from protojobs_sqlalchemy.migrations import HEAD, REVISIONS
from protojobs_sqlalchemy.schema import outdated, version_of
from protojobs_sqlalchemy.tables import VERSION_TABLE

__all__ = ["Schema", "alembic_config"]

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

        self._connections.run(step, Mode.STORE, is_repeatable=True)
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
                raise outdated(conn, version)
            if down:
                command.downgrade(config, "base")
            else:
                command.upgrade(config, "head")


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
