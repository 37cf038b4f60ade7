"""`flask protojobs ...`: the command line of protojobs, with the configuration of the application."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import cast

import click
from flask import current_app
from flask.cli import ScriptInfo

from protojobs import JobQueue

__all__ = ["command"]


@click.command(
    "protojobs",
    short_help="Work jobs, and look after them.",
    add_help_option=False,  # --help is that of `protojobs`, and of its commands
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, arguments: Sequence[str]) -> None:
    """Run `protojobs` with the settings and the jobs of this application: flask protojobs worker.

    This process becomes it, so that signals reach the worker itself, and the application is made once more there.
    """
    queue = cast("Mapping[str, object]", current_app.extensions)["protojobs"]
    assert isinstance(queue, JobQueue)  # the extension has added this command
    info = ctx.find_object(ScriptInfo)
    # In the environment, so that the processes which a worker starts have them too.
    os.environ.update(_as_environment(queue))
    if info is not None and info.app_import_path:
        os.environ["FLASK_APP"] = info.app_import_path
    typed = [sys.executable, "-m", "protojobs", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":  # there `execv` returns to the shell at once
        sys.exit(subprocess.run(typed, check=False).returncode)
    os.execv(sys.executable, typed)


def _as_environment(queue: JobQueue) -> dict[str, str]:
    """What the application has configured, and the modules of the jobs that it has imported."""
    given: dict[str, str] = {}
    for name, value in cast("Mapping[str, object]", current_app.config).items():
        if name.startswith("PROTOJOBS_") and value is not None:
            parts = cast("Sequence[object]", value) if isinstance(value, list | tuple) else (value,)
            given[name] = ",".join(map(str, parts))
    modules = {queue.registry.get(name).module for name in queue.registry}
    given["PROTOJOBS_APP"] = ",".join(queue.settings.app or sorted(modules - {"__main__"}))
    given["PROTOJOBS_PLUGINS"] = ",".join(queue.settings.plugins)
    return {name: text for name, text in given.items() if text}
