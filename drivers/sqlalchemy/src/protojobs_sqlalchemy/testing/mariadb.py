"""MariaDB's and MySQL's way inside a test's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from protojobs_sqlalchemy.mariadb.dialect import MariaDBDialect
from protojobs_sqlalchemy.testing.dialects import Inside

__all__ = ["InsideMariaDB"]


class InsideMariaDB(Inside, MariaDBDialect):
    """MariaDB and MySQL."""

    def _frame(self) -> tuple[Sequence[str], Sequence[str]]:
        return [], []
