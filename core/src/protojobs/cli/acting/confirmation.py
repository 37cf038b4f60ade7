"""Before something is done to many jobs: how many they are, what they are, and do you want that?"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.showing.output import Output

__all__ = ["YES", "confirm"]

YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def confirm(out: Output, what: str, examples: Iterable[str] = (), *, is_agreed: bool) -> None:
    """Say what is about to be done, show some of it, and ask. Raises CommandFailed unless somebody says yes."""
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
