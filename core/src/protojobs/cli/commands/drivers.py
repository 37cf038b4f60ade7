"""`protojobs drivers`: what is installed, read from metadata; no driver is imported. `new` begins another."""

from __future__ import annotations

import click

from protojobs.cli.options import StoreCommand, StoreGroup
from protojobs.cli.scaffold import new_driver
from protojobs.cli.session import Session
from protojobs.cli.showing.output import Column
from protojobs.port.urls import driver_entry_points

__all__ = ["command"]

_FIELDS = ("scheme", "distribution", "version", "class")


class _Drivers(StoreGroup):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return click.Group.parse_args(self, ctx, args)  # alone it lists


@click.group("drivers", cls=_Drivers, invoke_without_command=True, short_help="List the installed drivers; begin one.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the installed drivers (alone, or with `list`), or begin a new one."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_drivers)


@command.command("list", cls=StoreCommand, short_help="List the installed drivers.")
@click.pass_obj
def list_drivers(session: Session) -> None:
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


command.add_command(new_driver)
