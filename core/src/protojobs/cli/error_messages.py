"""Prints errors on stderr: what happened, why, and what to try."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path

import click

from protojobs.cli.exits import Exit, exit_of
from protojobs.cli.session import Session
from protojobs.cli.showing.text import escaped
from protojobs.errors import ProtojobsError, SchemaOutdated, StoreUnavailable, did_you_mean

__all__ = ["print_error"]

_SENTENCE_END = re.compile(r"(?<=[a-z0-9\"'`)\]]\.) (?=[A-Z])")
_MIGRATE = re.compile(r"protojobs migrate(?! --)")  # with an option it is something else, and said whole
_LEADING_WORDS = re.compile(r"^(?:Try|Type):? +")


def print_error(error: BaseException, session: Session) -> int:
    """Print the error, and return its exit code."""
    if session.is_debug:
        click.echo("".join(traceback.format_exception(error)), err=True)
    match error:
        case click.UsageError():
            return _usage(error, session)
        case click.ClickException():
            _print(error.format_message(), "", "")
            return Exit.USAGE
        case KeyboardInterrupt() | click.Abort() | EOFError():
            _print("interrupted", "", "")
            return Exit.INTERRUPTED
        case ProtojobsError():
            what, why = _split(error.message)
            _print(what, f"{why} {_named_in(error, session)}".strip(), _mend(error, session))
            return exit_of(error)
        case _:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            _print(
                f"unexpected {what}",
                "This is a fault in protojobs, a driver or a plugin, not in what you typed.",
                "the same with --debug",
            )
            return Exit.BAD


def _usage(error: click.UsageError, session: Session) -> int:
    path = error.ctx.command_path if error.ctx else session.program
    if isinstance(error, click.NoSuchOption):
        params = error.ctx.command.get_params(error.ctx) if error.ctx else []
        options = [name for param in params if isinstance(param, click.Option) for name in param.opts]
        meant = did_you_mean(error.option_name, options, cutoff=0.75)  # the dashes alone make any two alike
        what, why = f'There is no option "{error.option_name}".', meant
    else:
        what, why = _split(session.named(error.format_message()))
    _print(what, why, f"{path} --help")
    return Exit.USAGE


def _mend(error: ProtojobsError, session: Session) -> str:
    if isinstance(error, SchemaOutdated) and _MIGRATE.search(error.mend):
        return session.to_type("protojobs migrate")
    if isinstance(error, StoreUnavailable) and error.job_ids:
        return f"the same command with --id {error.job_ids[0]}, which stores the job once"
    return session.to_type(error.mend)


def _named_in(error: ProtojobsError, session: Session) -> str:
    """Where the address of a store without tables stands, if that is not plain to see."""
    source = session.url_source if isinstance(error, SchemaOutdated) else None
    return "" if source is None or source.parent == Path.cwd() else f"It is the url of {source}."


def _split(text: str) -> tuple[str, str]:
    """The first sentence, and the others."""
    parts = _SENTENCE_END.split(text.strip(), maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def _print(what: str, why: str, mend: str) -> None:
    may_colour = "NO_COLOR" not in os.environ and sys.stderr.isatty()
    head = click.style("error:", fg="red", bold=True) if may_colour else "error:"
    click.echo(f"{head} {escaped(what)}", err=True)
    if why:
        click.echo(f"  {escaped(why)}", err=True)
    if mend:
        mend = _LEADING_WORDS.sub("", mend)
        click.echo(
            f"  {escaped(mend)}" if mend.startswith(("Did you mean", "Installed")) else f"  try: {escaped(mend)}",
            err=True,
        )
