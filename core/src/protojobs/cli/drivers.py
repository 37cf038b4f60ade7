"""`protojobs drivers`: what is installed, read from metadata; no driver is imported."""

from __future__ import annotations

import click

from protojobs._registry import driver_entry_points
from protojobs.cli.options import StoreCommand
from protojobs.cli.output import Column
from protojobs.cli.session import Session

__all__ = ["command"]

_FIELDS = ("scheme", "distribution", "version", "class")


@click.command("drivers", cls=StoreCommand, short_help="List the installed drivers.")
@click.pass_obj
def command(session: Session) -> None:
    """List the installed drivers by the scheme of the URLs that they answer to.

    Columns: scheme, distribution, version, class.
    """
    rows = [
        (entry.name, entry.dist.name if entry.dist else "", entry.dist.version if entry.dist else "", entry.value)
        for entry in driver_entry_points()
    ]
    items = [dict(zip(_FIELDS, row, strict=True)) for row in rows]
    session.out.items("drivers@1", items, [Column(field) for field in _FIELDS], rows)
    if not rows:
        session.out.note("No driver is installed. Try: pip install 'protojobs[sql]'")
