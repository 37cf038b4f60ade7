"""The setting PROTOJOBS of a Django site: which of DATABASES holds the jobs, and the settings of the queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from msgspec.structs import replace

from protojobs import Settings
from protojobs.config import load_settings
from protojobs.errors import ConfigurationError, did_you_mean, shown

__all__ = ["APP", "SiteSettings", "site_settings"]

APP = "protojobs_django.app"  # the module that sets Django up and imports the jobs: for workers and their children
_HOOKS = "protojobs_django.connections"


class SiteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What PROTOJOBS says."""

    database: str = DEFAULT_DB_ALIAS
    """The alias in DATABASES."""
    migrate: bool = True
    """Whether `manage.py migrate` makes and upgrades the tables of protojobs too."""
    options: dict[str, str] = {}
    """Options of the SQL driver, as in its URL: `{"archive": "daily"}`."""
    queue: Settings
    """All other keys: the settings of the JobQueue."""


def site_settings() -> SiteSettings:
    """What PROTOJOBS says now. Raises ConfigurationError that names the key."""
    given: object = getattr(settings, "PROTOJOBS", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"settings.PROTOJOBS is {shown(given)}.", mend='Write a dict: PROTOJOBS = {"database": "default"}.'
        )
    rest = dict(cast("Mapping[str, object]", given))
    own: dict[str, object] = {key: rest.pop(key) for key in ("database", "migrate", "options") if key in rest}
    if "url" in rest:
        raise ConfigurationError(
            "settings.PROTOJOBS has a url, but the jobs of protojobs_django are in one of DATABASES.",
            mend='Name its alias: PROTOJOBS = {"database": "default"}. For another store make a JobQueue of your own.',
        )
    if "app" in rest:
        raise ConfigurationError("settings.PROTOJOBS has an app.", mend="Jobs are found in jobs.py of installed apps.")
    for key in rest:
        if key not in Settings.__struct_fields__:
            raise ConfigurationError(
                f"settings.PROTOJOBS: unknown setting {shown(key)}.",
                mend=did_you_mean(str(key), [*SiteSettings.__struct_fields__, *Settings.__struct_fields__]),
            )
    queue = load_settings(rest)
    # The store is given by DATABASES, whatever url a settings file beside it names for other programs.
    queue = replace(queue, url=None, app=(APP,), plugins=(*queue.plugins, _HOOKS))
    try:
        values: dict[str, object] = {**own, "queue": queue}
        found = msgspec.convert(values, SiteSettings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"settings.PROTOJOBS does not fit: {error}.") from None
    if found.database not in settings.DATABASES:
        raise ConfigurationError(
            f"settings.PROTOJOBS names the database {shown(found.database)}, which is not in DATABASES.",
            mend=did_you_mean(found.database, settings.DATABASES) or f"There are: {', '.join(settings.DATABASES)}.",
        )
    return found
