"""From the arguments to an exit code: the root command, and `main`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import click

from protojobs.cli.commands import CommandTable
from protojobs.cli.exits import MEANINGS, Exit
from protojobs.cli.failing import complain
from protojobs.cli.options import NAMES
from protojobs.cli.session import Session

__all__ = ["main", "root"]

_CODES = "\n".join(f"  {code.value:3}  {meaning}" for code, meaning in MEANINGS.items())
_HELP = f"""Background jobs that are not lost.

Data goes to stdout, words to stderr: a table on a terminal, tab-separated lines in a pipe, one JSON document with
--json. Looking into a store needs only its URL.

\b
Exit codes:
{_CODES}
"""


class _Root(CommandTable):
    def invoke(self, ctx: click.Context) -> object:
        try:
            answer: object = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # `protojobs jobs list | head`: the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.PIPE_CLOSED
        return answer


@click.group(cls=_Root, help=_HELP, context_settings=NAMES)
@click.version_option(version("protojobs"), prog_name="protojobs", message="%(prog)s %(version)s")
def root() -> None:
    """See _HELP."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (by default with `sys.argv`), and answer its exit code. Raises nothing but SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the locale does not have is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    session = Session()
    session.arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        answer: object = root.main(arguments, prog_name="protojobs", standalone_mode=False, obj=session)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the edge: the person gets words and a code)
        return complain(error, session)
    finally:
        session.close()
    return int(answer) if isinstance(answer, int) else Exit.OK
