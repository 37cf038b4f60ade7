"""The entry point: the root command, and `main`, which runs the command line and returns an exit code."""

from __future__ import annotations

import atexit
import io
import os
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version

import click

from protojobs.cli.command_table import CommandTable
from protojobs.cli.error_messages import print_error
from protojobs.cli.exits import MEANINGS, Exit
from protojobs.cli.options import NAMES
from protojobs.cli.session import PROGRAM, Session
from protojobs.errors import shown

__all__ = ["main", "root"]

LINGER_S = 10.0  # the default of exit_bound: by then nothing of a job runs here any more

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
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # `protojobs jobs list | head`: the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.PIPE_CLOSED
        return result


def _end_soon() -> None:
    """Threads that jobs have left behind keep no process: one of `asyncio.to_thread` outlives its cancelled task, and
    Python waits for it.
    """
    if threading.active_count() > 1:
        watch = threading.Timer(LINGER_S, _end)
        watch.daemon = True
        atexit.register(watch.cancel)  # called when those threads have ended, before all that others registered
        watch.start()


def _end() -> None:
    try:
        sys.stderr.write(f"protojobs: a thread that a job left behind is still at work after {LINGER_S:g} s; ending.\n")
        sys.stderr.flush()
    finally:
        os._exit(Exit.BAD)


@click.group(cls=_Root, help=_HELP, context_settings=NAMES)
@click.version_option(version("protojobs"), prog_name="protojobs", message="%(prog)s %(version)s")
def root() -> None:
    """The text of --help is _HELP."""


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse bytes that are no text in this locale: no store could look for them."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"{shown(argument)} is no UTF-8 text.") from None


def main(arguments: Sequence[str] | None = None, *, program: str = PROGRAM) -> int:
    """Run the command line (by default with `sys.argv`), and return its exit code. Raises nothing but SystemExit.

    `program` is what people type before a command. One that is not `protojobs` gives `--app` by itself.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the locale does not have is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    session = Session(program)
    session.arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        _check_text(session.arguments)
        result: object = root.main(arguments, prog_name=program, standalone_mode=False, obj=session)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the edge: the person gets words and a code)
        return print_error(error, session)
    finally:
        session.close()
        if arguments is None:
            _end_soon()
    return int(result) if isinstance(result, int) else Exit.OK
