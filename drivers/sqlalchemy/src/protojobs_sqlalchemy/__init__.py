"""protojobs on SQLite, PostgreSQL, MariaDB and MySQL, by SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protojobs_sqlalchemy.driver import SQLAlchemyDriver

if TYPE_CHECKING:
    from protojobs_sqlalchemy.tables.models import FailedJobModel, JobModel

__all__ = ["FailedJobModel", "JobModel", "SQLAlchemyDriver"]


def __getattr__(name: str) -> object:
    if name in ("FailedJobModel", "JobModel"):
        from protojobs_sqlalchemy.tables import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
