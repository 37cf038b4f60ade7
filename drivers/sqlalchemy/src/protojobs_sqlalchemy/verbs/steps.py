"""What every group of verbs stands on: the database, and running one step there once its tables are known to fit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection

from protojobs_sqlalchemy.connecting.connections import Connections
from protojobs_sqlalchemy.dialect import Dialect, Mode, Use
from protojobs_sqlalchemy.migrations.version import check, check_file

__all__ = ["Steps"]

T = TypeVar("T")


class Steps:
    """Holds the connections and the dialect; the driver's groups of verbs inherit from it."""

    def __init__(self, connections: Connections, dialect: Dialect) -> None:
        self._connections = connections
        self._dialect = dialect
        self._is_checked = False

    def _run(
        self, step: Callable[[Connection], T], mode: Mode, *, use: Use = Use.CALL, is_repeatable: bool = False
    ) -> T:
        if not self._is_checked:  # once per driver: a table that vanishes later is told by the database's own error
            check_file(self._connections.engine)
            self._connections.run(self._check, Mode.READ, use=use)
        return self._connections.run(step, mode, use=use, is_repeatable=is_repeatable)

    def _check(self, conn: Connection) -> None:
        check(conn)
        self._dialect.has_archive(conn)  # asked here, and known to the verbs
        self._is_checked = True

    def _run_at(
        self, step: Callable[[Connection, datetime], T], mode: Mode, *, use: Use = Use.CALL, is_repeatable: bool = False
    ) -> T:
        """As `_run`, for a step that asks the store's time once, at its start."""
        return self._run(lambda conn: step(conn, self._dialect.now(conn)), mode, use=use, is_repeatable=is_repeatable)
