"""The plugin that runs each job in an application context of its own, as Flask does for each request."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from flask import Flask
from flask.cli import ScriptInfo

from protojobs import JobContext, hookimpl

__all__ = ["PLUGIN", "AppContexts", "is_initialised"]

PLUGIN = "protojobs_flask.contexts:AppContexts"  # as the setting `plugins` names it: child processes load it too
_initialised: list[Flask] = []  # at most one, the last


def is_initialised(app: Flask) -> None:
    """Jobs of this process run in the context of this application, unless another comes after it."""
    _initialised[:] = [app]


class AppContexts:
    """`app`: None takes the application that the extension was initialised with last; where there is none, as in a
    worker that `flask protojobs` has started, the one that FLASK_APP names. Raises what Flask raises if that cannot be
    made: then nothing is pushed or run.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is None:
            app = _initialised[0] if _initialised else ScriptInfo(os.environ.get("FLASK_APP")).load_app()
        self._app = app

    @hookimpl
    def protojobs_around_job(self, context: JobContext) -> AbstractContextManager[object]:
        """A new context, with its own `g`. What the application tears down after a request is torn down after a job."""
        return self._app.app_context()
