"""protojobs on SQLite, PostgreSQL, MariaDB and MySQL, by SQLAlchemy."""

from protojobs_sqlalchemy.driver import SQLAlchemyDriver
from protojobs_sqlalchemy.models import FailedJobModel, JobModel

__all__ = ["FailedJobModel", "JobModel", "SQLAlchemyDriver"]
