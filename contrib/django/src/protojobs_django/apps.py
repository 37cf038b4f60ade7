"""The app for INSTALLED_APPS: imports the jobs of all apps, and makes the tables when the site's own are migrated."""

from __future__ import annotations

from collections.abc import Callable

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import Tags, register
from django.db import connections
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules

from protojobs_django import checks
from protojobs_django.current import close_queue, current_queue
from protojobs_django.driver import DjangoDriver
from protojobs_django.settings import site_settings

__all__ = ["ProtojobsConfig"]


_REMOVES = "destroy_test_db"


class ProtojobsConfig(AppConfig):
    """`INSTALLED_APPS = [..., "protojobs_django"]`."""

    name = "protojobs_django"
    verbose_name = "Background jobs"

    def ready(self) -> None:
        """Import `jobs.py` of each installed app, and follow `manage.py migrate`.

        Where TASKS names our backend `tasks.py` is imported too.
        """
        self._names = {alias: str(entry.get("NAME")) for alias, entry in settings.DATABASES.items()}
        register(checks.check_settings)
        register(Tags.database)(checks.check_tables)
        post_migrate.connect(self._follow_migrate, sender=self)
        tasks = getattr(settings, "TASKS", {}).values()
        is_backend = any(str(entry.get("BACKEND", "")).startswith(f"{self.name}.") for entry in tasks)
        autodiscover_modules("jobs", *(["tasks"] if is_backend else []))

    def is_test_database(self, alias: str) -> bool:
        """Whether the database has another name than at the start: Django's test runner gave it that."""
        return str(connections[alias].settings_dict["NAME"]) != self._names.get(alias)

    def _follow_migrate(self, *, using: str, verbosity: int = 1, **about: object) -> None:
        """After `migrate` make or upgrade the tables of protojobs; after the `flush` of a test remove its jobs."""
        site = site_settings()
        if using != site.database or not site.migrate:
            return
        queue = current_queue()
        driver = queue.driver
        assert isinstance(driver, DjangoDriver)
        if "plan" not in about:  # `flush`, with which a TransactionTestCase ends
            if self.is_test_database(using):
                for info in queue.queues():
                    queue.clear(info.name)
            return
        for revision in driver.migrate():
            if verbosity >= 1:
                print(f"  Applying protojobs.{revision}... OK")  # noqa: T201  (as Django's own migrations say it)
        if self.is_test_database(using):
            self._close_before_removal(using)

    def _close_before_removal(self, alias: str) -> None:
        """Servers remove no database to which somebody is connected."""
        creation: object = connections[alias].creation
        removing: Callable[..., None] = getattr(creation, _REMOVES)

        def destroy_test_db(*args: object, **kwargs: object) -> None:
            close_queue()
            removing(*args, **kwargs)

        setattr(creation, _REMOVES, destroy_test_db)  # of this connection alone: Django has no signal for it
