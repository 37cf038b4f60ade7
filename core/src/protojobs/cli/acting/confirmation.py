"""Asks before a command acts on many jobs: shows what would be done and to what, and wants a yes."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.showing.output import Output

__all__ = ["YES", "confirm"]

YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def confirm(out: Output, what: str, examples: Iterable[str] = (), *, is_agreed: bool) -> None:
    """Show what is about to be done, with examples, and ask. Raises CommandFailed unless somebody says yes."""
    out.note(what)
    for example in examples:
        out.note(f"  {example}")
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise CommandFailed(
            Exit.USAGE, "Refused: nobody is here to say yes. Nothing was done.", mend="the same with --yes"
        )
    if not click.confirm("Go on?", default=False, err=True):
        raise CommandFailed(Exit.USAGE, "Nothing was done.")
