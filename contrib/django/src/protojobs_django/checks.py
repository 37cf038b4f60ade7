"""What `manage.py check` says of protojobs: settings that do not fit, a database that will not do, tables that lack."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.checks import CheckMessage, Error, Warning

from protojobs.errors import ConfigurationError, ProtojobsError, SchemaOutdated
from protojobs_django.current import current_queue
from protojobs_django.settings import site_settings

__all__ = ["check_settings", "check_tables"]


def check_settings(**_about: object) -> list[CheckMessage]:
    """E001: PROTOJOBS does not fit, or names a database in which protojobs keeps no jobs. Asks no database."""
    try:
        current_queue()
    except ConfigurationError as error:
        return [Error(error.message, hint=error.mend, id="protojobs.E001")]
    return []


def check_tables(*, databases: Sequence[str] | None = None, **_about: object) -> list[CheckMessage]:
    """W001: the tables are not there, or of another version; W002: the database could not be asked.

    Only with `check --database NAME`, and in `migrate`, which says so before it makes them.
    """
    try:
        site = site_settings()
    except ConfigurationError:
        return []  # E001 says it
    if not databases or site.database not in databases:
        return []
    try:
        current_queue().stats()
    except SchemaOutdated as error:
        hint = "python manage.py migrate" if site.migrate else "python manage.py protojobs migrate"
        return [Warning(error.message, hint=hint, id="protojobs.W001")]
    except ProtojobsError as error:
        return [Warning(error.message, hint=error.mend, id="protojobs.W002")]
    return []
