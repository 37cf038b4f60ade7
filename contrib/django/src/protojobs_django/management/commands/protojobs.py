"""`manage.py protojobs ...`: the command line of protojobs, for the site's own queue and jobs."""

from __future__ import annotations

import argparse
import os
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from protojobs_django.settings import APP

__all__ = ["Command"]


class Command(BaseCommand):
    """`manage.py protojobs worker`, `status` and all other commands, with their own options and exit codes."""

    help = "The command line of protojobs for this site: worker, status, jobs, doctor and more."
    requires_system_checks = []  # a worker starts, whatever a check thinks of the site

    def run_from_argv(self, argv: list[str]) -> None:
        """Leave all arguments to protojobs, those that Django would take too."""
        _run(_typed(argv[0]), argv[2:])

    def add_arguments(self, parser: CommandParser) -> None:
        """For `call_command("protojobs", "status")`."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_args: object, **options: Any) -> None:  # noqa: ANN401  (as Django declares it)
        """As `run_from_argv`, for `call_command`. Raises SystemExit only for an exit code other than 0."""
        try:
            _run(_typed("manage.py"), options["arguments"])
        except SystemExit as end:
            if end.code:
                raise


def _typed(program: str) -> str:
    """What people type before a command of protojobs, for its hints."""
    path = Path(program)
    if path.name == "__main__.py":  # python -m django
        program = "python -m django"
    elif path.suffix == ".py":
        program = f"python {shlex.quote(program)}"
    else:  # django-admin, which is on PATH
        program = path.stem
    return f"{program} protojobs"


def _run(program: str, arguments: Sequence[str]) -> None:
    # Workers that a supervisor starts find the site's modules where manage.py does.
    if sys.path and sys.path[0]:
        rest = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], *([rest] if rest else [])])
    sys.argv = [program, "--app", f"{APP}:queue", *arguments]
    runpy.run_module("protojobs", run_name="__main__")
