"""The extension object: makes the queue of an application from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec
from flask import Flask, current_app, has_app_context

from protojobs import JobQueue
from protojobs.errors import ConfigurationError
from protojobs_flask.command import command
from protojobs_flask.contexts import PLUGIN, is_initialised

__all__ = ["ProtoJobs"]

KEY = "protojobs"  # in app.extensions
PREFIX = "PROTOJOBS_"  # in app.config, as in the environment


class ProtoJobs:
    """`jobs = ProtoJobs(app)`, or `jobs = ProtoJobs()` and later `jobs.init_app(app)`; then `jobs.queue`."""

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Make the queue of this application, and its command `flask protojobs`.

        `app.config` holds the settings as `PROTOJOBS_URL`, `PROTOJOBS_PUSH_TIMEOUT` and so on; they win over the
        environment and the settings file. Opens nothing. Raises ConfigurationError for a setting that there is not, or
        a store that nobody names.
        """
        config = cast("Mapping[str, object]", app.config)
        given = {name.removeprefix(PREFIX).lower(): value for name, value in config.items() if name.startswith(PREFIX)}
        queue = JobQueue.from_config(**given)
        if PLUGIN not in queue.settings.plugins:
            plugins = (*queue.settings.plugins, PLUGIN)
            queue = JobQueue(queue.driver, msgspec.structs.replace(queue.settings, plugins=plugins))
        app.extensions[KEY] = queue
        app.cli.add_command(command)
        is_initialised(app)

    @property
    def queue(self) -> JobQueue:
        """The queue of the current application. Raises ConfigurationError outside of its context."""
        if not has_app_context():
            raise ConfigurationError(
                "There is no current Flask application.",
                mend="Ask for the queue in a request or a job, or inside `with app.app_context():`.",
            )
        queue = current_app.extensions.get(KEY)
        if not isinstance(queue, JobQueue):
            raise ConfigurationError(
                f"The application {current_app.name} has no queue.", mend="Call ProtoJobs(app), or jobs.init_app(app)."
            )
        return queue
