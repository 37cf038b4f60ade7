"""A plugin: Django's connections are looked after around each job, as they are around each request."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from django.apps import apps
from django.db import close_old_connections, connections

from protojobs import hookimpl
from protojobs_django.apps import ProtojobsConfig
from protojobs_django.settings import site_settings

__all__ = ["protojobs_around_job"]


@hookimpl
@contextmanager
def protojobs_around_job() -> Generator[None]:
    """Close connections that broke or are older than CONN_MAX_AGE, before the job and after it, in its thread.

    In a test run all that are in no transaction are closed after it: servers remove no database that is in use.
    """
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()
        config = apps.get_app_config("protojobs_django")
        if isinstance(config, ProtojobsConfig) and config.is_test_database(site_settings().database):
            for wrapper in connections.all(initialized_only=True):
                if wrapper.connection is not None and not wrapper.in_atomic_block:
                    wrapper.close()
